"""Masks of drawn contours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fill_polygon(points: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.bool_]:
    """The pixels whose centre lies inside a closed polygon; pixel `(i, j)` has its centre at `(i, j)`.

    Even-odd rule. A centre exactly on the outline belongs to one side only, so that polygons which share an edge
    share no pixel.

    Args:
        points: corners `(N, 2)` in pixels, in the order of the axes of the mask; the last is joined to the first.
        shape: of the mask. Corners may lie outside of it.
    """
    corners = np.asarray(points, dtype=np.float64)
    mask = np.zeros(tuple(shape), dtype=bool)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, mask.shape)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, mask.shape)
    rows, columns = (np.arange(a, b, dtype=np.float64) for a, b in zip(low, high, strict=True))
    inside = np.zeros((len(rows), len(columns)), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossed = (y0 <= columns) != (y1 <= columns)
        if crossed.any():
            at = x0 + (columns[crossed] - y0) * ((x1 - x0) / (y1 - y0))
            inside[:, crossed] ^= rows[:, None] < at
    mask[low[0] : high[0], low[1] : high[1]] = inside
    return mask


def enclosed_area(points: NDArray[np.floating]) -> float:
    """Area of a closed polygon `(N, 2)` in square pixels."""
    x, y = np.asarray(points, dtype=np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
