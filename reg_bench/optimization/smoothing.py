"""The inverse of a Laplacian as a preconditioner of dense fields."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, per_case
from reg_bench.optimization.normal_equations import Map, Preconditioner

_LEAST = 1e-3


class Smoothing(Preconditioner):
    """Division by `c + sum_a k_a (-Laplacian_a)^order` in the cosine basis, for parameters `(B, C, *S)` on a grid.

    That is the Gauss–Newton matrix of a dense field with the image part replaced by its mean; what remains is exact for
    diffusion (`order = 1`) and close for curvature (`order = 2`). The constants come from the operator itself, by its
    curvature along a constant field and along the fastest wave of each axis.
    """

    def __init__(self, order: int = 1) -> None:
        """
        Args:
            order: 1 for regularizers of first derivatives, 2 of second ones.
        """
        if order not in (1, 2):
            raise ValueError(f"Smoothing: order must be 1 or 2, got {order}")
        self.order = order

    def bind(self, operator: Map, like: Tensor) -> Map:
        if like.ndim < 3:
            raise ValueError(f"Smoothing: needs parameters on a grid (B, C, *S), got shape {tuple(like.shape)}")
        bases = [_cosines(n, like) for n in like.shape[2:]]
        symbols = [_eigenvalues(n, like) ** self.order for n in like.shape[2:]]
        flat = torch.ones_like(like)
        level = _curvature_along(operator, flat)
        total = per_case(level, like)
        for axis, (basis, symbol) in enumerate(zip(bases, symbols, strict=True)):
            if len(symbol) == 1:
                continue
            shape = [-1 if a == axis + 2 else 1 for a in range(like.ndim)]
            wave = flat * basis[-1].reshape(shape)
            weight = ((_curvature_along(operator, wave) - level) / symbol[-1]).clamp(min=0)
            total = total + per_case(weight, like) * symbol.reshape(shape)
        top = total.flatten(1).amax(dim=1).clamp(min=torch.finfo(like.dtype).tiny)
        inverse = 1 / torch.maximum(total, per_case(_LEAST * top, like))
        return lambda v: _along(_along(v, bases) * inverse, [basis.mT for basis in bases])


def _curvature_along(operator: Map, v: Tensor) -> Tensor:
    return dot(v, operator(v)) / dot(v, v)


def _cosines(n: int, like: Tensor) -> Tensor:
    """The orthonormal cosine basis `(n, n)`, slowest first: eigenvectors of the Laplacian with Neumann borders."""
    index = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * index[:, None] * (index + 0.5)) * math.sqrt(2 / n)
    basis[0] = math.sqrt(1 / n)
    return basis.to(device=like.device, dtype=like.dtype)


def _eigenvalues(n: int, like: Tensor) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * (math.pi / (2 * n))
    return (2 * torch.sin(angle)).square().to(device=like.device, dtype=like.dtype)


def _along(v: Tensor, matrices: list[Tensor]) -> Tensor:
    """Multiplies every axis of `v (B, C, *S)` by its matrix."""
    for axis, matrix in enumerate(matrices):
        v = torch.tensordot(v, matrix, dims=([axis + 2], [1])).movedim(-1, axis + 2)
    return v
