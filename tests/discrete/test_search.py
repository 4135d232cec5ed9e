"""The search from coarse to fine on images whose motion is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reg_bench.discrete import CoupledConvex, MessagePassing, Regularization, Search, coarse_to_fine, search_levels
from reg_bench.field import compose, gaussian, identity_grid, jacobian_determinant
from reg_bench.similarity import mind_descriptor

SHAPES = {2: (48, 40), 3: (26, 24, 22)}


def picture(points: Tensor, seed: int = 0) -> Tensor:
    """A smooth texture at `points (B, D, *S)` in voxels, `(B, 1, *S)` in 0..1."""
    dims = points.shape[1]
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(24, dims, generator=generator, dtype=torch.float64)
    length = torch.rand(24, generator=generator, dtype=torch.float64) * 16 + 10
    phase = torch.rand(24, generator=generator, dtype=torch.float64) * 2 * math.pi
    waves = direction / direction.norm(dim=1, keepdim=True) * (2 * math.pi / length)[:, None]
    angles = torch.einsum("kd,bd...->bk...", waves, points) + phase.reshape(-1, *(1,) * dims)
    return 0.5 + 0.4 * torch.cos(angles).mean(1, keepdim=True) * 24**0.5 / 2


def moved(u: Tensor, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Fixed and moving image with `fixed(x) = moving(x + u(x))`."""
    grid = identity_grid(u.shape[2:], dtype=torch.float64).expand(len(u), *u.shape[1:])
    return picture(grid + u, seed).to(dtype), picture(grid, seed).to(dtype)


def constant(shape: tuple[int, ...], shift: tuple[float, ...]) -> Tensor:
    return torch.tensor(shift, dtype=torch.float64).reshape(1, -1, *(1,) * len(shape)).expand(1, len(shape), *shape)


def features(image: Tensor) -> Tensor:
    return mind_descriptor(gaussian(image, 0.5), 0, 1)


def found(fixed: Tensor, moving: Tensor, regularization: Regularization | None = None, **settings: bool) -> Tensor:
    levels = search_levels(fixed.shape[2:], (2, 1, 1), (3, 1, 1), (8, 64, 27), smallest_size=12)
    search = Search(features, regularization or CoupledConvex(), **settings)
    return coarse_to_fine(fixed, moving, levels, search)


def inner_error(u: Tensor, truth: Tensor) -> float:
    """Root mean square length of the difference, away from the border."""
    margin = (slice(5, -5),) * (u.ndim - 2)
    return float((u.double() - truth)[(..., *margin)].square().sum(1).mean().sqrt())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("regularization", [CoupledConvex(), MessagePassing()])
@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.4), (2.6, 0.0, 0.0), (0.0, 1.7, -2.2)])
def test_a_shift_is_found_below_a_voxel(
    shift: tuple[float, ...], regularization: Regularization, symmetric: bool
) -> None:
    truth = constant(SHAPES[len(shift)], shift)
    u = found(*moved(truth), regularization, symmetric=symmetric)
    assert u.shape == truth.shape
    assert inner_error(u, truth) < 0.5


@pytest.mark.parametrize("dims", [2, 3])
def test_a_motion_that_varies_is_found_without_folding(dims: int) -> None:
    grid = identity_grid(SHAPES[dims], dtype=torch.float64)
    waves = [2.0 * torch.sin(grid[(a + 1) % dims] * 2 * math.pi / 40 + a) for a in range(dims)]
    truth = torch.stack(waves)[None]
    u = found(*moved(truth))
    assert inner_error(u, truth) < 0.3 * inner_error(torch.zeros_like(truth), truth)
    assert float(jacobian_determinant(u).min()) > 0


def test_equal_images_do_not_move() -> None:
    fixed, _ = moved(constant((40, 36), (0.0, 0.0)))
    assert float(found(fixed, fixed).abs().max()) < 1e-3


@pytest.mark.parametrize("regularization", [CoupledConvex(), MessagePassing()])
def test_images_that_show_nothing_do_not_move(regularization: Regularization) -> None:
    empty = torch.zeros(1, 1, 32, 30)
    assert float(found(empty, empty, regularization).abs().max()) < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_exchanged_images_give_the_inverse(dims: int) -> None:
    grid = identity_grid(SHAPES[dims], dtype=torch.float64)
    truth = torch.stack([2.0 * torch.sin(grid[(a + 1) % dims] / 5 + a) for a in range(dims)])[None]
    fixed, moving = moved(truth)
    there, back = found(fixed, moving), found(moving, fixed)
    margin = (slice(3, -3),) * dims
    error = compose(there, back)[(..., *margin)].square().sum(1).sqrt()
    assert float(error.mean()) < 0.05
    assert float(there.square().sum(1).sqrt().mean()) > 1.0


def test_contrast_does_not_matter() -> None:
    truth = constant((48, 40), (2.0, -1.5))
    fixed, moving = moved(truth)
    same, inverted = found(fixed, moving), found(fixed, 3.0 - 2.0 * moving)
    torch.testing.assert_close(inverted, same, atol=0.02, rtol=0)


def test_both_precisions_agree() -> None:
    truth = constant((32, 30), (1.5, -0.5))
    single, double = (found(*moved(truth, dtype=d)) for d in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=0.02, rtol=0)


def test_each_case_of_a_batch_comes_out_as_if_alone() -> None:
    pairs = [moved(constant((24, 20, 22), s), seed=k) for k, s in enumerate([(2.0, 0.0, 0.0), (0.0, -1.5, 1.0)])]
    fixed, moving = (torch.cat(images) for images in zip(*pairs, strict=True))
    together = found(fixed, moving)
    for k, (f, m) in enumerate(pairs):
        torch.testing.assert_close(together[k : k + 1], found(f, m), atol=1e-4, rtol=0)


def test_an_axis_of_one_voxel_stays_where_it_is() -> None:
    truth = constant((40, 1, 36), (2.0, 0.0, -1.0))
    u = found(*moved(truth))
    assert float(u[:, 1].abs().max()) == 0
    assert float((u - truth)[:, :, 6:-6, :, 6:-6].abs().mean()) < 0.15


def test_levels_follow_the_voxel_edges() -> None:
    levels = search_levels((128, 128, 12), (4, 2, 1), (4, 3, 1), (8, 27, 64), edges=torch.tensor([1.5, 1.5, 8.0]))
    assert [level.grid.spatial for level in levels] == [(32, 32, 12), (64, 64, 12), (128, 128, 12)]
    assert [level.window.radius for level in levels] == [(4, 4, 3), (3, 3, 1), (1, 1, 1)]
    for level, voxels in zip(levels, (8, 27, 64), strict=True):
        cells = [(n - 1) / (m - 1) for n, m in zip(level.grid.spatial, level.grid.shape, strict=True)]
        assert math.prod(cells) == pytest.approx(voxels, rel=0.45)
        lengths = [c * e for c, e in zip(cells, level.grid.edges, strict=True)]
        assert max(lengths) < 1.4 * min(lengths)
    in_metres = search_levels(
        (128, 128, 12), (4, 2, 1), (4, 3, 1), (8, 27, 64), edges=torch.tensor([1.5, 1.5, 8.0]) / 1e3
    )
    for metres, millimetres in zip(in_metres, levels, strict=True):
        assert (metres.grid.spatial, metres.grid.shape) == (millimetres.grid.spatial, millimetres.grid.shape)
        assert metres.window == millimetres.window


def test_windows_fit_into_short_axes() -> None:
    (level,) = search_levels((20, 2, 1), (1,), (3,), (4,))
    assert level.window.radius == (3, 1, 0)
