"""Levenberg–Marquardt for sums of squares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.optimization.algebra import advanced, dot, per_case
from reg_bench.optimization.base import Optimizer, State
from reg_bench.optimization.gauss_newton import begin_without_gradient
from reg_bench.optimization.line_search import invisible
from reg_bench.optimization.normal_equations import (
    NormalEquations,
    NormalOptions,
    Preconditioner,
    Solver,
    as_least_squares,
    normal_equations,
)
from reg_bench.optimization.objective import Objective


@dataclass
class Damped(State):
    """With the damping `eta (B,)`, NaN before the first step, and the factor `(B,)` of its next increase."""

    eta: Tensor
    growth: Tensor


class LevenbergMarquardt(Optimizer[Damped]):
    """`theta <- theta + p` with `(2 J^T J + H + eta I) p = -grad E`, thesis equation 2.42.

    A step is taken if it lowers the energy. The damping follows Nielsen (1999): it shrinks the better the quadratic
    model predicted the decrease, by up to three, and grows by 2, 4, 8, ... while steps are rejected. `eta -> 0` is
    Gauss–Newton, a large one a short step along the negative gradient.
    """

    def __init__(
        self,
        damping: float = 1e-3,
        solver: Solver = "auto",
        iterations: int = 100,
        tolerance: float = 1e-2,
        preconditioner: Preconditioner | None = None,
        trials: int = 12,
    ) -> None:
        """
        Args:
            damping: the first `eta`, as a share of the curvature along the gradient, above 0.
            solver, iterations, tolerance, preconditioner: as in `GaussNewton`.
            trials: most rejections in a row.
        """
        if not damping > 0 or trials < 1:
            raise ValueError(f"LevenbergMarquardt: needs damping > 0 and trials >= 1, got {damping} and {trials}")
        self.damping, self.trials = damping, trials
        self.options = NormalOptions(solver, iterations, tolerance, preconditioner)

    def start(self, objective: Objective, theta: Tensor) -> Damped:
        state = begin_without_gradient("LevenbergMarquardt", objective, theta)
        eta = torch.full_like(state.energy, torch.nan)
        return Damped(**vars(state), eta=eta, growth=torch.full_like(eta, 2.0))

    def step(self, objective: Objective, state: Damped) -> Damped:
        system = normal_equations(
            as_least_squares("LevenbergMarquardt", objective), state.theta, state.active, self.options
        )
        eta = torch.where(state.eta.isnan(), self.damping * _curvature(system), state.eta)
        state = replace(state, eta=eta, stuck=state.active, flat=torch.zeros_like(state.active))
        for trial in range(self.trials):
            if not bool(state.stuck.any()):
                break
            state = _trial(objective, system, state, first=trial == 0)
        return state


def _curvature(system: NormalEquations) -> Tensor:
    """The curvature of the quadratic model along the gradient, `(B,)`; 1 where there is none."""
    g = system.gradient
    value = dot(g, system.product(g)) / dot(g, g)
    return torch.where(value > 0, value, torch.ones_like(value))


def _trial(objective: Objective, system: NormalEquations, state: Damped, first: bool) -> Damped:
    """One damped step of the cases that are still stuck, and the damping that follows from it."""
    waiting = state.stuck
    p = system.solve(state.eta)
    predicted = (state.eta * dot(p, p) - dot(system.gradient, p)) / 2
    # Later a decrease may be below rounding because the damping has grown, which says nothing about the place.
    flat = waiting & invisible(predicted, state.energy) & first
    theta = advanced(state.theta, p, waiting.to(p.dtype))
    with torch.no_grad():
        value = objective.energy(theta)
    taken = waiting & ~flat & value.isfinite() & (value < state.energy)
    quality = (state.energy - value) / predicted
    shrink = (1 - (2 * quality - 1) ** 3).clamp(min=1 / 3)
    rejected = waiting & ~taken
    eta = torch.where(taken, state.eta * shrink, torch.where(rejected, state.eta * state.growth, state.eta))
    growth = torch.where(taken, 2.0, torch.where(rejected, 2 * state.growth, state.growth))
    return replace(
        state,
        theta=torch.where(per_case(taken, theta), theta, state.theta),
        energy=torch.where(taken, value, state.energy),
        stuck=rejected & ~flat,
        flat=state.flat | flat,
        eta=eta,
        growth=growth,
    )
