"""HD95 in both definitions against MONAI, surface-distance and geometry done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from monai.networks.utils import one_hot
from scipy import ndimage

import reg_bench.metrics.surfaces as surfaces
from reg_bench.metrics import hd95
from reg_bench.metrics.surface_elements import element_sizes

surface_distance = pytest.importorskip("surface_distance")
np.Inf = np.inf  # surface-distance 0.1 still asks for it


def blobs(seed: int, shape: tuple[int, ...], labels: int, sigma: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(labels + 1)]
    return np.argmax(fields, axis=0).astype(np.int16)


def pair_of_maps(seed: int, shape: tuple[int, ...], labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Two maps that differ by a shift and by scattered errors, labels touching every border."""
    fixed = blobs(seed, shape, labels)
    shift = np.random.default_rng(seed).integers(-3, 4, len(shape))
    warped = ndimage.shift(fixed, shift, order=0, mode="nearest")
    noise = np.random.default_rng(seed + 1).random(shape) < 0.002
    return fixed, np.where(noise, 1, warped).astype(np.int16)


def monai(fixed: np.ndarray, warped: np.ndarray, labels: int, spacing: tuple[float, ...]) -> list[float]:
    hot = [one_hot(torch.from_numpy(a)[None, None].long(), labels + 1) for a in (warped, fixed)]
    found = compute_hausdorff_distance(*hot, include_background=False, percentile=95, spacing=spacing)
    return found[0].tolist()


def package(fixed: np.ndarray, warped: np.ndarray) -> float:
    found = surface_distance.compute_surface_distances(fixed, warped, np.ones(fixed.ndim))
    return surface_distance.compute_robust_hausdorff(found, 95)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"), [((21, 34, 27), (1.7, 0.6, 2.5)), ((24, 24, 24), (1.0, 1.0, 1.0)), ((40, 57), (0.7, 1.9))]
)
def test_voxel_definition_equals_monai(seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    fixed, warped = pair_of_maps(seed, shape, 6)
    found = hd95(fixed, warped, spacing, range(1, 7))
    np.testing.assert_allclose(list(found.values()), monai(fixed, warped, 6, spacing), atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(21, 34, 27), (9, 40, 12), (40, 57)])
def test_element_definition_equals_the_package(seed: int, shape: tuple[int, ...]) -> None:
    fixed, warped = pair_of_maps(seed, shape, 6)
    found = hd95(fixed, warped, labels=range(1, 7), definition="elements")
    expected = [package(fixed == k, warped == k) for k in range(1, 7)]
    np.testing.assert_array_equal(list(found.values()), expected)


@pytest.mark.parametrize("definition", ["voxels", "elements"])
def test_far_apart_surfaces(definition: str) -> None:
    # Beyond every shell, so that the trees answer.
    fixed, warped = np.zeros((2, 40, 30, 26), np.uint8)
    fixed[2:9, 3:8, 2:9] = 1
    warped[25:31, 18:24, 16:23] = 1
    found = hd95(fixed, warped, definition=definition)[1]
    expected = monai(fixed, warped, 1, (1, 1, 1))[0] if definition == "voxels" else package(fixed > 0, warped > 0)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("definition", ["voxels", "elements"])
@pytest.mark.parametrize("hopeless", [0.0, 2.0])
def test_shells_and_trees_agree(monkeypatch: pytest.MonkeyPatch, definition: str, hopeless: float) -> None:
    fixed, warped = pair_of_maps(3, (25, 22, 30), 5)
    expected = hd95(fixed, warped, definition=definition)
    monkeypatch.setattr(surfaces, "_HOPELESS", hopeless)
    monkeypatch.setattr(surfaces, "_TRIAL_SHELLS", 0)
    assert hd95(fixed, warped, definition=definition) == expected


def test_two_planes_three_voxels_apart() -> None:
    fixed, warped = np.zeros((2, 12, 10, 10), np.uint8)
    fixed[3] = 1
    warped[6] = 1
    assert hd95(fixed, warped)[1] == 3
    assert hd95(fixed, warped, (0.5, 2.0, 4.0))[1] == pytest.approx(1.5)
    # The surface elements of a plane lie half a voxel to both of its sides: the nearer sides are two apart and the
    # farther ones three, half of the area each.
    assert hd95(fixed, warped, definition="elements")[1] == 3


