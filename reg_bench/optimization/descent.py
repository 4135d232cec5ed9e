"""What methods of descent share: their state, and a search that falls back on the steepest direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, largest, norm, per_case
from reg_bench.optimization.base import State
from reg_bench.optimization.line_search import Move, Point
from reg_bench.optimization.objective import Objective

Search = Callable[[Point, Tensor, Tensor, Tensor], Move]
"""From a point, a direction `(B, *P)`, first steps `(B,)` and the cases to move `(B,)` to the end of the search."""

_STEEP = 1e-4
"""Smallest cosine between a direction and the negative gradient that still counts as descent."""


@dataclass
class Descent(State):
    """A state with the gradient `(B, *P)` at `theta`."""

    gradient: Tensor

    @property
    def point(self) -> Point:
        return Point(self.theta, self.energy, self.gradient)


def begin(objective: Objective, theta: Tensor) -> Descent:
    """The state at the start."""
    energy, gradient = objective.energy_and_gradient(theta)
    none = torch.zeros_like(energy, dtype=torch.bool)
    return Descent(theta, energy, ~none, none, none, gradient)


def first_step(gradient: Tensor, size: float) -> Tensor:
    """The step `(B,)` along the negative gradient that moves the fastest parameter of a case by `size`."""
    top = largest(gradient)
    return torch.where(top > 0, size / top, torch.zeros_like(top))


def descend(search: Search, state: Descent, direction: Tensor, step: Tensor, fallback: Tensor) -> tuple[Move, Tensor]:
    """Searches along a direction and, for the cases where it fails, along the negative gradient.

    Args:
        search: the line search.
        direction: `(B, *P)`; where it hardly descends, the negative gradient takes its place at once.
        step: `(B,)`, the first trial along it.
        fallback: `(B,)`, the first trial along the negative gradient.

    Returns:
        the move, and where `(B,)` it went along the negative gradient: what was remembered is to be forgotten.
    """
    steepest = -state.gradient
    slope = dot(direction, steepest)
    poor = ~(slope > _STEEP * norm(direction) * norm(steepest))
    direction = torch.where(per_case(poor, direction), steepest, direction)
    move = search(state.point, direction, torch.where(poor, fallback, step), state.active)
    failed = state.active & ~move.found & ~move.flat & ~poor
    if not bool(failed.any()):
        return move, poor
    again = search(state.point, steepest, fallback, failed)
    point = Point(
        torch.where(per_case(failed, direction), again.point.theta, move.point.theta),
        torch.where(failed, again.point.energy, move.point.energy),
        torch.where(per_case(failed, direction), again.point.gradient, move.point.gradient),
    )
    choose = ((again.step, move.step), (again.found, move.found), (again.flat, move.flat))
    return Move(point, *(torch.where(failed, new, old) for new, old in choose)), poor | failed
