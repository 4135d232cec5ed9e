"""Cost volumes: how well each voxel of one feature map fits the voxels of another in a window around it.

`cost_volume` is the correlation layer of PWC-Net (Sun et al., CVPR 2018) and of the learned pyramid (thesis 2.62),
`difference_volume` the mean squared or absolute difference that a discrete search minimises (thesis 2.44).

No shifted copy of a feature map is made. The moving map is padded once and seen as one long line per channel, on which
every displacement is a constant distance; a block of voxels is then multiplied with all displacements at once through a
strided view, one channel after the other, while its sums stay in the cache. The backward pass does the same twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from reg_bench.field.checks import at_least_float32

# Sums of a block held at a time: they should stay in the cache of a core; elsewhere few large launches are better.
_CPU_BLOCK, _OTHER_BLOCK = 1 << 20, 1 << 25

POWERS = (1, 2)


def window_offsets(radius: int | Sequence[int], dims: int, step: int = 1) -> list[tuple[int, ...]]:
    """The displacements of a window in voxels, first axis slowest: `step * {-r, …, r}` along every axis.

    Args:
        radius: displacements on each side of zero, one number or one per axis.
        dims: number of axes.
        step: voxels between neighbouring displacements.
    """
    return list(itertools.product(*(range(-step * r, step * r + 1, step) for r in _radii(radius, dims, step))))


def cost_volume(fixed: Tensor, moving: Tensor, radius: int | Sequence[int] = 2, step: int = 1) -> Tensor:
    """Correlation of every voxel with a window of the other map: `out_k(x) = mean_c fixed_c(x) moving_c(x + o_k)`.

    Args:
        fixed, moving: `(B, C, *S)` floating point, 2-D or 3-D; the moving map is 0 outside its grid.
        radius, step: the window, as in `window_offsets`.

    Returns:
        `(B, K, *S)` in the wider dtype of both, `K = prod(2 r + 1)`; channel `k` belongs to displacement `k` of
        `window_offsets`. Differentiable once in both maps; only the maps are kept for that.

    Raises:
        ValueError: shapes that do not fit or a window that is none.
    """
    _check_maps("cost_volume", fixed, moving)
    radii = _radii(radius, fixed.ndim - 2, step)
    apply = cast(Callable[..., Tensor], _Correlation.apply)
    return apply(fixed, moving, radii, step)


def difference_volume(
    fixed: Tensor, moving: Tensor, radius: int | Sequence[int], step: int = 1, *, power: int = 2
) -> Tensor:
    """Distance of every voxel to a window of the other map: `mean_c |fixed_c(x) - moving_c(x + o_k)|^power`.

    Args:
        fixed, moving: `(B, C, *S)` floating point; beyond its grid the moving map continues with its border values.
        radius, step: the window, as in `window_offsets`.
        power: 2 for squared, 1 for absolute differences.

    Returns:
        `(B, K, *S)` as in `cost_volume`, without a graph.
    """
    _check_maps("difference_volume", fixed, moving)
    if power not in POWERS:
        raise ValueError(f"difference_volume: power must be one of {POWERS}, got {power}")
    radii = _radii(radius, fixed.ndim - 2, step)
    work = at_least_float32(fixed, moving)
    out = fixed.new_empty(
        (len(fixed), math.prod(2 * r + 1 for r in radii), *fixed.shape[2:]),
        dtype=torch.promote_types(fixed.dtype, moving.dtype),
    )
    for f, m, target in zip(fixed.detach().to(work), moving.detach().to(work), out, strict=True):
        _differences_of_case(f, _Lines.of(m, radii, step, "replicate"), power, target)
    return out


def _differences_of_case(fixed: Tensor, lines: _Lines, power: int, out: Tensor) -> None:
    for block in lines.blocks(math.prod(lines.labels)):
        values = lines.flatten(fixed, block)
        sums = values.new_zeros(*lines.labels, block.length)
        difference = torch.empty_like(sums)
        for channel, row in enumerate(values):
            torch.sub(row, lines.window(channel, block), out=difference)
            if power == 2:
                sums.addcmul_(difference, difference)
            else:
                sums.add_(difference.abs_())
        out[(slice(None), *block.where)] = lines.unflatten(sums.div_(len(values)).flatten(0, -2), block)


class _Correlation(torch.autograd.Function):
    """Keeps only the two maps."""

    @staticmethod
    def forward(ctx: Any, fixed: Tensor, moving: Tensor, radii: tuple[int, ...], step: int) -> Tensor:
        ctx.save_for_backward(fixed, moving)
        ctx.window = radii, step
        work = at_least_float32(fixed, moving)
        dtype = torch.promote_types(fixed.dtype, moving.dtype)
        out = fixed.new_empty((len(fixed), math.prod(2 * r + 1 for r in radii), *fixed.shape[2:]), dtype=dtype)
        for f, m, target in zip(fixed, moving, out, strict=True):
            _correlate_case(f.to(work), _Lines.of(m.to(work), radii, step, "constant"), target)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        fixed, moving = ctx.saved_tensors
        radii, step = ctx.window
        wanted = tuple(
            torch.empty_like(t, memory_format=torch.contiguous_format) if need else None
            for t, need in zip((fixed, moving), ctx.needs_input_grad[:2], strict=True)
        )
        work = at_least_float32(fixed, moving)
        for case, (f, m) in enumerate(zip(fixed.to(work), moving.to(work), strict=True)):
            lines = _Lines.of(m, radii, step, "constant")
            of_fixed, of_moving = (None if w is None else w[case] for w in wanted)
            _backward_of_case(f, lines, upstream[case].to(work), of_fixed, of_moving)
        return (*wanted, None, None)


def _correlate_case(fixed: Tensor, lines: _Lines, out: Tensor) -> None:
    for block in lines.blocks(math.prod(lines.labels)):
        values = lines.flatten(fixed, block).div_(len(fixed))
        sums = values.new_zeros(*lines.labels, block.length)
        for channel, row in enumerate(values):
            sums.addcmul_(row, lines.window(channel, block))
        out[(slice(None), *block.where)] = lines.unflatten(sums.flatten(0, -2), block)


def _backward_of_case(
    fixed: Tensor, lines: _Lines, upstream: Tensor, of_fixed: Tensor | None, of_moving: Tensor | None
) -> None:
    """Writes the gradients `(C, *S)` of one case, those that are wanted."""
    received = torch.zeros_like(lines.values) if of_moving is not None else None
    for block in lines.blocks(len(fixed)):
        weights = lines.flatten(upstream, block).div_(len(fixed))
        if of_fixed is not None:
            sums = fixed.new_zeros(len(fixed), block.length)
            for weight, start in zip(weights, lines.starts(block), strict=True):
                sums.addcmul_(weight, lines.values[:, start : start + block.length])
            of_fixed[(slice(None), *block.where)] = lines.unflatten(sums, block)
        if received is not None:
            values = lines.flatten(fixed, block)
            for weight, start in zip(weights, lines.starts(block), strict=True):
                received[:, start : start + block.length].addcmul_(weight, values)
    if of_moving is not None and received is not None:
        of_moving.copy_(lines.inside(received))


@dataclass(frozen=True)
class _Block:
    """Some voxels of the grid: fixed indices along the leading axes, a range along the next, all along the rest."""

    where: tuple[slice, ...]
    first: int
    length: int


@dataclass(frozen=True)
class _Lines:
    """A map `(C, *S)`, padded by the reach of the window on every side and flattened to one line per channel.

    A displacement is then a constant distance along the line. Fixed voxels of a block are laid out alike, with as many
    unused places between their rows; what is computed there is thrown away.
    """

    values: Tensor
    spatial: tuple[int, ...]
    padded: tuple[int, ...]
    radii: tuple[int, ...]
    step: int

    @staticmethod
    def of(values: Tensor, radii: tuple[int, ...], step: int, mode: str) -> _Lines:
        """Pads by zeros (`constant`) or border values (`replicate`)."""
        reach = [step * r for r in radii]
        padded = tuple(n + 2 * k for n, k in zip(values.shape[1:], reach, strict=True))
        lines = _Lines(values, tuple(values.shape[1:]), padded, radii, step)
        size = math.prod(padded)
        # The last block reads beyond the last voxel, in places whose results are thrown away.
        tail = sum(2 * k * s for k, s in zip(reach, lines.strides, strict=True))
        line = values.new_zeros(len(values), size + tail)
        grid = line[:, :size].view(-1, *padded)
        if mode == "constant":
            replace(lines, values=line).inside(line).copy_(values)
        else:
            grid.copy_(F.pad(values[None], [k for r in reversed(reach) for k in (r, r)], mode=mode)[0])
        return replace(lines, values=line)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Distance of neighbouring voxels along a line, per axis."""
        return tuple(math.prod(self.padded[a + 1 :]) for a in range(len(self.padded)))

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Number of displacements per axis."""
        return tuple(2 * r + 1 for r in self.radii)

    def blocks(self, sums_per_voxel: int) -> Iterator[_Block]:
        """Blocks that cover the grid, each with about as many sums as the cache holds."""
        most = (_CPU_BLOCK if self.values.device.type == "cpu" else _OTHER_BLOCK) // sums_per_voxel
        strides = self.strides
        axis = next((a for a, s in enumerate(strides) if s <= most), len(strides) - 1)
        rows = max(1, min(self.spatial[axis], most // strides[axis]))
        for leading in itertools.product(*(range(n) for n in self.spatial[:axis])):
            for start in range(0, self.spatial[axis], rows):
                stop = min(start + rows, self.spatial[axis])
                where = (*(slice(i, i + 1) for i in leading), slice(start, stop))
                first = sum(i * s for i, s in zip((*leading, start), strides[: axis + 1], strict=True))
                yield _Block(where, first, (stop - start) * strides[axis])

    def window(self, channel: int, block: _Block) -> Tensor:
        """A view `(*labels, length)` of what lies at each displacement from each voxel of the block."""
        shape = (*self.labels, block.length)
        strides = (*(self.step * s for s in self.strides), 1)
        line = self.values[channel]
        return line.as_strided(shape, strides, line.storage_offset() + block.first)

    def starts(self, block: _Block) -> list[int]:
        """Where along a line the block lies, for each displacement."""
        steps = (range(0, n * self.step * s, self.step * s) for n, s in zip(self.labels, self.strides, strict=True))
        return [block.first + sum(distances) for distances in itertools.product(*steps)]

    def flatten(self, values: Tensor, block: _Block) -> Tensor:
        """The voxels of a block of `values (N, *S)`, laid out as the lines are: `(N, length)`, a copy."""
        part = values[(slice(None), *block.where)]
        axis = len(block.where) - 1
        pad = [k for p, n in zip(self.padded[:axis:-1], self.spatial[:axis:-1], strict=True) for k in (0, p - n)]
        return (F.pad(part, pad) if any(pad) else part.clone()).reshape(len(values), block.length)

    def unflatten(self, values: Tensor, block: _Block) -> Tensor:
        """`flatten` undone: `(N, length)` to the voxels of the block, `(N, *block)`."""
        axis = len(block.where) - 1
        grid = values.reshape(len(values), *(1,) * axis, -1, *self.padded[axis + 1 :])
        for dim, n in enumerate(self.spatial[axis + 1 :], start=axis + 2):
            grid = grid.narrow(dim, 0, n)
        return grid

    def inside(self, lines: Tensor) -> Tensor:
        """The voxels of the grid `(C, *S)` from lines laid out as `values`."""
        grid = lines[:, : math.prod(self.padded)].view(-1, *self.padded)
        for dim, (r, n) in enumerate(zip(self.radii, self.spatial, strict=True), start=1):
            grid = grid.narrow(dim, self.step * r, n)
        return grid


def _radii(radius: int | Sequence[int], dims: int, step: int) -> tuple[int, ...]:
    radii = (radius,) * dims if isinstance(radius, int) else tuple(radius)
    if len(radii) != dims or min(radii) < 0 or step < 1:
        raise ValueError(
            f"cost volume: radius must be one or {dims} whole numbers of at least 0 and step at least 1, "
            f"got {radius} and {step}"
        )
    return radii


def _check_maps(name: str, fixed: Tensor, moving: Tensor) -> None:
    if fixed.shape != moving.shape or fixed.ndim not in (4, 5) or 0 in fixed.shape:
        raise ValueError(
            f"{name}: fixed and moving must be non-empty (B, C, *spatial) of one shape, 2-D or 3-D, "
            f"got {tuple(fixed.shape)} and {tuple(moving.shape)}"
        )
    if not (fixed.is_floating_point() and moving.is_floating_point()):
        raise ValueError(f"{name}: fixed and moving must be floating point, got {fixed.dtype} and {moving.dtype}")
