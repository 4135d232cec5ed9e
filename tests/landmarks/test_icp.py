"""Iterative closest points on surfaces whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reg_bench.landmarks import AffineMap, fit, icp, robust_icp, surface_distance
from tests.landmarks.maps import true_map

Points = NDArray[np.float64]


def blob(dims: int, count: int = 800, seed: int = 0) -> Points:
    """Points on an unsymmetric closed surface of about 20 mm radius."""
    directions = np.random.default_rng(seed).normal(size=(count, dims))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = directions[:, 0], directions[:, 1], directions[:, -1]
    radius = 20 + 5 * x * x * x + 4 * x * y - 3 * z * z * z + 3 * np.cos(3 * x + y)
    return radius[:, None] * directions * np.array([1.0, 1.25, 0.8])[:dims]


def moved(points: Points, found: AffineMap) -> Points:
    return found(torch.from_numpy(points)[None])[0].numpy()


def error(found: AffineMap, truth: AffineMap, points: Points) -> float:
    return float(np.linalg.norm(moved(points, found) - moved(points, truth), axis=1).mean())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["translation", "rigid", "similarity", "affine"])
def test_a_moved_surface_is_recovered_and_the_energy_never_rises(kind: str, dims: int) -> None:
    source, truth = blob(dims), true_map(kind, dims, degrees=15.0)
    shuffled = np.random.default_rng(3).permutation(moved(source, truth))
    found = icp([source], [shuffled], kind, start=AffineMap.identity(1, dims))
    assert found.converged
    assert error(found.map, truth, source) < 1e-6
    energies = np.array(found.energies)
    assert (np.diff(energies) <= 0).all()
    assert energies[-1] < 1e-9 < 0.1 < energies[0]


@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_other_samples_of_the_same_surface_are_close_and_the_energy_never_rises(trim: float) -> None:
    source, truth = blob(3, 1500), true_map("rigid", 3, degrees=15.0)
    found = icp([source], [moved(blob(3, 1300, seed=1), truth)], "rigid", trim=trim)
    # Neighbouring points are some 2 mm apart.
    assert error(found.map, truth, source) < 0.7
    assert (np.diff(found.energies) <= 0).all()
    assert len(found.energies) > 5


def test_affine_maps_do_not_collapse() -> None:
    """From far away, one direction alone would shrink the source onto a patch of the target."""
    source = blob(2, 300)
    away = source + np.array([15.0, -12.0])
    matrix = icp([source], [away], "affine", start=AffineMap.identity(1, 2)).map.matrix[0]
    assert 0.7 < float(torch.linalg.det(matrix)) < 1.4


def test_structures_only_match_themselves() -> None:
    """Two equal discs, each moved to where the other was: geometry alone would say that nothing moved."""
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    disc = 5 * np.column_stack([np.cos(angle), np.sin(angle)])
    left, right = disc - np.array([20.0, 0.0]), disc + np.array([20.0, 0.0])
    swapped = icp([left, right], [right, left], "rigid")
    assert swapped.energies[-1] < 1e-12
    torch.testing.assert_close(swapped.map.matrix[0], -torch.eye(2, dtype=torch.float64), atol=1e-6, rtol=0)
    merged = icp([np.concatenate((left, right))], [np.concatenate((right, left))], "rigid")
    torch.testing.assert_close(merged.map.matrix[0], torch.eye(2, dtype=torch.float64), atol=1e-6, rtol=0)


def ellipse(a: float, b: float, centre: tuple[float, float], count: int) -> Points:
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack([a * np.cos(t), b * np.sin(t)]) + np.array(centre)


def test_the_best_of_several_starts_counts() -> None:
    """A turn by 150 degrees: from no motion the long outline ends upside down, from the centres of the parts not."""
    parts = [ellipse(13, 25, (0, 0), 400), ellipse(2, 3, (4, 10), 40), ellipse(3, 2, (-5, -4), 40)]
    truth = true_map("rigid", 2, degrees=150.0)
    target = [moved(p, truth) for p in parts]
    stuck = icp(parts, target, "rigid", start=AffineMap.identity(1, 2))
    found = icp(parts, target, "rigid")
    assert error(stuck.map, truth, np.concatenate(parts)) > 20
    assert error(found.map, truth, np.concatenate(parts)) < 1e-6
    assert (np.diff(found.energies) <= 0).all()


def test_equal_surfaces_stay_where_they_are() -> None:
    found = icp([blob(3)], [blob(3)], "affine")
    torch.testing.assert_close(found.map.matrix, torch.eye(3, dtype=torch.float64)[None], atol=1e-9, rtol=0)
    assert found.energies[0] == 0
    assert found.converged


def test_trimming_ignores_a_part_that_the_other_surface_lacks() -> None:
    source, truth = blob(2, 600), true_map("rigid", 2, degrees=8.0)
    cut = moved(source[source[:, 0] < 10], truth)
    plain = icp([source], [cut], "rigid")
    trimmed = icp([source], [cut], "rigid", trim=0.35)
    assert error(trimmed.map, truth, source) < 0.2 * error(plain.map, truth, source)


def test_ransac_leaves_a_wrong_part_out() -> None:
    """A third of the target's contour bulges out by up to 12 mm."""
    source, truth = blob(2, 600), true_map("rigid", 2, degrees=8.0)
    bulged = source.copy()
    where = bulged[:, 1] > 12
    assert 0.15 < where.mean() < 0.45
    bulged[where] *= 1.5
    target = moved(bulged, truth)
    plain = icp([source], [target], "rigid")
    robust = robust_icp([source], [target], "rigid", threshold=1.5)
    assert error(robust.map, truth, source) < 0.25 * error(plain.map, truth, source)
    assert (np.diff(robust.energies) <= 0).all()
    again = robust_icp([source], [target], "rigid", threshold=1.5)
    assert torch.equal(again.map.matrix, robust.map.matrix)


def test_ransac_changes_nothing_where_all_is_right() -> None:
    source, truth = blob(3), true_map("affine", 3, degrees=10.0)
    found = robust_icp([source], [moved(source, truth)], "affine", threshold=1.0)
    assert error(found.map, truth, source) < 1e-6


def test_few_iterations_say_that_they_did_not_converge() -> None:
    source = blob(3)
    found = icp([source], [moved(source, true_map("affine", 3, 15.0))], "affine", iterations=2)
    assert not found.converged
    assert len(found.energies) == 3


def test_surface_distance_by_hand() -> None:
    """One point of two is 3 away from its nearest, the other 0; backwards the far one is at distance 1."""
    a, b = np.array([[0.0, 0.0], [4.0, 3.0]]), np.array([[0.0, 0.0], [4.0, 0.0], [-1.0, 0.0]])
    assert surface_distance([a], [b]) == pytest.approx(np.sqrt((0 + 9 + 0 + 9 + 1) / 5))
    shift = fit(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0]]]), "translation")
    assert surface_distance([a], [a + np.array([1.0, 2.0])], shift) == pytest.approx(0.0)


def test_wrong_arguments_are_named() -> None:
    a = blob(2, 20)
    with pytest.raises(ValueError, match="as many source as target structures"):
        icp([a], [a, a])
    with pytest.raises(ValueError, match="as many source as target structures"):
        surface_distance([], [])
    with pytest.raises(ValueError, match=r"got \[\(20, 2\), \(0, 2\)\]"):
        icp([a], [a[:0]])
    with pytest.raises(ValueError, match="0 <= trim < 1"):
        icp([a], [a], trim=1.0)
    with pytest.raises(ValueError, match="iterations of at least 1"):
        icp([a], [a], iterations=0)
