"""Masks of contours against geometry done by hand and matplotlib."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from reg_bench.contours import enclosed_area, fill_polygon


def test_rectangle_holds_the_centres_inside_on_the_right_axes() -> None:
    mask = fill_polygon(np.array([[0.6, 1.4], [3.4, 1.4], [3.4, 6.6], [0.6, 6.6]]), (5, 9))
    expected = np.zeros((5, 9), dtype=bool)
    expected[1:4, 2:7] = True
    assert np.array_equal(mask, expected)


def test_polygons_that_share_edges_share_no_pixel_and_leave_none_out() -> None:
    left = fill_polygon(np.array([[0, 0], [4, 0], [4, 8], [0, 8]]), (12, 9))
    right = fill_polygon(np.array([[4, 0], [8, 0], [8, 8], [4, 8]]), (12, 9))
    assert not (left & right).any()
    assert np.array_equal(left | right, fill_polygon(np.array([[0, 0], [8, 0], [8, 8], [0, 8]]), (12, 9)))
    assert left.sum() == 32


@pytest.mark.parametrize("seed", range(5))
def test_star_like_matplotlib_and_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 32))
    radius = rng.uniform(10, 25, 32)
    corners = np.stack([30 + radius * np.cos(angle), 40 + radius * np.sin(angle)], axis=1)
    mask = fill_polygon(corners, (61, 83))
    centres = np.stack(np.meshgrid(np.arange(61), np.arange(83), indexing="ij"), axis=-1).reshape(-1, 2)
    assert np.array_equal(mask.ravel(), Outline(corners).contains_points(centres))
    assert mask.sum() == pytest.approx(enclosed_area(corners), rel=0.03)


def test_beyond_the_border_and_degenerate() -> None:
    whole = fill_polygon(np.array([[-5.0, -5], [20, -5], [20, 20], [-5, 20]]), (4, 6))
    assert whole.all()
    assert not fill_polygon(np.array([[50.0, 50], [60, 50], [60, 60]]), (4, 6)).any()
    assert not fill_polygon(np.array([[1.0, 1], [1, 1], [1, 1]]), (4, 6)).any()
    assert enclosed_area(np.array([[1.0, 1], [1, 1], [1, 1]])) == 0