def test_planes_along_every_axis() -> None:
    for axis, expected in enumerate((1.0, 4.0, 8.0)):
        fixed, warped = np.zeros((2, 9, 9, 9), np.uint8)
        np.moveaxis(fixed, axis, 0)[3] = 1
        np.moveaxis(warped, axis, 0)[5] = 1
        assert hd95(fixed, warped, (0.5, 2.0, 4.0))[1] == pytest.approx(expected)


@pytest.mark.parametrize("definition", ["voxels", "elements"])
def test_equal_maps(definition: str) -> None:
    fixed = blobs(0, (15, 12, 14), 4)
    assert set(hd95(fixed, fixed, definition=definition).values()) == {0.0}


@pytest.mark.parametrize("definition", ["voxels", "elements"])
def test_single_voxels(definition: str) -> None:
    fixed, warped = np.zeros((2, 8, 9, 7), np.uint8)
    fixed[0, 0, 0] = 1
    warped[3, 4, 0] = 1
    assert hd95(fixed, warped, definition=definition)[1] == (
        5.0 if definition == "voxels" else package(fixed > 0, warped > 0)
    )


@pytest.mark.parametrize("definition", ["voxels", "elements"])
def test_whole_image_and_border(definition: str) -> None:
    fixed = np.ones((6, 7, 8), np.uint8)
    warped = fixed.copy()
    warped[:, :, 6:] = 2
    found = hd95(fixed, warped, definition=definition)
    expected = (
        monai(*((m == 1).astype(np.uint8) for m in (fixed, warped)), 1, (1, 1, 1))[0]
        if definition == "voxels"
        else package(fixed == 1, warped == 1)
    )
    assert found[1] == pytest.approx(expected, abs=1e-5)
    assert np.isinf(found[2])


def test_absent_labels_and_large_or_negative_values() -> None:
    fixed, warped = pair_of_maps(1, (14, 13, 12), 3)
    values = np.array([0, 70_000, -4, 300])
    found = hd95(values[fixed], values[warped], labels=[70_000, -4, 300, 9])
    plain = hd95(fixed, warped, labels=[1, 2, 3])
    assert list(found.values())[:3] == list(plain.values())
    assert np.isnan(found[9])


def test_one_slice_volume() -> None:
    fixed, warped = pair_of_maps(2, (30, 28), 3)
    for definition in ("voxels", "elements"):
        flat = hd95(fixed[None], warped[None], definition=definition)
        expected = (
            monai(fixed[None], warped[None], 3, (1, 1, 1))
            if definition == "voxels"
            else [package((fixed == k)[None], (warped == k)[None]) for k in (1, 2, 3)]
        )
        np.testing.assert_allclose(list(flat.values()), expected, atol=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_element_sizes_equal_the_package(dimension: int) -> None:
    tables = surface_distance.lookup_tables
    table = (
        tables.create_table_neighbour_code_to_contour_length
        if dimension == 2
        else tables.create_table_neighbour_code_to_surface_area
    )(np.ones(dimension))
    bits = 2**dimension
    mirrored = [int(format(code, f"0{bits}b")[::-1], 2) for code in range(2**bits)]
    # To the last bit: it decides shares of exactly 95 %.
    np.testing.assert_array_equal(element_sizes(dimension), table[mirrored])


def test_messages() -> None:
    maps = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="different shapes"):
        hd95(maps, maps[1:])
    with pytest.raises(ValueError, match="integers"):
        hd95(maps.astype(float), maps)
    with pytest.raises(ValueError, match="3 positive numbers"):
        hd95(maps, maps, (1, 1))
    with pytest.raises(ValueError, match="in voxels"):
        hd95(maps, maps, (1, 1, 2), definition="elements")
    with pytest.raises(ValueError, match="'voxels' or 'elements'"):
        hd95(maps, maps, definition="surface")
