"""Linear interpolation of volumes in slabs: values and gradients against torch's own sampler in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench import field
from reg_bench.field.linear_sampling import linear
from reg_bench.field.volume import plan_slabs

# Large enough for slabs; several of them, sizes that are no power of two, axes that differ.
SHAPES = [(40, 33, 19), (3, 70, 90), (150, 20, 9), (300, 64, 2), (30, 1, 700)]


def reference(image: Tensor, u: Tensor) -> Tensor:
    """The same by a single call of the sampler of volumes."""
    half = u.new_tensor([max(n - 1, 1) / 2 for n in image.shape[2:]])
    grid = ((field.identity_grid(u.shape[2:], dtype=u.dtype) + u).movedim(1, -1) / half - 1).flip(-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(spatial: tuple[int, ...], amplitude: float, batch: int = 1) -> Tensor:
    return F.interpolate(random(batch, 3, 4, 4, 4), size=spatial, mode="trilinear", align_corners=True) * amplitude


@pytest.mark.parametrize("spatial", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("amplitude", [0.3, 6.0])
def test_values_and_gradients_are_those_of_the_sampler(
    spatial: tuple[int, int, int], channels: int, amplitude: float
) -> None:
    image, u = random(1, channels, *spatial), smooth(spatial, amplitude)
    assert plan_slabs(u[0], spatial) is not None
    results = []
    for function in (linear, reference):
        leaves = image.clone().requires_grad_(), u.clone().requires_grad_()
        out = function(*leaves)
        results.append((out.detach(), *torch.autograd.grad(out, leaves, random(*out.shape, seed=1))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_image_and_field_may_have_grids_of_different_size() -> None:
    image, u = random(2, 2, 20, 31, 17), smooth((50, 20, 40), 4.0, batch=2)
    for function in (linear, lambda a, b: linear(a.requires_grad_(), b).detach()):
        torch.testing.assert_close(function(image, u), reference(image, u).detach(), atol=1e-10, rtol=0)


def test_single_precision_places_positions_to_a_few_ten_thousandths_of_a_voxel() -> None:
    spatial = (60, 61, 30)
    image, u = smooth(spatial, 10.0)[:, :1], smooth(spatial, 5.0)
    out = linear(image.float(), u.float()).double()
    slope = torch.stack([image.diff(dim=d).abs().max() for d in (2, 3, 4)]).sum()
    assert (out - reference(image, u)).abs().max() < 2e-4 * slope


def test_zero_field_is_the_identity_and_its_gradient_ends_at_the_border() -> None:
    """Rows of neighbouring planes touch in the tall plane: nothing of the next plane may leak into the last row."""
    image = torch.rand(1, 1, 32, 32, 33, generator=torch.Generator().manual_seed(0))
    for shift in (0.0, -1e-5, -4e-5, 1e-5):
        u = torch.full((1, 3, 32, 32, 33), shift).requires_grad_()
        out = linear(image, u)
        torch.testing.assert_close(out.detach(), image, atol=4e-4, rtol=0)
        (gradient,) = torch.autograd.grad(out.sum(), u)
        along = gradient[0, 1, :, -1]
        true = image[0, 0, :, -1] - image[0, 0, :, -2]
        assert torch.minimum(along.abs(), (along - true).abs()).max() < 1e-3
    torch.testing.assert_close(linear(image, torch.zeros(1, 3, 32, 32, 33)), image, atol=2e-7, rtol=0)


def test_positions_too_far_apart_are_read_all_the_same() -> None:
    spatial = (60, 300, 4)
    image, u = random(1, 1, *spatial), random(1, 3, *spatial, seed=2) * 40
    assert plan_slabs(u[0], spatial) is None
    leaf = u.clone().requires_grad_()
    torch.testing.assert_close(linear(image, leaf).detach(), reference(image, u), atol=1e-10, rtol=0)


@pytest.mark.parametrize("spatial", [(20, 40, 40), (40, 50)])
def test_nan_is_marked_and_receives_no_gradient(spatial: tuple[int, ...]) -> None:
    image = random(2, 1, *spatial)
    u = torch.zeros(2, len(spatial), *spatial, dtype=torch.float64)
    at = (0, 0, *(3,) * len(spatial))
    u[at] = torch.nan
    leaf = u.clone().requires_grad_()
    out = linear(image, leaf)
    assert out[at].isnan()
    assert int(out.isnan().sum()) == 1
    (gradient,) = torch.autograd.grad(out.nan_to_num().sum(), leaf)
    assert gradient.isfinite().all()


def test_a_case_of_a_batch_comes_out_as_if_alone() -> None:
    spatial = (30, 30, 30)
    image, u = random(2, 3, *spatial).float(), smooth(spatial, 3.0, batch=2).float()
    u[1] *= 4

    def run(i: slice) -> list[Tensor]:
        leaves = image[i].clone().requires_grad_(), u[i].clone().requires_grad_()
        out = linear(*leaves)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]

    for k in range(2):
        for both, alone in zip(run(slice(None)), run(slice(k, k + 1)), strict=True):
            assert torch.equal(both[k : k + 1], alone)


@pytest.mark.parametrize("spatial", [(5, 6), (28, 26, 25)])
def test_second_derivatives_are_those_of_the_sampler(spatial: tuple[int, ...]) -> None:
    image, u = random(1, 1, *spatial), torch.rand(1, len(spatial), *spatial, dtype=torch.float64) * 0.5 + 0.2
    results = []
    for function in (linear, reference):
        leaf = u.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(image, leaf).square().sum(), leaf, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    torch.testing.assert_close(*results, atol=1e-9, rtol=0)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    spatial = (26, 26, 26)
    image, u = random(1, 1, *spatial), smooth(spatial, 1.0)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(linear(leaf, u).sum(), leaf)
    # A constant image keeps its sum of weights: every voxel of the result hands out one.
    assert float(gradient.sum()) == pytest.approx(u[0, 0].numel())


def test_a_volume_that_grows_is_interpolated_linearly() -> None:
    image = random(2, 2, 5, 4, 6)
    size = (11, 9, 16)
    out = field.resize_image(image, size)
    torch.testing.assert_close(out, F.interpolate(image, size=size, mode="trilinear", align_corners=True))
    image[0, 0, 2, 2, 2] = torch.nan
    assert field.resize_image(image, size).isnan().sum() < 200
