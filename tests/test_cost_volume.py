"""Cost volumes against brute force, by value, gradient and symmetry."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench import cost_volume as module
from reg_bench.cost_volume import cost_volume, difference_volume, window_offsets

CASES = [((9, 7), 2, 1), ((6, 11), (0, 3), 1), ((5, 8, 6), 1, 1), ((4, 5, 7), (1, 2, 0), 2), ((1, 6), 1, 3)]


def maps(
    spatial: Sequence[int], *, batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(spatial))
    fixed, moving = torch.randn(2, batch, channels, *spatial, generator=generator, dtype=dtype)
    return fixed, moving


def shifted(moving: Tensor, offset: Sequence[int], border: bool) -> Tensor:
    """`moving(x + o)`, voxel by voxel."""
    spatial = moving.shape[2:]
    out = torch.zeros_like(moving)
    for x in itertools.product(*(range(n) for n in spatial)):
        y = [a + o for a, o in zip(x, offset, strict=True)]
        if border:
            y = [min(max(a, 0), n - 1) for a, n in zip(y, spatial, strict=True)]
        if all(0 <= a < n for a, n in zip(y, spatial, strict=True)):
            out[(..., *x)] = moving[(..., *y)]
    return out


@pytest.fixture(params=["whole", "blocks"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with the block size in use, once with blocks so small that every grid is cut."""
    if request.param == "blocks":
        monkeypatch.setattr(module, "_CPU_BLOCK", 300)
    return str(request.param)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize(("spatial", "radius", "step"), CASES)
def test_correlation_equals_brute_force(spatial: tuple[int, ...], radius: int | tuple[int, ...], step: int) -> None:
    fixed, moving = maps(spatial)
    offsets = window_offsets(radius, len(spatial), step)
    expected = torch.stack([(fixed * shifted(moving, o, border=False)).mean(1) for o in offsets], dim=1)
    torch.testing.assert_close(cost_volume(fixed, moving, radius, step), expected, atol=1e-14, rtol=1e-13)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("spatial", "radius", "step"), CASES)
def test_differences_equal_brute_force(
    spatial: tuple[int, ...], radius: int | tuple[int, ...], step: int, power: int
) -> None:
    fixed, moving = maps(spatial)
    offsets = window_offsets(radius, len(spatial), step)
    expected = [(fixed - shifted(moving, o, border=True)).abs().pow(power).mean(1) for o in offsets]
    found = difference_volume(fixed, moving, radius, step, power=power)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), atol=1e-14, rtol=1e-13)


def test_float32_is_close_to_float64() -> None:
    fixed, moving = maps((12, 11, 10), batch=1, channels=32)
    found = cost_volume(fixed.float(), moving.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), cost_volume(fixed, moving), atol=1e-6, rtol=0)


def test_half_precision_is_summed_in_single() -> None:
    fixed, moving = maps((9, 8), batch=1, channels=64)
    found = cost_volume(fixed.half(), moving.half(), 1)
    assert found.dtype == torch.float16
    expected = cost_volume(fixed.half().double(), moving.half().double(), 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)


def test_offsets_run_with_the_first_axis_slowest() -> None:
    offsets = window_offsets(2, 3)
    assert len(offsets) == 125
    assert offsets[62] == (0, 0, 0)
    assert offsets[:6] == [(-2, -2, -2), (-2, -2, -1), (-2, -2, 0), (-2, -2, 1), (-2, -2, 2), (-2, -1, -2)]
    assert window_offsets((1, 0), 2, step=4) == [(-4, 0), (0, 0), (4, 0)]


