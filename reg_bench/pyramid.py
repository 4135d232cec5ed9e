"""Coarser copies of an image: shapes of the levels, anti-aliased shrinking, Gaussian and Laplacian pyramids.

All levels cover the same extent: their first and last voxels coincide, as those of `reg_bench.field.resize`, so that
a field goes from level to level by `resize` alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.field import resize_image
from reg_bench.field.checks import at_least_float32
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix
from reg_bench.field.smoothing import convolution_matrix, gaussian_kernel

Shape = tuple[int, ...]

# A sharp image counts as blurred by its own voxels with this standard deviation, in voxels.
_VOXEL_SIGMA = 0.5


def level_shapes(
    shape: Sequence[int],
    factors: Sequence[float],
    spacing_mm: Tensor | Sequence[float] | None = None,
    smallest_size: int = 8,
) -> list[Shape]:
    """The grid of every level of a pyramid.

    An axis of `n` voxels becomes `ceil(n / f)` long. Voxels that are thicker along an axis shrink less there, so that
    they become more nearly cubes, and no axis falls below `smallest_size`; shorter ones keep their length.

    Args:
        shape: of the finest grid.
        factors: at least 1, one per level, by which the thinnest axis shrinks, e.g. `(4, 2, 1)`.
        spacing_mm: voxel edges `(D,)` in any unit, or `(B, D)` where all cases have the same; `None`: cubes.
        smallest_size: voxels below which no axis falls.

    Returns:
        one shape per factor. Two may be equal; `distinct_levels` leaves out the repetitions.

    Raises:
        ValueError: a factor below 1, a spacing that does not fit or differs between cases.
    """
    if any(not (f >= 1 and math.isfinite(f)) for f in factors):
        raise ValueError(f"level_shapes: factors must be finite and at least 1, got {tuple(factors)}")
    if smallest_size < 1:
        raise ValueError(f"level_shapes: smallest_size must be at least 1, got {smallest_size}")
    edges = _spacing(spacing_mm, len(shape))
    return [
        tuple(_shrunk(n, f * min(edges) / edge, smallest_size) for n, edge in zip(shape, edges, strict=True))
        for f in factors
    ]


def _spacing(spacing_mm: Tensor | Sequence[float] | None, dims: int) -> list[float]:
    if spacing_mm is None:
        return [1.0] * dims
    rows = torch.as_tensor(spacing_mm, dtype=torch.float64).cpu()
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != dims:
        raise ValueError(f"level_shapes: spacing_mm must hold {dims} lengths, got shape {tuple(rows.shape)}")
    if not bool((rows > 0).all() and rows.isfinite().all()) or not len(rows):
        raise ValueError(f"level_shapes: spacing_mm must be positive, got {rows.tolist()}")
    if not same_proportions(rows):
        raise ValueError(f"level_shapes: cases of one call must have the same spacing, got {rows.tolist()}")
    return [float(r) for r in rows[0] / rows[0].min()]


def same_proportions(spacing_mm: Tensor | None) -> bool:
    """Whether the voxels of all cases `(B, D)` have the same proportions, so that they share the shapes of the levels.

    Their size may differ; an unknown spacing is that of cubes.
    """
    if spacing_mm is None:
        return True
    ratios = spacing_mm / spacing_mm.amin(dim=1, keepdim=True)
    return bool(torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-5))


def _shrunk(length: int, factor: float, smallest_size: int) -> int:
    # Rounding errors of the spacing must not add a voxel.
    wanted = math.ceil(length / max(factor, 1.0) - 1e-6)
    return max(wanted, min(length, smallest_size))


def distinct_levels(shapes: Sequence[Shape]) -> list[tuple[int, Shape]]:
    """Number and shape of the levels; of neighbouring levels that are equal only the last."""
    last = len(shapes) - 1
    return [(k, shape) for k, shape in enumerate(shapes) if k == last or shape != shapes[k + 1]]


def shrink(image: Tensor, shape: Sequence[int]) -> Tensor:
    """An image on a coarser grid over the same extent, without aliasing.

    A Gaussian, then linear interpolation. If a voxel grows `r` times along an axis, the standard deviation there is
    `0.5 sqrt(r^2 - 1)` old voxels: blurred by half a voxel before, the image is blurred by half a voxel after. So
    shrinking twice is about the same as once, and an axis that keeps its length is left alone.

    Args:
        image: `(B, C, *S)`. Labels are no image; masks are: a bool mask becomes the share of each voxel that it
            covers, 0 to 1.
        shape: the new `*S'`, on no axis longer than the old.

    Returns:
        `(B, C, *S')`, floating point, differentiable.

    Raises:
        ValueError: a shape of another dimension, or longer than the image on some axis.
    """
    old = tuple(image.shape[2:])
    if len(shape) != len(old) or any(not 1 <= m <= n for m, n in zip(shape, old, strict=False)):
        raise ValueError(f"shrink: shape must have {len(old)} lengths of 1 up to {old}, got {tuple(shape)}")
    values = image if image.is_floating_point() else image.float()
    return _along(values, old, tuple(int(m) for m in shape), _shrinking)


def gaussian_pyramid(
    image: Tensor, levels: int, spacing_mm: Tensor | Sequence[float] | None = None, smallest_size: int = 8
) -> list[Tensor]:
    """The image and its coarser copies, each blurred and decimated from the one before (thesis eq. 2.45).

    The blur is the binomial kernel `(1, 4, 6, 4, 1) / 16` of Burt and Adelson (IEEE Trans. Communications 31, 1983)
    where an axis shrinks by 2, and a narrower one of its family, of variance `(r^2 - 1) / 3`, where by less. An odd
    axis keeps every second voxel; an even one is resampled so that its last voxel stays where it is.

    Args:
        image: `(B, C, *S)`; masks as in `shrink`.
        levels: most levels, the image itself included; fewer where no axis can shrink any more.
        spacing_mm, smallest_size: as in `level_shapes`, with the factors 1, 2, 4, ...

    Returns:
        the levels, finest first, differentiable.

    Raises:
        ValueError: no level asked for, or what `level_shapes` refuses.
    """
    if levels < 1:
        raise ValueError(f"gaussian_pyramid: levels must be at least 1, got {levels}")
    pyramid = [image if image.is_floating_point() else image.float()]
    for shape in level_shapes(tuple(image.shape[2:]), [2.0**k for k in range(1, levels)], spacing_mm, smallest_size):
        last = pyramid[-1]
        old = tuple(last.shape[2:])
        if shape != old:
            pyramid.append(_along(last, old, shape, _decimating))
    return pyramid


def laplacian_pyramid(
    image: Tensor, levels: int, spacing_mm: Tensor | Sequence[float] | None = None, smallest_size: int = 8
) -> list[Tensor]:
    """What each level of the Gaussian pyramid holds beyond the next coarser one (thesis eq. 2.46).

    Args: as of `gaussian_pyramid`.

    Returns:
        the bands `L_k = G_k - expanded(G_{k+1})`, finest first, and last the coarsest level itself;
        `from_laplacian_pyramid` puts the image together again.
    """
    gaussians = gaussian_pyramid(image, levels, spacing_mm, smallest_size)
    bands = [fine - resize_image(coarse, fine.shape[2:]) for fine, coarse in itertools.pairwise(gaussians)]
    return [*bands, gaussians[-1]]


def from_laplacian_pyramid(bands: Sequence[Tensor]) -> Tensor:
    """The image `(B, C, *S)` whose Laplacian pyramid is `bands`, finest first: exact up to rounding."""
    if not bands:
        raise ValueError("from_laplacian_pyramid: bands is empty, expected at least one level")
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = band + resize_image(image, band.shape[2:])
    return image


def _along(values: Tensor, old: Shape, new: Shape, matrix: Callable[..., AxisMatrix]) -> Tensor:
    work = at_least_float32(values)
    matrices = [None if m == n else matrix(n, m, work, values.device) for n, m in zip(old, new, strict=True)]
    return along_axes(values.to(work), matrices).to(values.dtype)


def _resampling_matrix(old: int, new: int) -> NDArray[np.float64]:
    """`(new, old)`: linear interpolation between grids of one axis whose first and last voxels coincide."""
    place = np.arange(new) * (old - 1) / (new - 1)
    below = np.minimum(np.floor(place).astype(int), old - 2)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), below] = 1 - (place - below)
    matrix[np.arange(new), below + 1] = place - below
    return matrix


def _blurred_resampling(old: int, kernel: NDArray[np.float64], new: int) -> NDArray[np.float64]:
    return np.asarray(_resampling_matrix(old, new) @ convolution_matrix(old, kernel))


def _ratio(old: int, new: int) -> float:
    """By how much a voxel grows."""
    return (old - 1) / (new - 1)


# Built once per level and case otherwise, at the price of a product of two matrices of the axis' length.
@lru_cache(maxsize=64)
def _shrinking(old: int, new: int, dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    """Gaussian, then linear interpolation; the mean where a single voxel is left."""
    if new == 1:
        return axis_matrix(np.full((1, old), 1 / old), dtype, device)
    sigma = _VOXEL_SIGMA * math.sqrt(_ratio(old, new) ** 2 - 1)
    return axis_matrix(_blurred_resampling(old, gaussian_kernel(sigma), new), dtype, device)


@lru_cache(maxsize=64)
def _decimating(old: int, new: int, dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    """Binomial kernel, then linear interpolation; the mean where a single voxel is left."""
    if new == 1:
        return axis_matrix(np.full((1, old), 1 / old), dtype, device)
    # Two passes of (a, 1 - 2 a, a): a = 1/4 is the binomial kernel, a = 0 no blur.
    a = min((_ratio(old, new) ** 2 - 1) / 12, 0.25)
    half = np.array([a, 1 - 2 * a, a])
    return axis_matrix(_blurred_resampling(old, np.convolve(half, half), new), dtype, device)
