"""The inverse of a Laplacian as a preconditioner of dense fields."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.field.separable import along_axes, axis_matrix
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
        waves = [_cosines(n) for n in like.shape[2:]]
        bases = [axis_matrix(basis, like.dtype, like.device) for basis in waves]
        back = [basis.transposed for basis in bases]
        symbols = [_eigenvalues(n, like) ** self.order for n in like.shape[2:]]
        flat = torch.ones_like(like)
        level = _curvature_along(operator, flat)
        total = per_case(level, like)
        for axis, (basis, symbol) in enumerate(zip(waves, symbols, strict=True)):
            if len(symbol) == 1:
                continue
            shape = [-1 if a == axis + 2 else 1 for a in range(like.ndim)]
            wave = flat * torch.from_numpy(basis[-1]).to(flat).reshape(shape)
            weight = ((_curvature_along(operator, wave) - level) / symbol[-1]).clamp(min=0)
            total = total + per_case(weight, like) * symbol.reshape(shape)
        top = total.flatten(1).amax(dim=1).clamp(min=torch.finfo(like.dtype).tiny)
        inverse = 1 / torch.maximum(total, per_case(_LEAST * top, like))
        return lambda v: along_axes(along_axes(v, bases).mul_(inverse), back)


def _curvature_along(operator: Map, v: Tensor) -> Tensor:
    return dot(v, operator(v)) / dot(v, v)


def _cosines(n: int) -> NDArray[np.float64]:
    """The orthonormal cosine basis `(n, n)`, slowest first: eigenvectors of the Laplacian with Neumann borders."""
    index = np.arange(n)
    basis: NDArray[np.float64] = np.cos(math.pi / n * index[:, None] * (index + 0.5)) * math.sqrt(2 / n)
    basis[0] = math.sqrt(1 / n)
    return basis


def _eigenvalues(n: int, like: Tensor) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * (math.pi / (2 * n))
    return (2 * torch.sin(angle)).square().to(device=like.device, dtype=like.dtype)
