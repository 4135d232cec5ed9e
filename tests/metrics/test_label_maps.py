"""Label warp, joint histogram and Dice against SciPy, MONAI and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from scipy import ndimage

from reg_bench.metrics import dice
from reg_bench.metrics import label_maps as maps


def random_maps(seed: int, shape: tuple[int, ...], labels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, labels + 1, shape), rng.integers(0, labels + 1, shape)


def scipy_warp(moving: np.ndarray, u: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, u.shape[1:]), indexing="ij"))
    return ndimage.map_coordinates(moving, grid + u.astype(np.float64), order=0)


@pytest.mark.parametrize("shape", [(13, 9, 11), (70, 41), (1, 8, 9)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [0.4, 3.0, 40.0])
def test_warp_equals_scipy_ties_and_borders_included(shape: tuple[int, ...], dtype: type, size: float) -> None:
    rng = np.random.default_rng(0)
    moving = rng.integers(1, 6, [n + 2 for n in shape]).astype(np.uint8)
    u = (rng.standard_normal((len(shape), *shape)) * size).astype(dtype)
    half = rng.random(u.shape) < 0.3
    u[half] = np.round(u[half] * 2) / 2
    np.testing.assert_array_equal(maps.warp_nearest(moving, u), scipy_warp(moving, u))


@pytest.mark.parametrize("offset", [-1e-20, -1e-9, -1e-4, 0.0, 1e-20, 1e-9, 1e-4])
def test_a_hair_outside_is_background(offset: float) -> None:
    moving = np.ones((6, 5, 4), np.uint8)
    u = np.full((3, 6, 5, 4), offset)
    np.testing.assert_array_equal(maps.warp_nearest(moving, u), scipy_warp(moving, u))


def test_not_a_number_is_background() -> None:
    u = np.zeros((2, 5, 5), np.float32)
    u[0, 2, 2] = np.nan
    warped = maps.warp_nearest(np.ones((5, 5), np.uint8), u)
    assert warped.sum() == 24
    assert warped[2, 2] == 0


def test_zero_field_is_the_identity() -> None:
    moving = random_maps(0, (8, 7, 6), 9)[0].astype(np.uint8)
    np.testing.assert_array_equal(maps.warp_nearest(moving, np.zeros((3, 8, 7, 6), np.float32)), moving)


@pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 7, 255, 12], [0, -5, 100_000, 300]])
def test_codes_stand_for_the_values(values: list[int]) -> None:
    fixed, moving = (np.array(values)[m] for m in random_maps(1, (6, 7, 8), 3))
    coded = maps.encode(fixed, moving)
    np.testing.assert_array_equal(coded.values[coded.fixed], fixed)
    np.testing.assert_array_equal(coded.values[coded.moving], moving)
    assert coded.values[0] == 0
    assert coded.code_of(54321) is None


@pytest.mark.parametrize("codes", [5, 2000])
def test_overlap_counts(codes: int) -> None:
    fixed, warped = random_maps(2, (30, 11, 9), codes - 1)
    found = maps.overlap(fixed.astype(np.uint16), warped.astype(np.uint16), codes)
    for k in (0, 1, codes - 1):
        assert found.fixed[k] == (fixed == k).sum()
        assert found.warped[k] == (warped == k).sum()
        assert found.both[k] == ((fixed == k) & (warped == k)).sum()


@pytest.mark.parametrize("shape", [(20, 18, 22), (60, 45)])
def test_dice_equals_monai_and_simpleitk(shape: tuple[int, ...]) -> None:
    fixed, warped = random_maps(3, shape, 5)
    hot = [one_hot(torch.from_numpy(m)[None, None], 6) for m in (warped, fixed)]
    found = list(dice(fixed, warped).values())
    np.testing.assert_allclose(found, compute_dice(*hot, include_background=False)[0], atol=1e-6)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (fixed, warped)))
    np.testing.assert_allclose(found, [measures.GetDiceCoefficient(k) for k in range(1, 6)], atol=1e-12)


def test_dice_by_hand() -> None:
    fixed, warped = torch.zeros(2, 1, 1, 4, 4, 4, dtype=torch.int64)
    fixed[..., :2, :, :] = 3
    warped[..., 1:3, :, :] = 3
    fixed[..., 3, :, :] = 8
    assert dice(fixed, warped) == {3: 0.5, 8: 0.0}
    found = dice(fixed, warped, labels=[3, 5])
    assert found[3] == 0.5
    assert np.isnan(found[5])


def test_dice_of_equal_empty_and_single_voxel_maps() -> None:
    fixed = random_maps(4, (5, 6, 7), 3)[0]
    assert set(dice(fixed, fixed).values()) == {1.0}
    empty = np.zeros((5, 6, 7), np.int32)
    assert dice(empty, empty) == {}
    single = empty.copy()
    single[4, 5, 6] = 2
    assert dice(single, single) == {2: 1.0}
    assert dice(single, empty) == {2: 0.0}
