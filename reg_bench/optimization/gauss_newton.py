"""Gauss–Newton for sums of squares."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reg_bench.optimization.algebra import advanced, dot
from reg_bench.optimization.base import Optimizer, State
from reg_bench.optimization.line_search import invisible, shorten
from reg_bench.optimization.normal_equations import (
    NormalOptions,
    Preconditioner,
    Solver,
    as_least_squares,
    normal_equations,
)
from reg_bench.optimization.objective import Objective


class GaussNewton(Optimizer[State]):
    """`theta <- theta + p` with `(2 J^T J + H) p = -grad E`, thesis equation 2.41.

    `J` is the Jacobian of the residuals and `H` the Hessian of the penalty. A step that does not lower the energy is
    shortened. A linear least-squares problem takes one step.
    """

    def __init__(
        self,
        solver: Solver = "auto",
        iterations: int = 100,
        tolerance: float = 1e-2,
        preconditioner: Preconditioner | None = None,
        trials: int = 20,
    ) -> None:
        """
        Args:
            solver: `explicit` forms the matrix, `matrix-free` takes conjugate gradients, `auto` the former up to 64
                parameters per case.
            iterations, tolerance: of the conjugate gradients: at most so many, until the residual has fallen so far.
            preconditioner: of the conjugate gradients.
            trials: most evaluations of a step.
        """
        if trials < 1:
            raise ValueError(f"GaussNewton: trials must be at least 1, got {trials}")
        self.options = NormalOptions(solver, iterations, tolerance, preconditioner)
        self.trials = trials

    def start(self, objective: Objective, theta: Tensor) -> State:
        return begin_without_gradient("GaussNewton", objective, theta)

    def step(self, objective: Objective, state: State) -> State:
        system = normal_equations(as_least_squares("GaussNewton", objective), state.theta, state.active, self.options)
        direction = system.solve(torch.zeros_like(state.energy))
        slope = dot(system.gradient, direction)
        flat = state.active & invisible(slope, state.energy)
        one = torch.ones_like(state.energy)
        moving = state.active & ~flat
        cut = shorten(objective, state.theta, state.energy, direction, slope, one, moving, self.trials)
        theta = advanced(state.theta, direction, cut.step)
        return replace(state, theta=theta, energy=cut.energy, stuck=~cut.found & ~flat, flat=flat)


def begin_without_gradient(name: str, objective: Objective, theta: Tensor) -> State:
    """The state at the start of a method that linearises by itself."""
    with torch.no_grad():
        energy = as_least_squares(name, objective).energy(theta)
    none = torch.zeros_like(energy, dtype=torch.bool)
    return State(theta, energy, ~none, none, none)
