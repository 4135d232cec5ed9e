"""Images pulled onto the grid of a field. Without a graph to record, block by block.

The coordinates of a block stay in the cache instead of making temporaries of several times the image, whose page
faults cost more than the arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.field.checks import (
    at_least_float32,
    check_field,
    check_image,
    check_options,
    identity_grid,
    is_outside,
    mark_nan,
    needs_graph,
)
from reg_bench.field.linear_sampling import linear
from reg_bench.field.points import interpolate_at, strides_of

_Block = tuple[slice, ...]
_Reader = Callable[[Tensor, Tensor, _Block, list[tuple[float, float]]], Tensor]
# A window of up to 129 voxels has normalised coordinates that float32 resolves to 1e-5 voxel.
_BLOCK_LENGTH = 96
_BLOCK_VOXELS = {"linear": 1 << 18, "nearest": 1 << 18, "cubic": 1 << 13}


def warp(image: Tensor, u: Tensor, mode: str = "linear", padding: str = "border") -> Tensor:
    """An image pulled onto the grid of a field: `out(x) = image(x + u(x))`.

    Args:
        image: `(B, C, *S_image)`, any dtype; its grid may differ in size from the field's: both count voxels
            from the same first voxel.
        u: `(B, D, *S)` in voxels.
        mode, padding: as in `sample`.

    Returns:
        `(B, C, *S)`; `nearest` keeps the dtype of `image`, the others return the wider of both dtypes. With a graph
        to record, linear interpolation is that of `linear`: twice as fast, positions good to 2e-4 voxel in float32.

    Raises:
        ValueError: shapes that do not fit, an unknown option, or a field with NaN on an integer image.
    """
    check_options("warp", mode, padding)
    check_field("warp", u)
    check_image("warp", image, u.shape[0], u.ndim - 2)
    if mode == "nearest" or not needs_graph(image, u):
        return _warp_blocks(image, u, mode, padding)
    work = at_least_float32(image, u)
    values, motion = image.to(work), u.to(work)
    if mode == "linear":
        out = linear(values, motion)
    else:
        places = _positions(motion).flatten(1, -2)
        out = interpolate_at(values, places, mode).reshape(*image.shape[:2], *u.shape[2:])
    if padding == "zeros":
        out = out.masked_fill(is_outside(_positions(motion.detach()), image.shape[2:])[:, None], 0)
    return out.to(torch.promote_types(image.dtype, u.dtype))


def _positions(u: Tensor) -> Tensor:
    """`x + u(x)` as points `(B, *S, D)`."""
    return (identity_grid(u.shape[2:], u.device, u.dtype) + u).movedim(1, -1)


def _blocks(spatial: Sequence[int], voxels: int) -> Iterator[_Block]:
    """Slices that cover a grid; all axes but the first are cut evenly into lengths up to `_BLOCK_LENGTH`."""
    lengths = [-(-n // -(-n // _BLOCK_LENGTH)) for n in spatial]
    lengths[0] = max(1, min(_BLOCK_LENGTH, voxels // math.prod(lengths[1:])))
    starts = (range(0, n, k) for n, k in zip(spatial, lengths, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + k, n)) for a, k, n in zip(corner, lengths, spatial, strict=True))


def _warp_blocks(image: Tensor, u: Tensor, mode: str, padding: str) -> Tensor:
    """`warp` without a graph."""
    image, u = image.detach(), u.detach()
    dtype = image.dtype if mode == "nearest" else torch.promote_types(image.dtype, u.dtype)
    out = image.new_empty((*image.shape[:2], *u.shape[2:]), dtype=dtype)
    work = at_least_float32(u) if mode == "nearest" else at_least_float32(image, u)
    image = image.contiguous() if mode == "nearest" else image.to(work)
    read = {"linear": _read_linear, "nearest": _read_nearest, "cubic": _read_cubic}[mode]
    for case, motion, target in zip(image, u, out, strict=True):
        for block in _blocks(u.shape[2:], _BLOCK_VOXELS[mode]):
            part = motion[(slice(None), *block)].to(work).contiguous()
            target[(slice(None), *block)] = _warp_block(case, part, block, read, padding)
    return out


def _warp_block(case: Tensor, part: Tensor, block: _Block, read: _Reader, padding: str) -> Tensor:
    """The warped values `(C, *block)` of one block from `case (C, *S)` and its displacement `part (D, *block)`."""
    spatial = case.shape[1:]
    ranges = []
    for motion, along in zip(part, block, strict=True):
        low, high = torch.aminmax(motion)
        ranges.append((float(low) + along.start, float(high) + along.stop - 1))
    values = read(case, part, block, ranges)
    if not all(math.isfinite(bound) for limits in ranges for bound in limits):
        values = mark_nan("warp", values[None], part.isnan().any(dim=0)[None])[0]
    if padding == "zeros":
        for axis, ((low, high), n) in enumerate(zip(ranges, spatial, strict=True)):
            if not (low >= 0 and high <= n - 1):
                place = part[axis] + _index_along(block, axis, part)
                values.masked_fill_((place < 0) | (place > n - 1), 0)
    return values


def _index_along(block: _Block, axis: int, like: Tensor) -> Tensor:
    """The voxel indices of a block along one axis, shaped to broadcast over the block."""
    index = torch.arange(block[axis].start, block[axis].stop, dtype=like.dtype, device=like.device)
    return index.reshape([-1 if a == axis else 1 for a in range(len(block))])


def _window(low: float, high: float, n: int) -> tuple[int, int]:
    """First voxel and length of the piece of an axis that holds all positions from `low` to `high`.

    If there is room the length is `2^k + 1`: normalised coordinates of whole voxels are then exact.
    """
    first = min(max(math.floor(low), 0), n - 1) if math.isfinite(low) else 0
    last = min(max(math.floor(high) + 1, 0), n - 1) if math.isfinite(high) else n - 1
    length = last - first + 1
    exact = (1 << max(0, length - 2).bit_length()) + 1
    length = exact if exact <= n else length
    return min(first, n - length), length


def _read_linear(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """Linear interpolation by `grid_sample` in the window of the image that a block reads."""
    dims = part.shape[0]
    grid = part.new_empty((1, *part.shape[1:], dims))
    window = [slice(None)]
    for axis, ((low, high), n) in enumerate(zip(ranges, case.shape[1:], strict=True)):
        start, length = _window(low, high, n)
        window.append(slice(start, start + length))
        coordinate = grid[0, ..., dims - 1 - axis]
        if length == 1:
            coordinate.fill_(-1.0)
            continue
        scale = 2.0 / (length - 1)
        first = (_index_along(block, axis, part) - start) * scale - 1.0
        torch.add(first, part[axis], alpha=scale, out=coordinate)
    return F.grid_sample(case[tuple(window)][None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]


def _read_nearest(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """The voxel at `floor(x + 0.5)`.

    With whole `x`, `floor(x + u + 0.5) = x + floor((floor(2 u) + 1) / 2)`, and every step of that is exact in
    floating point: the result is that of the official evaluation of Learn2Reg, which computes in float64.
    """
    spatial = case.shape[1:]
    index = torch.zeros(part.shape[1:], dtype=_index_dtype(spatial), device=part.device)
    for axis, ((low, high), n, stride) in enumerate(zip(ranges, spatial, strides_of(spatial), strict=True)):
        place = part[axis].mul(2).floor_().add_(1).mul_(0.5).floor_().add_(_index_along(block, axis, part))
        if not (low >= 0 and high <= n - 1):
            place.clamp_(0, n - 1)
        if math.isnan(low):
            place.nan_to_num_(0.0)
        index.add_(place.to(index.dtype), alpha=stride)
    flat = index.flatten()
    # One channel at a time: index_select is several times slower along the last axis of a matrix.
    return torch.stack([channel.flatten().index_select(0, flat) for channel in case]).reshape(-1, *index.shape)


def _index_dtype(spatial: Sequence[int]) -> torch.dtype:
    return torch.int32 if math.prod(spatial) < 2**31 else torch.int64


def _read_cubic(case: Tensor, part: Tensor, block: _Block, ranges: list[tuple[float, float]]) -> Tensor:
    """Cubic convolution by gathering."""
    positions = torch.stack([part[axis] + _index_along(block, axis, part) for axis in range(len(part))], dim=-1)
    return interpolate_at(case[None], positions.reshape(1, -1, len(part)), "cubic").reshape(-1, *part.shape[1:])
