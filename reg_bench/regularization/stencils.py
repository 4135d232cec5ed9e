"""Quadratic energies of difference stencils, with their gradients in closed form.

Every quadratic regularizer is a sum of terms `weight * mean((sum of stencils)^2)`. A stencil is a product of one
operation per axis, so its transpose is the product of the transposes, and the gradient of the energy is one more pass
over the field: no automatic differentiation records a dozen temporaries of its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEEP, DIFFERENCE, AVERAGE, SECOND, BORDERED = ".", "d", "a", "s", "b"
"""Operations along an axis of length n: none; `x[1:] - x[:-1]` and `(x[1:] + x[:-1]) / 2` (n - 1); the second
difference at the inner voxels (n - 2) or at all of them, where those at the ends repeat their neighbour's (n)."""

_SHORTEST = {KEEP: 1, DIFFERENCE: 2, AVERAGE: 1, SECOND: 3, BORDERED: 3}


@dataclass(frozen=True)
class Stencil:
    """A derivative of one component of a field.

    Attributes:
        channel: the component.
        along: one operation per axis, such as `"d.a"`.
        factor: `(B,)` by which the result is multiplied; `None` for 1.
    """

    channel: int
    along: str
    factor: Tensor | None = None

    def exists_on(self, spatial: Sequence[int]) -> bool:
        """Whether every axis of a grid is long enough; a derivative along a shorter one is zero."""
        return all(n >= _SHORTEST[op] for n, op in zip(spatial, self.along, strict=True))


@dataclass(frozen=True)
class Term:
    """`weight` times the mean of the square of a sum of stencils, all of one size."""

    weight: float
    stencils: tuple[Stencil, ...]


def along_axis(dims: int, *operations: tuple[int, str], rest: str = KEEP) -> str:
    """The operations `(axis, operation)` in place, `rest` along the other axes: `Stencil.along`."""
    letters = [rest] * dims
    for axis, operation in operations:
        letters[axis] = operation
    return "".join(letters)


def ratio(edges: Tensor | None, up: int, *down: int) -> Tensor | None:
    """`h[up] / product of h[down]` per case, `(B,)`: the physical scale of a derivative; `None` where it is 1."""
    if edges is None or down == (up,):
        return None
    return edges[:, up] / edges[:, list(down)].prod(dim=1)


def quadratic_energy(u: Tensor, terms: Sequence[Term]) -> Tensor:
    """The sum of the terms, `(B,)`; differentiable in `u (B, D, *S)` any number of times.

    Terms whose stencils fit no axis of the grid count 0.
    """
    return _energy(u, _fitting(terms, u.shape[2:]))


def _fitting(terms: Sequence[Term], spatial: Sequence[int]) -> list[Term]:
    kept = (Term(t.weight, tuple(s for s in t.stencils if s.exists_on(spatial))) for t in terms)
    return [term for term in kept if term.stencils and term.weight != 0]


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, terms: list[Term]) -> Tensor:
        ctx.save_for_backward(u)
        ctx.terms = terms
        energy = u.new_zeros(u.shape[0])
        for term in terms:
            values = _values(u, term)
            # torch.sum adds in a cascade, which keeps single precision accurate; a dot product does not.
            squares = values.square_().flatten(1)
            energy.add_(squares.sum(dim=1), alpha=term.weight / squares.shape[1])
        return energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return _per_case(gradients[0], u) * _gradient(u, ctx.terms), None


