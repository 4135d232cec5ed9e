"""Displacement at points by interpolating cubic B-splines (Unser 1999), without filtering the whole volume.

The value at a point is a separable weighted sum over the image: along each axis the four B-spline weights times
the rows of the inverse B-spline matrix (mirror boundaries). The weights decay like 0.27 per voxel, so that a
window around the point gives the sum to well below single precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d

_REACH = 16  # 0.268 ** 16 = 7e-10


def cubic_at(u: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """`u` `(C, *S)` at `points` `(N, D)`, index coordinates; 0 for points outside `[0, n - 1]` on any axis.

    Equal to `scipy.ndimage.map_coordinates` with order 3 and mode `constant`, which Learn2Reg uses.

    Returns:
        `(N, C)`.
    """
    shape = u.shape[1:]
    result = np.zeros((len(points), u.shape[0]))
    with np.errstate(invalid="ignore"):
        inside = np.all((points >= 0) & (points <= np.array(shape) - 1), axis=1)
    per_axis = [_axis_weights(points[inside, a], n) for a, n in enumerate(shape)]
    for row, place in enumerate(np.flatnonzero(inside)):
        windows = tuple(slice(int(first[row]), int(first[row]) + w.shape[1]) for first, w in per_axis)
        value = u[(slice(None), *windows)].astype(np.float64)
        for _, weights in reversed(per_axis):
            value = value @ weights[row]
        result[place] = value
    return result


def _axis_weights(x: NDArray[np.float64], length: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """First sample of the window of every coordinate, and the weight `(N, W)` of each sample in it."""
    inverse = spline_filter1d(np.eye(length), order=3, axis=0, mode="mirror")
    cell = np.floor(x).astype(np.intp)
    t = x - cell
    cubic = np.stack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * (1 - t) ** 2 + 3 * (1 - t) ** 3, t**3], -1) / 6
    full = np.zeros((len(x), length))
    for tap in range(4):
        full += cubic[:, tap, None] * inverse[_mirrored(cell - 1 + tap, length)]
    width = min(length, 2 * _REACH + 2)
    first = np.clip(cell - _REACH, 0, length - width)
    return first, np.take_along_axis(full, first[:, None] + np.arange(width), axis=1)


def _mirrored(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Indices reflected about the first and the last sample."""
    if length == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * length - 2)
    return np.where(index >= length, 2 * length - 2 - index, index)
