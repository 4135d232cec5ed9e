"""Statistics of the Jacobian determinant, gathered slab by slab in one pass over the field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reg_bench.field import jacobian_slabs

CLIP = 1e-9
"""Determinants below are raised to it before the logarithm, in both profiles."""

_LEARN2REG_SHIFT = 3.0
_LEARN2REG_CEILING = 1e9
_LEARN2REG_CROP = 2


@dataclass
class _Moments:
    """Running mean and standard deviation of values near zero."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        self.count += values.numel()
        self.total += float(values.sum(dtype=torch.float64))
        self.squares += float(values.square().sum(dtype=torch.float64))

    @property
    def std(self) -> float:
        if self.count == 0:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.count - (self.total / self.count) ** 2))


@dataclass
class JacobianStatistics:
    """What the two profiles need of the determinants of one field.

    Attributes:
        log: of `log(max(det J, 1e-9))` over all voxels, borders included, or over the mask.
        nonpositive, counted: voxels with `det J <= 0`, and all voxels, or those of the mask.
        shifted: Learn2Reg's `log(clip(det J + 3, 1e-9, 1e9) / 4)` without the outer two voxels of each face.
    """

    log: _Moments = field(default_factory=_Moments)
    shifted: _Moments = field(default_factory=_Moments)
    nonpositive: int = 0
    counted: int = 0

    @property
    def nonpositive_fraction(self) -> float:
        return self.nonpositive / self.counted if self.counted else math.nan


def jacobian_statistics(
    u: Tensor, mask: Tensor | None = None, *, shifted_mask: Tensor | None = None
) -> JacobianStatistics:
    """Statistics of the determinants of `u`.

    Args:
        u: `(D, *S)` voxels.
        mask: `(*S)` bool; voxels of the textbook statistics.
        shifted_mask: `(*S)` bool; voxels of the Learn2Reg statistics.
    """
    result = JacobianStatistics()
    for piece, determinants in jacobian_slabs(u):
        inside = determinants if mask is None else determinants[mask[piece]]
        result.counted += inside.numel()
        result.nonpositive += int((inside <= 0).sum())
        result.log.add(inside.clamp(min=CLIP).log_())
        result.shifted.add(_shifted_log(_cropped(piece, determinants, u.shape[1:], shifted_mask)))
    return result


def _cropped(piece: slice, slab: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
    """The voxels of a slab of the first axis that are at least two voxels away from every face (and in the mask)."""
    low = max(0, _LEARN2REG_CROP - piece.start)
    high = max(low, min(slab.shape[0], shape[0] - _LEARN2REG_CROP - piece.start))
    inner = (slice(low, high), *(slice(_LEARN2REG_CROP, -_LEARN2REG_CROP),) * (len(shape) - 1))
    return slab[inner] if mask is None else slab[inner][mask[piece][inner]]


def _shifted_log(determinants: Tensor) -> Tensor:
    # Divided by its value for the identity: the deviation is the same and small numbers keep their digits.
    shifted = (determinants + _LEARN2REG_SHIFT).clamp_(CLIP, _LEARN2REG_CEILING)
    return shifted.div_(1 + _LEARN2REG_SHIFT).log_()
