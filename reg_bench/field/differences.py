"""Central differences: as `numpy.gradient`, and with the border repeated, their adjoint, in memory of the caller."""

from __future__ import annotations

import torch
from torch import Tensor


def doubled_difference(w: Tensor, axis: int, out: Tensor) -> Tensor:
    """`w(x + 1) - w(x - 1)` along a spatial axis, twice the central difference; the border voxel repeats.

    Args:
        w: `(..., *S)`.
        axis: counted from the end, -1 is the last.
        out: of the shape of `w`, not its memory.
    """
    length = w.shape[axis]
    if length == 1:
        return out.zero_()
    inner = out.narrow(axis, 1, length - 2)
    torch.sub(w.narrow(axis, 2, length - 2), w.narrow(axis, 0, length - 2), out=inner)
    torch.sub(w.narrow(axis, 1, 1), w.narrow(axis, 0, 1), out=out.narrow(axis, 0, 1))
    torch.sub(w.narrow(axis, length - 1, 1), w.narrow(axis, length - 2, 1), out=out.narrow(axis, length - 1, 1))
    return out


def add_doubled_difference_adjoint(z: Tensor, axis: int, into: Tensor, weight: float) -> None:
    """Adds `weight` times the adjoint of `doubled_difference` of `z (..., *S)` to `into`."""
    length = z.shape[axis]
    if length == 1:
        return
    into.narrow(axis, 1, length - 1).add_(z.narrow(axis, 0, length - 1), alpha=weight)
    into.narrow(axis, length - 1, 1).add_(z.narrow(axis, length - 1, 1), alpha=weight)
    into.narrow(axis, 0, length - 1).sub_(z.narrow(axis, 1, length - 1), alpha=weight)
    into.narrow(axis, 0, 1).sub_(z.narrow(axis, 0, 1), alpha=weight)


def difference(f: Tensor, dim: int) -> Tensor:
    """Derivative along `dim` in voxels as `numpy.gradient`: central inside, one-sided at both ends, differentiable.

    Zero along an axis of length 1.
    """
    n = f.shape[dim]
    if n == 1:
        return torch.zeros_like(f)
    first = f.narrow(dim, 1, 1) - f.narrow(dim, 0, 1)
    if n == 2:
        return torch.cat((first, first), dim=dim)
    inner = (f.narrow(dim, 2, n - 2) - f.narrow(dim, 0, n - 2)) / 2
    last = f.narrow(dim, n - 1, 1) - f.narrow(dim, n - 2, 1)
    return torch.cat((first, inner, last), dim=dim)
