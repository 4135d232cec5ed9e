"""Linear interpolation at scattered points in NumPy: for few points torch's calls cost several times the work."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray


@functools.lru_cache(maxsize=64)
def _cells(spatial: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Last index and index of the last cell per axis, strides, and the offsets `(2, …)` of a cell's corners."""
    upper = np.array(spatial, dtype=np.float64) - 1
    strides = np.cumprod([1, *spatial[:0:-1]])[::-1].astype(np.intp)
    # An axis of length 1 has no second end: both corners are the same voxel.
    corners = np.zeros((), dtype=np.intp)
    for step, n in zip(strides, spatial, strict=True):
        corners = np.add.outer(corners, np.array([0, step * (n > 1)], dtype=np.intp))
    return upper, np.maximum(upper - 1, 0).astype(np.intp), strides, corners


def linear_at(values: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    """The values at points, the border repeated outside.

    Args:
        values: `(C, *S)` contiguous, floating point.
        points: `(N, D)` voxels, none NaN.

    Returns:
        `(C, N)` in the wider dtype of both.
    """
    upper, last_cell, strides, corners = _cells(values.shape[1:])
    inside = np.minimum(np.maximum(points, 0), upper.astype(points.dtype, copy=False))
    base = np.minimum(inside.astype(np.intp), last_cell)
    far = (inside - base).astype(points.dtype, copy=False)
    near = 1 - far
    dims = points.shape[1]
    index = (base * strides).sum(axis=1).reshape(-1, *(1,) * dims) + corners
    cell: NDArray[Any] = values.reshape(len(values), -1).take(index, axis=1)
    for axis in range(dims - 1, -1, -1):
        shape = (len(points), *(1,) * axis)
        cell = cell[..., 0] * near[:, axis].reshape(shape) + cell[..., 1] * far[:, axis].reshape(shape)
    return cell
