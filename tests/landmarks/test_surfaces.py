"""Points on the surfaces of labels, by hand and against a sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.field import identity_grid
from reg_bench.landmarks import surface_points


def test_a_voxel_has_its_faces() -> None:
    labels = torch.zeros(5, 6, dtype=torch.uint8)
    labels[2, 3] = 4
    found = surface_points(labels)
    assert list(found) == [4]
    assert sorted(map(tuple, found[4].tolist())) == [(1.5, 3.0), (2.0, 2.5), (2.0, 3.5), (2.5, 3.0)]
    in_mm = surface_points(labels, (2.0, 0.5))
    assert sorted(map(tuple, in_mm[4].tolist())) == [(3.0, 1.5), (4.0, 1.25), (4.0, 1.75), (5.0, 1.5)]


def test_a_face_between_two_labels_belongs_to_both_and_the_image_border_to_none() -> None:
    labels = torch.zeros(1, 4, 3, dtype=torch.int64)
    labels[0, :2], labels[0, 2:] = 1, 9
    found = surface_points(labels)
    expected = [(0.0, 1.5, 0.0), (0.0, 1.5, 1.0), (0.0, 1.5, 2.0)]
    assert sorted(map(tuple, found[1].tolist())) == sorted(map(tuple, found[9].tolist())) == expected
    assert surface_points(torch.ones(4, 4, dtype=torch.int64)) == {}
    assert surface_points(torch.zeros(4, 4, dtype=torch.int64)) == {}


def test_the_surface_of_a_ball_is_not_biased_in_size() -> None:
    """Anisotropic voxels; the voxels at the rim alone would come out smaller by half a voxel."""
    edges = np.array([1.0, 0.8, 1.5])
    place = identity_grid((41, 51, 31)).numpy() * edges[:, None, None, None]
    centre = np.array([20.3, 20.1, 22.4])
    ball = np.linalg.norm(place - centre[:, None, None, None], axis=0) <= 14.0
    points = surface_points(torch.from_numpy(ball).int(), torch.from_numpy(edges))[1]
    radius = np.linalg.norm(points - centre, axis=1)
    assert radius.mean() == pytest.approx(14.0, abs=0.1)
    assert np.abs(radius - 14).max() < 1.0
    np.testing.assert_allclose(points.mean(0), centre, atol=0.1)


def test_a_limit_keeps_points_from_all_over() -> None:
    labels = torch.zeros(40, 40, dtype=torch.int32)
    labels[5:35, 5:35] = 1
    everything, some = surface_points(labels)[1], surface_points(labels, most=20)[1]
    assert len(everything) == 120
    assert len(some) == 20
    assert {tuple(p) for p in some} <= {tuple(p) for p in everything}
    np.testing.assert_allclose(np.ptp(some, axis=0), np.ptp(everything, axis=0), atol=3)


def test_wrong_arguments_are_named() -> None:
    labels = torch.zeros(4, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"integer map of 2 or 3 axes, got torch\.float32"):
        surface_points(labels.float())
    with pytest.raises(ValueError, match=r"got torch\.int32 \(1, 1, 4, 4\)"):
        surface_points(labels[None, None])
    with pytest.raises(ValueError, match="edges must be 2 positive lengths"):
        surface_points(labels, (1.0, 0.0))
    with pytest.raises(ValueError, match="most must be at least 1"):
        surface_points(labels, most=0)
