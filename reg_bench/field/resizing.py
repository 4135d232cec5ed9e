"""Fields and images on another grid over the same extent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.field.checks import check_field, check_image, check_options
from reg_bench.field.points import taps_of
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix


def _check_size(name: str, size: Sequence[int], dims: int) -> tuple[int, ...]:
    if len(size) != dims or any(n < 1 for n in size):
        raise ValueError(f"{name}: size must hold {dims} positive lengths, got {tuple(size)}")
    return tuple(int(n) for n in size)


def resize(u: Tensor, size: Sequence[int]) -> Tensor:
    """A field on another grid over the same extent, linearly interpolated, in voxels of the new grid.

    First and last voxel of both grids coincide, so a voxel shrinks by `(n' - 1) / (n - 1)` and the values grow
    by the same factor.

    Args:
        u: `(B, D, *S)`, voxels.
        size: the new spatial shape.

    Raises:
        ValueError: a wrong size, or an axis of length 1 that should become longer: it has no extent to share.
    """
    check_field("resize", u)
    size = _check_size("resize", size, u.ndim - 2)
    factors = []
    for axis, (old, new) in enumerate(zip(u.shape[2:], size, strict=True)):
        if old == 1 and new > 1:
            raise ValueError(f"resize: axis {axis} has length 1 and no extent that {new} voxels could share")
        factors.append(1.0 if old == new else (new - 1) / (old - 1))
    scale = torch.tensor(factors, dtype=u.dtype, device=u.device).reshape(1, -1, *(1,) * len(size))
    return resize_image(u, size) * scale


def resize_image(image: Tensor, size: Sequence[int], mode: str = "linear") -> Tensor:
    """An image on another grid over the same extent (first and last voxel coincide); values unchanged.

    Args:
        image: `(B, C, *S)`; `nearest` keeps its dtype, the others return floating point.
        size: the new spatial shape.
        mode: `linear`, `nearest` (`floor(x + 0.5)`) or `cubic` (Keys' kernel). No low-pass filter is applied.
    """
    check_options("resize_image", mode, "border")
    check_image("resize_image", image, image.shape[0], image.ndim - 2)
    size = _check_size("resize_image", size, image.ndim - 2)
    if mode != "nearest":
        image = image if image.is_floating_point() else image.float()
    if mode == "linear" and _is_blown_up(image, size):
        return _blow_up(image, size)
    if mode == "linear":
        kind = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        return F.interpolate(image, size=size, mode=kind, align_corners=True)
    for axis, new in enumerate(size):
        old = image.shape[axis + 2]
        if new != old:
            ratio = (old - 1) / (new - 1) if new > 1 else 0.0
            where = torch.arange(new, device=image.device, dtype=torch.float64) * ratio
            image = _resize_axis(image, axis + 2, where, mode)
    return image


def _is_blown_up(image: Tensor, size: Sequence[int]) -> bool:
    """Whether a volume grows on a CPU, where a product with a matrix per axis is about twice as fast."""
    growing = all(new >= old > 1 for old, new in zip(image.shape[2:], size, strict=True))
    fits = len(size) == 3 and image.device.type == "cpu" and image.dtype in (torch.float32, torch.float64)
    # A product would carry NaN and infinity all along the axes.
    return growing and fits and bool(image.detach().sum().isfinite())


def _blow_up(image: Tensor, size: Sequence[int]) -> Tensor:
    matrices = [
        None if old == new else _linear_matrix(old, new, image.dtype)
        for old, new in zip(image.shape[2:], size, strict=True)
    ]
    return along_axes(image, matrices)


@lru_cache(maxsize=64)
def _linear_matrix(old: int, new: int, dtype: torch.dtype) -> AxisMatrix:
    """Linear interpolation of an axis of `old` voxels at `new` places from its first to its last."""
    where = np.arange(new) * ((old - 1) / (new - 1))
    lower = np.minimum(where.astype(int), old - 2)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), lower] = 1 - (where - lower)
    matrix[np.arange(new), lower + 1] = where - lower
    return axis_matrix(matrix, dtype, torch.device("cpu"))


def _resize_axis(image: Tensor, dim: int, where: Tensor, mode: str) -> Tensor:
    """`image` at the positions `where (n',)` along one axis, by nearest or cubic interpolation."""
    last = image.shape[dim] - 1
    if mode == "nearest":
        return image.index_select(dim, (where + 0.5).floor().long().clamp_(0, last))
    taps, weights = taps_of(where, where.new_tensor(last), mode)
    shape = [1] * image.ndim
    shape[dim] = -1
    parts = (
        image.index_select(dim, taps[:, k]) * weights[:, k].to(image.dtype).reshape(shape) for k in range(taps.shape[1])
    )
    return torch.stack(list(parts)).sum(dim=0)
