"""Pairs at another size, scored at their own: geometry against SimpleITK, scoring through the runner."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from reg_bench.caching import pack, unpack
from reg_bench.field import identity_grid
from reg_bench.grid import Grid
from reg_bench.image_io import to_sitk
from reg_bench.preprocessing import geometry
from reg_bench.resampling import at_size
from reg_bench.types import DisplacementField, PointPairs, RegistrationPair, collate_pairs

SHAPE, MOVING_SHAPE, SIZE = (21, 16, 11), (19, 18, 13), (11, 9, 16)


def oblique(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    angle, tilt = 0.3, -0.2
    a = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    b = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return Grid(shape, spacing, (3.0, -7.0, 11.0), tuple((a @ b).reshape(-1)))


def example() -> tuple[RegistrationPair, Grid, Grid]:
    fixed_grid, moving_grid = oblique(SHAPE, (0.7, 1.3, 2.5)), oblique(MOVING_SHAPE, (0.9, 1.1, 2.0))
    generator = torch.Generator().manual_seed(3)
    spacing, affine = geometry(fixed_grid)
    moving_spacing, moving_affine = geometry(moving_grid)
    points = torch.rand(7, 3, generator=generator) * (torch.tensor(SHAPE) - 1)
    return (
        RegistrationPair(
            case_ids=("a",),
            fixed=torch.rand(1, 1, *SHAPE, generator=generator),
            moving=torch.rand(1, 1, *MOVING_SHAPE, generator=generator),
            fixed_spacing_mm=spacing,
            moving_spacing_mm=moving_spacing,
            fixed_affine=affine,
            moving_affine=moving_affine,
            fixed_labels=torch.randint(0, 4, (1, 1, *SHAPE), generator=generator, dtype=torch.uint8),
            moving_labels=torch.randint(0, 4, (1, 1, *MOVING_SHAPE), generator=generator, dtype=torch.uint8),
            points={"landmarks": PointPairs((points,), (points * 0.8,))},
        ),
        fixed_grid,
        moving_grid,
    )


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_points_and_voxels_of_the_resampled_image_lie_where_simpleitk_puts_them(role: str) -> None:
    pair, *grids = example()
    grid = grids[role == "moving"]
    small = at_size(pair, SIZE)
    original = to_sitk(getattr(pair, role)[0, 0].numpy(), grid)
    ratio = (np.array(grid.shape) - 1) / (np.array(SIZE) - 1)
    spacing = tuple(float(v) for v in np.array(grid.spacing_mm) * ratio)
    np.testing.assert_allclose(getattr(small, f"{role}_spacing_mm")[0].numpy(), spacing, rtol=1e-6)
    target = sitk.Image([int(n) for n in SIZE], sitk.sitkFloat32)
    target.SetSpacing(spacing)
    target.SetOrigin(original.GetOrigin())
    target.SetDirection(original.GetDirection())
    resampled = sitk.GetArrayFromImage(sitk.Resample(original, target, sitk.Transform(), sitk.sitkLinear)).T
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(getattr(small, role)[0, 0].numpy()[inner], resampled[inner], atol=1e-5)
    before = getattr((pair.points or {})["landmarks"], role)[0]
    after = getattr((small.points or {})["landmarks"], role)[0]
    for old, new in zip(before.double().tolist(), after.double().tolist(), strict=True):
        world = original.TransformContinuousIndexToPhysicalPoint(old)
        assert np.abs(np.array(target.TransformPhysicalPointToContinuousIndex(world)) - new).max() < 0.01
        ras = getattr(small, f"{role}_affine")[0].numpy() @ np.array([*new, 1.0])
        np.testing.assert_allclose(ras[:3] * [-1, -1, 1], world, atol=1e-3)


def test_a_field_goes_back_to_the_grid_it_is_scored_on() -> None:
    pair, *_ = example()
    small = at_size(pair, SIZE)
    assert small.scored is pair
    # A linear motion is the same map on both grids, so every voxel of the full grid must move by it exactly.
    matrix = torch.tensor([[0.02, 0.01, 0.0], [-0.03, 0.0, 0.02], [0.01, 0.01, -0.02]])
    ratio = (torch.tensor(SHAPE) - 1) / (torch.tensor(SIZE) - 1)
    full = torch.einsum("ij,jxyz->ixyz", matrix, identity_grid(SHAPE))[None]
    coarse = torch.einsum("ij,jxyz->ixyz", matrix * ratio / ratio[:, None], identity_grid(SIZE))[None]
    back = DisplacementField.for_pair(coarse, small).on(pair)
    torch.testing.assert_close(back.u, full, atol=1e-5, rtol=0)
    assert back.spacing_mm is pair.fixed_spacing_mm


def test_full_resolution_survives_caching_batching_and_exchange() -> None:
    small = at_size(example()[0], SIZE)
    again = unpack(pack(small))
    assert again.scored is not None
    torch.testing.assert_close(again.scored.fixed, small.scored.fixed)  # type: ignore[union-attr]
    both = collate_pairs([small, small])
    assert both.scored is not None
    assert both.scored.fixed.shape == (2, 1, *SHAPE)
    assert both[1].scored.fixed.shape == (1, 1, *SHAPE)  # type: ignore[union-attr]
    assert small.swapped().scored.fixed.shape == (1, 1, *MOVING_SHAPE)  # type: ignore[union-attr]
    assert small.to("cpu").scored is not None


@pytest.mark.parametrize(("size", "message"), [((8, 8), "2 lengths"), ((8, 8, 8, 8), "4 lengths")])
def test_a_size_of_another_dimension_is_refused(size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        at_size(example()[0], size)


def test_an_axis_of_one_voxel_cannot_grow() -> None:
    flat = RegistrationPair(("a",), fixed=torch.rand(1, 1, 5, 1), moving=torch.rand(1, 1, 5, 1))
    assert at_size(flat, (3, 1)).fixed.shape == (1, 1, 3, 1)
    with pytest.raises(ValueError, match="length 1"):
        at_size(flat, (3, 4))
