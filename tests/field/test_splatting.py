"""Forward mapping against brute force and what must be conserved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.field import forward_warp, identity_grid, resize_image, splat, warp


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def motion(spatial: tuple[int, ...], amplitude: float, batch: int = 1) -> Tensor:
    """A random field `(B, D, *S)` that reaches beyond the grid where the amplitude is large."""
    coarse = noise(batch, len(spatial), *(4,) * len(spatial), seed=3) * 2 - 1
    return resize_image(coarse, spatial) * amplitude


def brute_force(image: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`sum_x hat(y - x - u(x)) image(x)` over all pairs of voxels, and the same for an image of ones."""
    mass, density = np.zeros(image.shape), np.zeros(image.shape)
    for x in np.ndindex(*image.shape):
        place = np.array(x) + u[(slice(None), *x)]
        for y in np.ndindex(*image.shape):
            weight = np.prod(np.maximum(1 - np.abs(np.array(y) - place), 0))
            mass[y] += weight * image[x]
            density[y] += weight
    return mass, density


@pytest.mark.parametrize("amplitude", [0.7, 4.0])
@pytest.mark.parametrize("spatial", [(6, 5), (1, 7), (4, 3, 5)])
def test_equals_brute_force(spatial: tuple[int, ...], amplitude: float) -> None:
    image, u = noise(2, 2, *spatial), motion(spatial, amplitude, batch=2)
    mass, density = splat(image, u)
    for b, c in itertools.product(range(2), range(2)):
        expected_mass, expected_density = brute_force(image[b, c].numpy(), u[b].numpy())
        np.testing.assert_allclose(mass[b, c].numpy(), expected_mass, atol=1e-12)
        np.testing.assert_allclose(density[b, 0].numpy(), expected_density, atol=1e-12)


@pytest.mark.parametrize("spatial", [(30, 40), (12, 15, 10)])
def test_mass_is_conserved_while_everything_stays_inside(spatial: tuple[int, ...]) -> None:
    image, u = noise(2, 3, *spatial), motion(spatial, 2.5, batch=2)
    margin = (slice(None), slice(None), *(slice(3, -3),) * len(spatial))
    inside = torch.zeros_like(image)
    inside[margin] = image[margin]
    mass, _ = splat(inside, u)
    torch.testing.assert_close(mass.flatten(2).sum(2), inside.flatten(2).sum(2))


def test_what_leaves_the_grid_is_lost() -> None:
    u = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    u[:, 1] = 4.5
    mass, density = splat(torch.ones(1, 1, 4, 5, dtype=torch.float64), u)
    assert float(mass.sum()) == pytest.approx(4 * 0.5)
    assert density[0, 0, 0].tolist() == [0, 0, 0, 0, 0.5]
    far = torch.full_like(u, 1e12)
    assert not splat(torch.ones(1, 1, 4, 5), far)[1].any()
    assert not splat(torch.ones(1, 1, 4, 5), -far)[1].any()


@pytest.mark.parametrize("spatial", [(7, 9), (5, 6, 8)])
def test_whole_shifts_move_voxels_the_other_way_than_backward_mapping(spatial: tuple[int, ...]) -> None:
    image = noise(1, 2, *spatial)
    for axis, shift in itertools.product(range(len(spatial)), (2, -1)):
        u = torch.zeros(1, len(spatial), *spatial, dtype=torch.float64)
        u[:, axis] = shift
        values, density = forward_warp(image, u, fill=-1.0)
        rolled = image.roll(shift, axis + 2)
        n = spatial[axis]
        kept = torch.arange(n)[max(shift, 0) : n + min(shift, 0)]
        gap = torch.tensor([i for i in range(n) if i not in kept])
        assert torch.equal(values.index_select(axis + 2, kept), rolled.index_select(axis + 2, kept))
        assert values.index_select(axis + 2, gap).eq(-1).all()
        assert density.index_select(axis + 2, kept).eq(1).all()
        assert not density.index_select(axis + 2, gap).any()
        backward = warp(image, -u)
        torch.testing.assert_close(values.index_select(axis + 2, kept), backward.index_select(axis + 2, kept))


