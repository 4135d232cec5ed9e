"""Gaussian smoothing of images and fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.field.checks import PADDINGS, at_least_float32
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix


def gaussian(
    values: Tensor, sigma_voxels: float | Sequence[float], padding: str = "border", *, truncate: float = 4.0
) -> Tensor:
    """Gaussian smoothing, axis by axis, as `scipy.ndimage.gaussian_filter` has it.

    The kernel is sampled at whole voxels up to `int(truncate * sigma + 0.5)` of them and has sum 1.

    Args:
        values: `(B, C, *S)` floating point, an image or a field.
        sigma_voxels: standard deviation, one for all axes or one per axis; 0 leaves an axis alone.
        padding: what lies outside the grid: `border` repeats the border voxel, so that constants stay constant;
            `zeros`.
        truncate: half width of the kernel in standard deviations.

    Returns:
        `(B, C, *S)` in the dtype of `values`, differentiable.

    Raises:
        ValueError: an unknown padding, a negative or infinite sigma, a wrong number of them, or not an image.
    """
    dims = values.ndim - 2
    if dims < 1 or not values.is_floating_point():
        raise ValueError(f"gaussian: values must be floating point (B, C, *spatial), got {values.dtype} {values.shape}")
    sigmas = _per_axis(sigma_voxels, dims)
    if padding not in PADDINGS:
        raise ValueError(f"gaussian: padding must be one of {PADDINGS}, got {padding!r}")
    if not truncate > 0:
        raise ValueError(f"gaussian: truncate must be positive, got {truncate}")
    work = at_least_float32(values)
    matrices = [
        _matrix(n, sigma, padding, truncate, work, values.device) if sigma > 0 else None
        for n, sigma in zip(values.shape[2:], sigmas, strict=True)
    ]
    return along_axes(values.to(work), matrices).to(values.dtype)


def _per_axis(sigma_voxels: float | Sequence[float], dims: int) -> tuple[float, ...]:
    one = isinstance(sigma_voxels, int | float)
    sigmas = (float(sigma_voxels),) * dims if one else tuple(float(s) for s in sigma_voxels)  # type: ignore[arg-type,union-attr]
    if len(sigmas) != dims or not all(s >= 0 and math.isfinite(s) for s in sigmas):
        raise ValueError(
            f"gaussian: sigma_voxels must be one or {dims} finite numbers of at least 0, got {sigma_voxels}"
        )
    return sigmas


def gaussian_kernel(sigma: float, truncate: float = 4.0) -> NDArray[np.float64]:
    """The weights `(2 r + 1,)` of a Gaussian at whole voxels, sum 1; `sigma` in voxels, above 0."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def convolution_matrix(length: int, kernel: NDArray[np.float64], padding: str = "border") -> NDArray[np.float64]:
    """The matrix `(n, n)` that convolves an axis of `length` voxels with a symmetric `kernel (2 r + 1,)`."""
    radius = len(kernel) // 2
    taps = np.arange(length)[:, None] + np.arange(-radius, radius + 1)
    weights = np.broadcast_to(kernel, taps.shape)
    if padding == "zeros":
        weights = np.where((taps >= 0) & (taps < length), weights, 0.0)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], taps.clip(0, length - 1)), weights)
    return matrix


# A pyramid of three levels with two sigmas needs 18; each holds less than a quarter of a million numbers.
@lru_cache(maxsize=64)
def _matrix(
    length: int, sigma: float, padding: str, truncate: float, dtype: torch.dtype, device: torch.device
) -> AxisMatrix:
    return axis_matrix(convolution_matrix(length, gaussian_kernel(sigma, truncate), padding), dtype, device)
