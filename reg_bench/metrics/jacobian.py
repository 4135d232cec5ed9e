"""Statistics of the Jacobian determinant, gathered slab by slab in one pass over the field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reg_bench.field.jacobian import determinant_slabs

CLIP = 1e-9
"""Determinants below are raised to it before the logarithm, in both profiles."""

_LEARN2REG_SHIFT = 3.0
_LEARN2REG_CEILING = 1e9
_LEARN2REG_CROP = 2
_DOUBTFUL = 0.05


@dataclass
class _Moments:
    """Running mean and population standard deviation.

    Sums are about the mean of the first slab: a uniform stretch then has a deviation of 0, not of rounding errors.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    origin: float | None = None

    def add(self, values: Tensor, mask: Tensor | None) -> None:
        """Takes a slab, which is used up, or those of its voxels that `mask` marks."""
        if values.numel() == 0:
            return
        if self.origin is None:
            self.origin = float(values.mean())
        values = values.sub_(self.origin).reshape(-1)
        if mask is not None:
            values = values.mul_(mask.reshape(-1))
        self.count += values.numel() if mask is None else int(torch.count_nonzero(mask))
        self.total += float(values.sum())
        # torch adds in a cascade, which keeps single precision sums accurate; `dot` does not.
        self.squares += float(values.square_().sum())

    @property
    def std(self) -> float:
        """NaN where nothing was counted."""
        if self.count == 0:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.count - (self.total / self.count) ** 2))


@dataclass
class JacobianStatistics:
    """What the two profiles need of the determinants of one field.

    Attributes:
        log: of `log(max(det J, 1e-9))` over all voxels, borders included, or over the mask.
        shifted: of Learn2Reg's `log(clip(det J + 3, 1e-9, 1e9))` without the outer two voxels of each face.
        nonpositive, counted: voxels with `det J <= 0`, and all voxels, or those of the mask.
    """

    log: _Moments = field(default_factory=_Moments)
    shifted: _Moments = field(default_factory=_Moments)
    nonpositive: int = 0
    counted: int = 0

    @property
    def nonpositive_fraction(self) -> float:
        """NaN where no voxel was counted."""
        return self.nonpositive / self.counted if self.counted else math.nan


def jacobian_statistics(
    u: Tensor, mask: Tensor | None = None, *, shifted: bool = False, shifted_mask: Tensor | None = None
) -> JacobianStatistics:
    """Statistics of the determinants of `u`, whose derivatives are those of `field.jacobian_determinant`.

    Args:
        u: `(D, *S)` voxels.
        mask: `(*S)` bool; voxels of the textbook statistics.
        shifted: whether the Learn2Reg statistics are wanted too.
        shifted_mask: `(*S)` bool; voxels of the Learn2Reg statistics.
    """
    result = JacobianStatistics()
    u = u if u.dtype == torch.float64 else u.to(torch.float32)
    for piece, determinants in determinant_slabs(u):
        lowest = float(determinants.min())
        if lowest < _DOUBTFUL and u.dtype != torch.float64:
            _refine(u, piece, determinants)
            lowest = float(determinants.min())
        if shifted:
            inner = _inner(piece, u.shape[1:])
            values = (determinants[inner] + _LEARN2REG_SHIFT).clamp_(CLIP, _LEARN2REG_CEILING).log_()
            result.shifted.add(values, None if shifted_mask is None else shifted_mask[piece][inner])
        inside = None if mask is None else mask[piece]
        result.counted += determinants.numel() if inside is None else int(torch.count_nonzero(inside))
        if lowest <= 0:
            folded = determinants <= 0
            result.nonpositive += int(torch.count_nonzero(folded if inside is None else folded & inside))
        if lowest < CLIP:
            determinants.clamp_(min=CLIP)
        result.log.add(determinants.log_(), inside)
    return result


def _refine(u: Tensor, piece: slice, slab: Tensor) -> None:
    """Recomputes in double precision, in place, the determinants whose logarithm or sign hangs on the last digits.

    These are the ones near 0 and, for Learn2Reg, near -3.
    """
    doubtful = (slab.abs() < _DOUBTFUL) | ((slab + _LEARN2REG_SHIFT).abs() < _DOUBTFUL)
    if bool(doubtful.any()):
        where = doubtful.nonzero()
        where[:, 0] += piece.start
        slab[doubtful] = _determinants_at(u, where).to(slab.dtype)


def _determinants_at(u: Tensor, where: Tensor) -> Tensor:
    """`(K,)` float64 determinants at the voxels `where` `(K, D)`; differences as in `numpy.gradient`."""
    matrix = torch.eye(u.shape[0], dtype=torch.float64).repeat(len(where), 1, 1)
    for axis, length in enumerate(u.shape[1:]):
        ahead, behind = where.clone(), where.clone()
        ahead[:, axis] = (ahead[:, axis] + 1).clamp_(max=length - 1)
        behind[:, axis] = (behind[:, axis] - 1).clamp_(min=0)
        step = (ahead[:, axis] - behind[:, axis]).clamp_(min=1)
        rise = _columns(u, ahead) - _columns(u, behind)
        matrix[:, :, axis] += (rise / step).T
    return torch.linalg.det(matrix)


def _columns(u: Tensor, where: Tensor) -> Tensor:
    """`(D, K)` float64 displacements at the voxels `where` `(K, D)`."""
    index = torch.zeros(len(where), dtype=torch.int64)
    for axis, length in enumerate(u.shape[1:]):
        index = index * length + where[:, axis]
    return u.flatten(1)[:, index].double()


def _inner(piece: slice, shape: torch.Size) -> tuple[slice, ...]:
    """The part of a slab of the first axis that is at least two voxels away from every face."""
    crop = _LEARN2REG_CROP
    low = max(0, crop - piece.start)
    high = max(low, min(piece.stop, shape[0] - crop) - piece.start)
    return (slice(low, high), *(slice(crop, max(crop, n - crop)) for n in shape[1:]))