def test_centre_channel_is_the_mean_product_and_the_rim_sees_zeros() -> None:
    fixed, moving = maps((5, 5, 5))
    volume = cost_volume(fixed, moving, 2)
    torch.testing.assert_close(volume[:, 62], (fixed * moving).mean(1))
    assert torch.equal(volume[:, :25, 0], torch.zeros_like(volume[:, :25, 0]))


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize(("spatial", "radius", "step"), [((3, 4), 1, 1), ((2, 2, 3), (1, 0, 1), 1), ((4, 3), 1, 2)])
def test_gradients_equal_finite_differences(spatial: tuple[int, ...], radius: int | tuple[int, ...], step: int) -> None:
    fixed, moving = (t.requires_grad_() for t in maps(spatial, channels=2))
    assert torch.autograd.gradcheck(lambda f, m: cost_volume(f, m, radius, step), (fixed, moving))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradient_of_one_map_alone_equals_autograd(wanted: tuple[bool, bool]) -> None:
    fixed, moving = (t.requires_grad_(w) for t, w in zip(maps((6, 7, 5)), wanted, strict=True))
    upstream = torch.randn(2, 125, 6, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = fixed if wanted[0] else moving
    (found,) = torch.autograd.grad((cost_volume(fixed, moving, 2) * upstream).sum(), chosen)
    padded = F.pad(moving, (2,) * 6)
    windows = padded.unfold(2, 6, 1).unfold(3, 7, 1).unfold(4, 5, 1).flatten(2, 4)
    (expected,) = torch.autograd.grad(((fixed[:, :, None] * windows).mean(1) * upstream).sum(), chosen)
    torch.testing.assert_close(found, expected)


def test_memory_layout_does_not_matter() -> None:
    fixed, moving = maps((6, 7, 5))
    strided = (t.to(memory_format=torch.channels_last_3d).requires_grad_() for t in (fixed, moving))
    plain = [t.clone().requires_grad_() for t in (fixed, moving)]
    f, m = strided
    assert torch.equal(cost_volume(f, m, 1), cost_volume(plain[0], plain[1], 1))
    cost_volume(f, m, 1).square().sum().backward()
    cost_volume(plain[0], plain[1], 1).square().sum().backward()
    for a, b in zip((f, m), plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_each_case_of_a_batch_comes_out_as_if_alone() -> None:
    fixed, moving = maps((7, 6, 8), batch=3, dtype=torch.float32)
    for volume in (cost_volume, difference_volume):
        together = volume(fixed, moving, 1)
        for k in range(3):
            assert torch.equal(together[k : k + 1], volume(fixed[k : k + 1], moving[k : k + 1], 1))


def test_identical_maps_fit_best_in_the_centre() -> None:
    fixed, _ = maps((8, 9, 7), channels=16)
    assert difference_volume(fixed, fixed, 1).flatten(2).mean(2).argmin(1).tolist() == [13, 13]
    assert cost_volume(fixed, fixed, 1).flatten(2).mean(2).argmax(1).tolist() == [13, 13]


@pytest.mark.parametrize("volume", [cost_volume, difference_volume])
def test_a_shift_is_found_along_its_axis(volume: object) -> None:
    fixed, _ = maps((12, 13, 11), channels=8, batch=1)
    offsets = window_offsets(2, 3)
    for offset in ((2, 0, 0), (0, -1, 0), (0, 0, 1), (1, -2, 2)):
        moving = torch.roll(fixed, offset, (2, 3, 4))
        if volume is cost_volume:
            best = int(cost_volume(fixed, moving, 2).flatten(2).mean(2).argmax())
        else:
            best = int(difference_volume(fixed, moving, 2).flatten(2).mean(2).argmin())
        assert offsets[best] == offset


def test_bad_input_is_named() -> None:
    fixed, moving = maps((5, 6))
    with pytest.raises(ValueError, match="one shape"):
        cost_volume(fixed, moving[:, :2])
    with pytest.raises(ValueError, match="one shape"):
        difference_volume(fixed[:, :, 0], moving[:, :, 0], 1)
    with pytest.raises(ValueError, match="floating point"):
        cost_volume(fixed.long(), moving.long())
    with pytest.raises(ValueError, match="radius must be"):
        cost_volume(fixed, moving, (1, 1, 1))
    with pytest.raises(ValueError, match="step at least 1"):
        cost_volume(fixed, moving, 1, 0)
    with pytest.raises(ValueError, match="power must be"):
        difference_volume(fixed, moving, 1, power=3)
