"""Gradient descent with a line search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.optimization.algebra import advanced
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.descent import Descent, begin, first_step
from reg_bench.optimization.line_search import backtrack
from reg_bench.optimization.objective import Objective


@dataclass
class _Steps(Descent):
    """With the next step `(B,)`."""

    step: Tensor


class GradientDescent(Optimizer[_Steps]):
    """`theta <- theta - tau grad E`, thesis equations 2.38 to 2.40.

    The first step moves the fastest parameter of each case by `size`. With the line search (Armijo backtracking) every
    step lowers the energy, and the next search begins at `growth` times the step that was taken; without it `tau` stays
    as it is, and the best parameters met are returned.
    """

    def __init__(self, size: float = 1.0, line_search: bool = True, growth: float = 2.0, trials: int = 20) -> None:
        """
        Args:
            size: of the first step, in units of the parameters (voxels), above 0.
            line_search: whether steps are searched for.
            growth: at least 1.
            trials: most evaluations of a search.
        """
        if not size > 0 or not growth >= 1 or trials < 1:
            raise ValueError(
                f"GradientDescent: needs size > 0, growth >= 1 and trials >= 1, got {size}, {growth} and {trials}"
            )
        self.size, self.line_search, self.growth, self.trials = size, line_search, growth, trials

    @property
    def monotone(self) -> bool:
        return self.line_search

    def start(self, objective: Objective, theta: Tensor) -> _Steps:
        state = begin(objective, theta)
        return _Steps(**vars(state), step=first_step(state.gradient, self.size))

    def step(self, objective: Objective, state: _Steps) -> _Steps:
        if not self.line_search:
            theta = advanced(state.theta, -state.gradient, torch.where(state.active, state.step, 0))
            energy, gradient = objective.energy_and_gradient(theta)
            return replace(state, theta=theta, energy=energy, gradient=gradient)
        move = backtrack(objective, state.point, -state.gradient, state.step, state.active, self.trials)
        return replace(
            state,
            **vars(move.point),
            stuck=~move.found & ~move.flat,
            flat=move.flat,
            step=torch.where(move.found, self.growth * move.step, state.step),
        )
