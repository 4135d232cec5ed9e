"""Filters of several channels with a spatial penalty, by conjugate gradients that can be spread over frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from reg_bench.tracking.band import Band
from reg_bench.tracking.samples import scaled
from reg_bench.tracking.spatial_penalty import SpatialPenalty

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FilterSystem:
    """The normal equations `(S + W) f = y* m` of all trackers: least squares over a memory, and the spatial penalty.

    Attributes:
        second_moment: `S (M, C, C, 2 m + 1, m + 1)`.
        right: `y* m (M, C, 2 m + 1, m + 1)`, of the mean sample and the wished response.
        penalty: `W`.
    """

    second_moment: Tensor
    right: Tensor
    penalty: SpatialPenalty

    def times(self, filters: Tensor) -> Tensor:
        """`(S + W) f` of filters `(M, C, ...)`."""
        data = torch.stack([(row * filters).sum(1) for row in self.second_moment.unbind(1)], dim=1)
        return data + self.penalty.times(filters)

    def preconditioned(self, residual: Tensor) -> Tensor:
        """The residual over the diagonal of `S + W`."""
        return scaled(residual, self._inverse_diagonal)

    @cached_property
    def _inverse_diagonal(self) -> Tensor:
        diagonal = self.second_moment.diagonal(dim1=1, dim2=2).real.movedim(-1, 1)
        return 1 / (diagonal + self.penalty.mean).contiguous()


@dataclass(frozen=True)
class Descent:
    """Where the conjugate gradients stand, for every tracker by itself.

    Attributes:
        solution, residual, direction: `(M, C, 2 m + 1, m + 1)`.
        slope: `(M,)`, the inner product of the residual and the preconditioned residual.
    """

    solution: Tensor
    residual: Tensor
    direction: Tensor
    slope: Tensor


def begin(system: FilterSystem, band: Band, solution: Tensor) -> Descent:
    """Conjugate gradients from `solution` on."""
    residual = system.right - system.times(solution)
    direction = system.preconditioned(residual)
    return Descent(solution, residual, direction, _inner(band, residual, direction))


def descend(system: FilterSystem, band: Band, state: Descent, iterations: int) -> Descent:
    """So many iterations more (Hestenes and Stiefel, 1952)."""
    for _ in range(iterations):
        image = system.times(state.direction)
        curvature = _inner(band, state.direction, image)
        length = _over(state.slope, curvature)
        solution = state.solution + scaled(state.direction, length)
        residual = state.residual - scaled(image, length)
        refined = system.preconditioned(residual)
        slope = _inner(band, residual, refined)
        direction = refined + scaled(state.direction, _over(slope, state.slope))
        state = replace(state, solution=solution, residual=residual, direction=direction, slope=slope)
    return state


def _inner(band: Band, a: Tensor, b: Tensor) -> Tensor:
    """`(M,)`, over all channels."""
    return band.inner(a, b).sum(1)


def _over(a: Tensor, b: Tensor) -> Tensor:
    """`a / b (M, 1, 1, 1)`, 0 where nothing is left to divide."""
    ratio = torch.where(b > 0, a / b.clamp(min=torch.finfo(b.dtype).tiny), torch.zeros_like(b))
    return ratio[:, None, None, None]