class _Gradient(torch.autograd.Function):
    """The gradient of the energy: a symmetric linear map, whose own derivative is the same map."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, terms: list[Term]) -> Tensor:
        ctx.terms = terms
        out = torch.zeros_like(u, memory_format=torch.contiguous_format)
        for term in terms:
            values = _values(u, term)
            values.mul_(2 * term.weight / max(1, values[0].numel()))
            for stencil in term.stencils:
                _add_transposed(out[:, stencil.channel], values, stencil)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _gradient(gradients[0], ctx.terms), None


_energy: Callable[[Tensor, list[Term]], Tensor] = _Energy.apply
_gradient: Callable[[Tensor, list[Term]], Tensor] = _Gradient.apply


def _per_case(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _values(u: Tensor, term: Term) -> Tensor:
    """The sum of the stencils of a term `(B, *S')`, in memory of its own."""
    total: Tensor | None = None
    for stencil in term.stencils:
        values = u[:, stencil.channel]
        for axis, operation in enumerate(stencil.along):
            values = _FORWARD[operation](values, axis + 1)
        if stencil.factor is not None:
            values.mul_(_per_case(stencil.factor, values))
        total = values if total is None else total.add_(values)
    assert total is not None
    return total


def _add_transposed(out: Tensor, values: Tensor, stencil: Stencil) -> None:
    """Adds the transpose of a stencil, applied to `values (B, *S')`, to `out (B, *S)`."""
    steps = [(axis + 1, op) for axis, op in enumerate(stencil.along) if op != KEEP]
    if stencil.factor is not None:
        values = values * _per_case(stencil.factor, values)
    for dim, operation in reversed(steps[1:]):
        target = values.new_zeros((*values.shape[:dim], out.shape[dim], *values.shape[dim + 1 :]))
        _TRANSPOSED[operation](target, values, dim)
        values = target
    dim, operation = steps[0]
    _TRANSPOSED[operation](out, values, dim)


def _difference(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    return x.narrow(dim, 1, n - 1) - x.narrow(dim, 0, n - 1)


def _average(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    return x if n == 1 else torch.lerp(x.narrow(dim, 1, n - 1), x.narrow(dim, 0, n - 1), 0.5)


def _second(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    out = x.narrow(dim, 0, n - 2) + x.narrow(dim, 2, n - 2)
    return out.sub_(x.narrow(dim, 1, n - 2), alpha=2)


def _bordered(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    inner = out.narrow(dim, 1, n - 2)
    torch.add(x.narrow(dim, 0, n - 2), x.narrow(dim, 2, n - 2), out=inner)
    inner.sub_(x.narrow(dim, 1, n - 2), alpha=2)
    out.select(dim, 0).copy_(out.select(dim, 1))
    out.select(dim, n - 1).copy_(out.select(dim, n - 2))
    return out


def _add_difference(out: Tensor, y: Tensor, dim: int) -> None:
    n = out.shape[dim]
    out.narrow(dim, 1, n - 1).add_(y)
    out.narrow(dim, 0, n - 1).sub_(y)


def _add_average(out: Tensor, y: Tensor, dim: int) -> None:
    n = out.shape[dim]
    if n == 1:
        out.add_(y)
        return
    out.narrow(dim, 1, n - 1).add_(y, alpha=0.5)
    out.narrow(dim, 0, n - 1).add_(y, alpha=0.5)


def _add_second(out: Tensor, y: Tensor, dim: int) -> None:
    n = out.shape[dim]
    out.narrow(dim, 0, n - 2).add_(y)
    out.narrow(dim, 2, n - 2).add_(y)
    out.narrow(dim, 1, n - 2).sub_(y, alpha=2)


def _add_bordered(out: Tensor, y: Tensor, dim: int) -> None:
    n = out.shape[dim]
    inner = y.narrow(dim, 1, n - 2).clone()
    inner.select(dim, 0).add_(y.select(dim, 0))
    inner.select(dim, n - 3).add_(y.select(dim, n - 1))
    _add_second(out, inner, dim)


_FORWARD: dict[str, Callable[[Tensor, int], Tensor]] = {
    KEEP: lambda x, dim: x,
    DIFFERENCE: _difference,
    AVERAGE: _average,
    SECOND: _second,
    BORDERED: _bordered,
}
_TRANSPOSED: dict[str, Callable[[Tensor, Tensor, int], None]] = {
    DIFFERENCE: _add_difference,
    AVERAGE: _add_average,
    SECOND: _add_second,
    BORDERED: _add_bordered,
}
