"""Central differences of some planes of a volume, and their adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.similarity.box_sums import Slab


def difference(volumes: Tensor, axis: int, slab: Slab, per_voxel: Tensor | None = None) -> Tensor:
    """The derivative along spatial `axis` at the voxels of a slab, as `numpy.gradient`: one-sided at the border.

    Args:
        volumes: `(N, *S)`; the slab says which of them, and which planes of the first axis.
        per_voxel: `(N,)`, a factor.

    Returns:
        `(k, planes, *S[1:])`; zeros along an axis of length 1.
    """
    values = volumes[slab.cases]
    out = values.new_zeros((len(values), slab.stop - slab.start, *values.shape[2:]))
    for target, upper, lower, factor in _steps(values.shape[axis + 1], axis, slab):
        part = out.narrow(axis + 1, *target)
        torch.sub(_across(values, axis, slab, upper), _across(values, axis, slab, lower), out=part)
        if factor != 1:
            part *= factor
    return out if per_voxel is None else out.mul_(_column(per_voxel[slab.cases], out))


def add_adjoint(slopes: Tensor, axis: int, slab: Slab, out: Tensor, per_voxel: Tensor | None = None) -> None:
    """Adds to `out (N, *S)` what `slopes`, the derivatives in what `difference` gave, mean for its volumes."""
    values = out[slab.cases]
    if per_voxel is not None:
        slopes = slopes * _column(per_voxel[slab.cases], slopes)
    for target, upper, lower, factor in _steps(values.shape[axis + 1], axis, slab):
        part = slopes.narrow(axis + 1, *target)
        _across(values, axis, slab, upper).add_(part, alpha=factor)
        _across(values, axis, slab, lower).sub_(part, alpha=factor)


Run = tuple[int, int]  # where it begins, how long it is


def _steps(length: int, axis: int, slab: Slab) -> list[tuple[Run, Run, Run, float]]:
    """Runs of voxels along the axis: where in the slab, where the upper and the lower neighbour are, and the factor."""
    start, stop = (slab.start, slab.stop) if axis == 0 else (0, length)
    if length == 1:
        return []
    steps: list[tuple[Run, Run, Run, float]] = []
    first, last = max(start, 1), min(stop, length - 1)
    if last > first:
        count = last - first
        steps.append(((first - start, count), (first + 1, count), (first - 1, count), 0.5))
    if start == 0:
        steps.append(((0, 1), (1, 1), (0, 1), 1.0))
    if stop == length:
        steps.append(((length - 1 - start, 1), (length - 1, 1), (length - 2, 1), 1.0))
    return steps


def _across(values: Tensor, axis: int, slab: Slab, run: Run) -> Tensor:
    """The run along `axis`, and along the others what the slab holds."""
    inside = values if axis == 0 else values.narrow(1, slab.start, slab.stop - slab.start)
    return inside.narrow(axis + 1, *run)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
