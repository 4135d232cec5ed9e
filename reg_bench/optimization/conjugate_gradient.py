"""Nonlinear conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, per_case
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.descent import Descent, begin, descend, first_step
from reg_bench.optimization.objective import Objective
from reg_bench.optimization.wolfe import wolfe


@dataclass
class _Conjugate(Descent):
    """With the direction `(B, *P)` to go next and the step `(B,)` to try along it."""

    direction: Tensor
    step: Tensor


class ConjugateGradient(Optimizer[_Conjugate]):
    """Polak–Ribière+ with a nearly exact line search: Nocedal & Wright, section 5.2; thesis section 2.4.1.

    A negative coefficient, a direction that hardly descends or a search that fails restart from the negative gradient.
    With an exact search a quadratic energy of n parameters is minimised in n steps.
    """

    def __init__(self, size: float = 1.0, curvature: float = 0.1, trials: int = 12) -> None:
        """
        Args:
            size: of the first step, in units of the parameters (voxels), above 0.
            curvature: in (0, 0.5): the slope left at the end of a search, as a share of that at its start.
            trials: most evaluations of a search.
        """
        if not size > 0 or not 0 < curvature < 0.5 or trials < 1:
            raise ValueError(
                "ConjugateGradient: needs size > 0, curvature in (0, 0.5) and trials >= 1, got "
                f"{size}, {curvature} and {trials}"
            )
        self.size, self.curvature, self.trials = size, curvature, trials

    def start(self, objective: Objective, theta: Tensor) -> _Conjugate:
        state = begin(objective, theta)
        return _Conjugate(**vars(state), direction=-state.gradient, step=first_step(state.gradient, self.size))

    def step(self, objective: Objective, state: _Conjugate) -> _Conjugate:
        search = partial(wolfe, objective, curvature=self.curvature, trials=self.trials)
        fallback = first_step(state.gradient, self.size)
        move, restarted = descend(search, state, state.direction, state.step, fallback)
        gradient = move.point.gradient
        change = dot(gradient, gradient - state.gradient) / dot(state.gradient, state.gradient)
        beta = torch.where(change.isfinite(), change.clamp(min=0), torch.zeros_like(change))
        old = torch.where(per_case(restarted, gradient), -state.gradient, state.direction)
        direction = torch.addcmul(-gradient, per_case(beta, gradient), old)
        # The next step promises the decrease of the last one.
        step = move.step * dot(state.gradient, old) / dot(gradient, direction)
        step = torch.where(step.isfinite() & (step > 0), step, first_step(gradient, self.size))
        return replace(
            state,
            **vars(move.point),
            stuck=~move.found & ~move.flat,
            flat=move.flat,
            direction=direction,
            step=step,
        )
