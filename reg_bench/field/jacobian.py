"""The Jacobian determinant of a displacement field, slab by slab: temporaries of a volume's size cost page faults."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reg_bench.field.checks import check_field, needs_graph
from reg_bench.field.differences import difference

# Voxels of a slab: its dozen temporaries should stay in the cache, and too thin slabs cost overhead.
_SLAB_VOXELS = 1 << 17


def jacobian_determinant(u: Tensor, *, interior: bool = False) -> Tensor:
    """`det(I + du/dx)` of the map `x + u(x)`, in voxels.

    Central differences inside and one-sided ones at the border, as `numpy.gradient`; an axis of length 1
    contributes no derivative.

    Args:
        u: `(B, D, *S)`, voxels.
        interior: without the outermost layer of voxels, so that every difference is central; axes of length 1
            stay.

    Returns:
        `(B, 1, *S)`, or `(B, 1, *(S - 2))` for the interior.
    """
    check_field("jacobian_determinant", u)
    if needs_graph(u):
        out = torch.stack([_with_graph(case) for case in u])[:, None]
    else:
        out = u.new_empty((u.shape[0], 1, *u.shape[2:]))
        for case, target in zip(u, out, strict=True):
            for where, slab in determinant_slabs(case):
                target[0, where] = slab
    if interior:
        for dim in range(2, out.ndim):
            if out.shape[dim] > 1:
                out = out.narrow(dim, 1, max(0, out.shape[dim] - 2))
    return out


def jacobian_slabs(u: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The Jacobian determinant of one field, slab by slab along the first axis, without a graph.

    Statistics over a volume then need no temporary of its size.

    Args:
        u: `(D, *S)`, voxels.

    Yields:
        a slice of the first spatial axis and `det(I + du/dx)` there, `(k, *S[1:])`; derivatives as in
        `jacobian_determinant`. Together the slices cover the axis once, in order.
    """
    if u.ndim not in (3, 4) or u.shape[0] != u.ndim - 1:
        raise ValueError(f"jacobian_slabs: u must be one field (D, *spatial), got shape {tuple(u.shape)}")
    for where, slab in determinant_slabs(u):
        yield where, slab.clone()


def determinant_slabs(u: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`jacobian_slabs` in memory that the next slab uses again."""
    u = u.detach().to(torch.promote_types(u.dtype, torch.float32))
    dims, length = u.shape[0], u.shape[1]
    planes = min(length, max(1, _SLAB_VOXELS // max(1, u[0, 0].numel())))
    gradient = u.new_empty((dims, dims, planes, *u.shape[2:]))
    spare = u.new_empty((2, planes, *u.shape[2:]))
    for start in range(0, length, planes):
        stop = min(length, start + planes)
        rows = gradient[:, :, : stop - start]
        for axis in range(dims):
            _doubled_difference(u, axis, start, stop, out=rows[:, axis])
            rows[axis, axis] += 2
        # The differences are left doubled, so that the determinant is divided once.
        yield slice(start, stop), _determinant_in_place(rows, spare[:, : stop - start]).mul_(0.5**dims)


def _doubled_difference(u: Tensor, axis: int, start: int, stop: int, out: Tensor) -> None:
    """Twice the derivative along `axis` in `start … stop` of the first axis: central inside, one-sided at the ends."""
    length, dim = u.shape[axis + 1], axis + 1
    first, last = (start, stop) if axis == 0 else (0, length)
    source = u if axis == 0 else u[:, start:stop]
    low, high = max(first, 1), min(last, length - 1)
    if high > low:
        ahead, behind = source.narrow(dim, low + 1, high - low), source.narrow(dim, low - 1, high - low)
        torch.sub(ahead, behind, out=out.narrow(dim, low - first, high - low))
    if axis > 0 and length > 2:
        # Both ends at once: samples 0 and n - 2 from samples 1 and n - 1.
        ends = out.movedim(dim, 0)[:: length - 1]
        line = source.movedim(dim, 0)
        torch.sub(line[1 :: length - 2], line[:: length - 2][:2], out=ends)
        ends.mul_(2)
        return
    for end in {0, length - 1}.intersection(range(first, last)):
        inner = min(max(end, 1), length - 1)
        step = source.select(dim, inner) - source.select(dim, max(inner - 1, 0))
        out.select(dim, end - first).copy_(step.mul_(2 if length > 1 else 0))


def _determinant_in_place(m: Tensor, spare: Tensor) -> Tensor:
    """Determinant of `(D, D, …)` in place of `spare[0]`, `spare[1]` being work space."""
    if m.shape[0] == 2:
        torch.mul(m[0, 0], m[1, 1], out=spare[0])
        return spare[0].addcmul_(m[0, 1], m[1, 0], value=-1)
    result, minor = spare
    for column, sign in enumerate((1, -1, 1)):
        left, right = (c for c in range(3) if c != column)
        torch.mul(m[1, left], m[2, right], out=minor)
        minor.addcmul_(m[1, right], m[2, left], value=-1)
        if column == 0:
            torch.mul(minor, m[0, 0], out=result)
        else:
            result.addcmul_(minor, m[0, column], value=sign)
    return result


def _with_graph(u: Tensor) -> Tensor:
    """The determinant `(*S)` of one field `(D, *S)`, differentiable."""
    dims = u.shape[0]
    rows = []
    for axis in range(dims):
        parts = [difference(u[axis], dim) for dim in range(dims)]
        parts[axis] = parts[axis] + 1
        rows.append(parts)
    if dims == 2:
        (a, b), (c, d) = rows
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
