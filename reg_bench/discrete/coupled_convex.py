"""Coupled-convex regularisation of a discrete search: Heinrich, Papież, Schnabel and Handels, WBIR 2014.

The energy `sum_p cost_p(v_p) + coupling |v_p - u_p|^2 + R(u)` couples displacements `v`, chosen point by point, to a
smooth field `u`. With `u` fixed, the best `v` is a search through the window of each point alone; with `v` fixed, the
best `u` is a smoothed `v`. Both alternate while the coupling grows, so that the costs decide early and smoothness late.
ConvexAdam (Siebert, Hansen and Heinrich, 2021) starts so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.discrete.control_grid import ControlGrid
from reg_bench.discrete.regularization import Regularization
from reg_bench.discrete.window import Window, check_costs, lowest
from reg_bench.field import gaussian


@dataclass(frozen=True)
class CoupledConvex(Regularization):
    """Alternates between the best displacement of every point near a smooth field, and smoothing.

    Attributes:
        couplings: ascending prices of the distance from the smooth field, per (shortest) voxel edge squared; one
            alternation each. Above 0, so that nothing moves where images show nothing.
        sigma: standard deviation of the Gaussian that smooths the field, in distances of the closest control points.
    """

    couplings: Sequence[float] = (0.001, 0.003, 0.01, 0.03)
    sigma: float = 0.8

    def __post_init__(self) -> None:
        _check_couplings(self.couplings)
        if not self.sigma >= 0:
            raise ValueError(f"CoupledConvex: sigma must be at least 0, got {self.sigma}")

    def __call__(self, costs: Tensor, window: Window, grid: ControlGrid) -> Tensor:
        sigmas = [self.sigma * c for c in grid.closeness]
        return coupled_convex(costs, window, self.couplings, sigmas, [e**2 for e in grid.edges])


def coupled_convex(
    costs: Tensor,
    window: Window,
    couplings: Sequence[float],
    sigma: float | Sequence[float],
    metric: Sequence[float] | None = None,
) -> Tensor:
    """A smooth field of displacements with low costs.

    Args:
        costs: `(B, K, *M)`, unary costs of the `K` displacements of `window` at each control point.
        couplings: weights of `|v - u|^2` in voxels, ascending, one per alternation. Before the first `u` is 0.
        sigma: standard deviation of the Gaussian that smooths the field, in control points, one or one per axis.
        metric: what a voxel squared counts along each axis of the displacement; `None` for 1.

    Returns:
        `(B, D, *M)` voxels, finer than the steps of the window.
    """
    check_costs("coupled_convex", costs, window)
    _check_couplings(couplings)
    weights = costs.new_ones(len(window.radius)) if metric is None else costs.new_tensor(list(metric))
    field = costs.new_zeros(len(costs), len(window.radius), *costs.shape[2:])
    for coupling in couplings:
        field = gaussian(lowest(coupled(costs, window, field, coupling * weights), window), sigma)
    return field


def coupled(costs: Tensor, window: Window, field: Tensor, weights: Tensor) -> Tensor:
    """`costs + sum_a weights_a (o - field)_a^2`, up to a constant per point: `(B, K, *M)`.

    Args:
        costs: `(B, K, *M)`.
        field: `(B, D, *M)` voxels.
        weights: `(D,)`, per voxel squared.
    """
    offsets = window.offsets(costs)
    slopes = (-2 * weights * offsets).expand(len(costs), -1, -1)
    out = torch.baddbmm(costs.flatten(2), slopes, field.flatten(2))
    return out.add_((offsets.square() @ weights)[:, None]).reshape(costs.shape)


def _check_couplings(couplings: Sequence[float]) -> None:
    if not couplings or min(couplings) <= 0 or list(couplings) != sorted(couplings):
        raise ValueError(f"coupled convex: couplings must ascend and be positive, got {list(couplings)}")