def test_enlarging_leaves_gaps_and_shrinking_overlaps() -> None:
    """A factor of 3 reaches every third voxel only; a third puts nine voxels upon each other."""
    grid = identity_grid((31, 31), dtype=torch.float64)[None] - 15
    image = noise(1, 1, 31, 31)
    _, sparse = forward_warp(image, 2 * grid)
    reached = torch.zeros(31, 31, dtype=torch.bool)
    reached[::3, ::3] = True
    assert torch.equal(sparse[0, 0] == 1, reached)
    assert torch.equal(sparse[0, 0] == 0, ~reached)
    _, dense = splat(image, -grid * 2 / 3)
    assert float(dense[0, 0, 11:20, 11:20].mean()) == pytest.approx(9.0)
    assert dense[0, 0, 12:19, 12:19].gt(1).all()


def test_values_where_voxels_overlap_are_their_mean() -> None:
    u = torch.zeros(1, 2, 3, 4)
    u[0, 1, :, 2] = -1.0
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    values, density = forward_warp(image, u, fill=torch.nan)
    assert density[0, 0, 0].tolist() == [1, 2, 0, 1]
    assert values[0, 0, 1, :2].tolist() == [4, 5.5]
    assert values[0, 0, :, 2].isnan().all()


def test_forward_and_backward_mapping_undo_each_other_in_smooth_regions() -> None:
    x, y = identity_grid((60, 50), dtype=torch.float64)
    image = (torch.sin(x / 7) * torch.cos(y / 6))[None, None]
    u = torch.stack((torch.sin(x / 12 + 1), torch.cos(y / 10)))[None] * 1.5
    there, density = forward_warp(image, u)
    back = warp(there, u)
    assert density[..., 5:-5, 5:-5].min() > 0.5
    assert (back - image)[..., 6:-6, 6:-6].abs().max() < 0.03


def test_nan_arrives_nowhere_and_harms_no_other_voxel() -> None:
    image, u = noise(1, 1, 5, 6), torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    u[0, 1, 2, 3] = torch.nan
    mass, density = splat(image, u)
    assert density[0, 0, 2, 3] == 0
    assert int((density == 1).sum()) == 29
    assert mass.isfinite().all()


@pytest.mark.parametrize("operation", [splat, forward_warp])
def test_gradients_in_image_and_field(operation) -> None:  # type: ignore[no-untyped-def]
    image = noise(2, 2, 4, 5).requires_grad_()
    u = (motion((4, 5), 0.3, batch=2) + 0.15).requires_grad_()
    assert torch.autograd.gradcheck(operation, (image, u))
    volume, v = noise(1, 1, 3, 2, 4).requires_grad_(), (motion((3, 2, 4), 0.2) - 0.4).requires_grad_()
    assert torch.autograd.gradcheck(operation, (volume, v))


def test_dtypes_and_batch() -> None:
    image, u = noise(3, 2, 8, 9).float(), motion((8, 9), 2.0, batch=3).float()
    mass, density = splat(image, u)
    assert mass.dtype == density.dtype == torch.float32
    assert splat((image * 9).to(torch.uint8), u)[0].dtype == torch.float32
    for i in range(3):
        alone = splat(image[i : i + 1], u[i : i + 1])
        assert torch.equal(alone[0], mass[i : i + 1])
        assert torch.equal(alone[1], density[i : i + 1])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"image and u must share one grid, got \(4, 5\) and \(4, 6\)"):
        splat(torch.zeros(1, 1, 4, 5), torch.zeros(1, 2, 4, 6))
    with pytest.raises(ValueError, match="B = 1"):
        splat(torch.zeros(2, 1, 4, 5), torch.zeros(1, 2, 4, 5))
    with pytest.raises(ValueError, match="floating point field"):
        forward_warp(torch.zeros(1, 1, 4, 5), torch.zeros(1, 3, 4, 5))
