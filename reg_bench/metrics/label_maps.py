"""Label maps as small integers: the warp by nearest neighbour and one joint histogram.

Everything here is NumPy on the arrays of one case, in blocks that stay in the cache: at 160×192×224 the time
of a naive version goes into page faults of large temporaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import field as fields

Codes = NDArray[np.unsignedinteger]

_BLOCK_VOXELS = 1 << 16
_LARGEST_JOINT = 1024


@dataclass(frozen=True)
class CodedLabels:
    """Two label maps recoded to `0 … len(values) - 1`, code 0 being background.

    Attributes:
        fixed, moving: the recoded maps, uint8 where that is enough.
        values: the label value that each code stands for, ascending from code 1.
    """

    fixed: Codes
    moving: Codes
    values: NDArray[np.int64]

    def code_of(self, label: int) -> int | None:
        """The code of a label value, `None` where neither map holds it."""
        found = np.flatnonzero(self.values == label)
        return int(found[0]) if found.size else None


def encode(fixed: NDArray[np.integer], moving: NDArray[np.integer]) -> CodedLabels:
    """Both maps with the labels that stand in either as consecutive codes.

    Maps whose values already fit into a byte keep their values as codes.
    """
    low = min(int(fixed.min()), int(moving.min()))
    high = max(int(fixed.max()), int(moving.max()))
    if low >= 0 and high <= 255:
        return CodedLabels(fixed.astype(np.uint8, copy=False), moving.astype(np.uint8, copy=False), np.arange(high + 1))
    values = np.union1d(np.unique(fixed), np.unique(moving)).astype(np.int64)
    values = np.concatenate([[0], values[values != 0]])
    order = np.argsort(values, kind="stable")
    dtype = np.uint8 if len(values) <= 256 else np.uint16 if len(values) <= 65536 else np.uint32

    def codes(array: NDArray[np.integer]) -> Codes:
        return order[np.searchsorted(values[order], array)].astype(dtype)

    return CodedLabels(codes(fixed), codes(moving), values)


def blocks(shape: tuple[int, ...], voxels: int = _BLOCK_VOXELS) -> Iterator[slice]:
    """Slices of the first axis that hold about `voxels` elements each, at least one plane."""
    step = max(1, voxels // max(1, int(np.prod(shape[1:]))))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def warp_nearest(moving: Codes, u: NDArray[np.floating]) -> Codes:
    """`moving(x + u(x))` by nearest neighbour, exactly as the Learn2Reg evaluation does it.

    The position is computed in double precision and rounded by `floor(x + 0.5)`; a position outside
    `[0, n - 1]` on any axis, however little, or not a number, is background (0).

    Args:
        moving: map on the moving grid.
        u: `(D, *S)` voxels on the fixed grid.

    Returns:
        Map on the fixed grid `S`, in the dtype of `moving`.
    """
    shape = u.shape[1:]
    warped = np.empty(shape, moving.dtype)
    source = np.ascontiguousarray(moving).reshape(-1)
    with np.errstate(invalid="ignore"):
        for block in blocks(shape):
            warped[block] = _gather(source, moving.shape, u, block)
    return warped


def warp_linear(moving: Codes, u: Tensor) -> Codes:
    """Each label of `moving` warped as a mask by linear interpolation, 0 outside; inside is above one half.

    No two labels can be above one half at a place. Paper I ("registration by tracking") warps its masks so.

    Args:
        moving: map on the moving grid.
        u: `(1, D, *S)` voxels on the fixed grid.

    Returns:
        Map on the fixed grid `S`, in the dtype of `moving`.
    """
    warped = np.zeros(tuple(u.shape[2:]), moving.dtype)
    for code in np.unique(moving[moving != 0]):
        mask = torch.from_numpy(moving == code).to(u.dtype)[None, None]
        warped[fields.warp(mask, u, mode="linear", padding="zeros")[0, 0].numpy() > 0.5] = code
    return warped


def _gather(source: Codes, moving_shape: tuple[int, ...], u: NDArray[np.floating], block: slice) -> Codes:
    """The warped map on `block` of the first axis."""
    size = (block.stop - block.start, *u.shape[2:])
    index = np.zeros(size, np.intp)
    inside = np.ones(size, bool)
    position = np.empty(size, np.float64)
    for axis, length in enumerate(moving_shape):
        start, stop = (block.start, block.stop) if axis == 0 else (0, size[axis])
        grid = np.arange(start, stop, dtype=np.float64).reshape([-1 if a == axis else 1 for a in range(len(size))])
        np.copyto(position, u[axis, block])
        position += grid
        inside &= position >= 0
        inside &= position <= length - 1
        position += 0.5  # truncation below is floor: what counts is not negative
        index *= length
        index += position.astype(np.intp)
    values = np.take(source, index, mode="clip")
    values *= inside
    return values


@dataclass(frozen=True)
class Overlap:
    """Voxel counts per code of a fixed and a warped map."""

    fixed: NDArray[np.int64]
    warped: NDArray[np.int64]
    both: NDArray[np.int64]


def overlap(fixed: Codes, warped: Codes, codes: int) -> Overlap:
    """Counts of every code in `fixed`, in `warped` and in both at once, from one joint histogram."""
    if codes > _LARGEST_JOINT:
        return Overlap(
            np.bincount(fixed.reshape(-1), minlength=codes),
            np.bincount(warped.reshape(-1), minlength=codes),
            np.bincount(fixed[fixed == warped], minlength=codes),
        )
    joint = np.zeros(codes * codes, np.int64)
    for block in blocks(fixed.shape):
        pairs = fixed[block].astype(np.intp)
        pairs *= codes
        pairs += warped[block]
        joint += np.bincount(pairs.reshape(-1), minlength=codes * codes)
    table = joint.reshape(codes, codes)
    return Overlap(table.sum(1), table.sum(0), np.diagonal(table).copy())
