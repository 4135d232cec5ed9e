"""Steps along a direction, each case with its own: what a search starts from and returns, and Armijo backtracking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.optimization.algebra import advanced, dot, per_case
from reg_bench.optimization.objective import Objective

SUFFICIENT = 1e-4
"""The share of the decrease that the slope promises which a step must reach: Nocedal & Wright, section 3.1."""


@dataclass(frozen=True)
class Point:
    """Parameters `theta (B, *P)` with their energy `(B,)` and gradient `(B, *P)`."""

    theta: Tensor
    energy: Tensor
    gradient: Tensor

    def along(self, direction: Tensor, step: Tensor) -> Tensor:
        return advanced(self.theta, direction, step)


@dataclass(frozen=True)
class Move:
    """The end of a line search.

    Attributes:
        point: where the cases are now; a case without a lower energy is where it was.
        step: `(B,)`, 0 where a case did not move.
        found: `(B,)` bool, cases with a sufficient decrease.
        flat: `(B,)` bool, cases whose promised decrease is below rounding of the energy.
    """

    point: Point
    step: Tensor
    found: Tensor
    flat: Tensor


def invisible(decrease: Tensor, energy: Tensor) -> Tensor:
    """Where a decrease `(B,)` would be lost in the rounding of `energy (B,)`."""
    return decrease.abs() <= torch.finfo(energy.dtype).eps * energy.abs()


def selected(where: Tensor, new: Point, old: Point) -> Point:
    """The new point for the cases `where (B,)`, the old one for the others."""
    if bool(where.all()):
        return new
    wide = per_case(where, new.theta)
    return Point(
        torch.where(wide, new.theta, old.theta),
        torch.where(where, new.energy, old.energy),
        torch.where(wide, new.gradient, old.gradient),
    )


def backtrack(
    objective: Objective, start: Point, direction: Tensor, step: Tensor, active: Tensor, trials: int = 20
) -> Move:
    """Armijo backtracking: the first step of a shrinking sequence with a sufficient decrease.

    The first trial is evaluated with its gradient, since it is mostly taken; the others cost an energy each and a
    gradient at the end.

    Args:
        direction: `(B, *P)`; where it does not descend, nothing is found.
        step: `(B,)`, the first trial.
        active: `(B,)` bool, the cases to move.
        trials: most evaluations.
    """
    slope = dot(start.gradient, direction)
    flat = active & invisible(step * slope, start.energy)
    searching = active & (slope < 0) & ~flat
    if not bool(searching.any()):
        return Move(start, torch.zeros_like(step), torch.zeros_like(active), flat)
    here = start.along(direction, torch.where(searching, step, torch.zeros_like(step)))
    new = Point(here, *objective.energy_and_gradient(here))
    good = searching & sufficient(new.energy, start.energy, step * slope)
    searching = searching & ~good
    if bool(searching.any()):
        shorter = shrunk(step, slope, new.energy - start.energy)
        cut = shorten(objective, start.theta, start.energy, direction, slope, shorter, searching, trials - 1)
        step = torch.where(good, step, cut.step)
        here = start.along(direction, torch.where(good | cut.found, step, torch.zeros_like(step)))
        # The energy that was accepted, not that of another evaluation with other rounding: the record never rises.
        energy = torch.where(good, new.energy, cut.energy)
        good = good | cut.found
        if bool(cut.found.any()):
            new = Point(here, energy, objective.energy_and_gradient(here)[1])
    return Move(selected(good, new, start), torch.where(good, step, torch.zeros_like(step)), good, flat)


@dataclass(frozen=True)
class Cut:
    """The end of a backtracking without gradients, all `(B,)`: the step, its energy, and where it is sufficient."""

    step: Tensor
    energy: Tensor
    found: Tensor


def shorten(
    objective: Objective,
    theta: Tensor,
    energy: Tensor,
    direction: Tensor,
    slope: Tensor,
    step: Tensor,
    active: Tensor,
    trials: int,
) -> Cut:
    """Backtracking from `theta (B, *P)` by energies alone.

    A rejected step shrinks to the minimum of the parabola through what is known, within a tenth and a half. An energy
    that is not finite is no descent. A search ends where the promised decrease drowns in rounding.

    Args:
        energy, slope, step, active: `(B,)`: at `theta`; along `direction (B, *P)`; the first trial; the cases to move.
        trials: most evaluations.
    """
    found, taken, reached = torch.zeros_like(active), torch.zeros_like(step), energy
    searching = active & (slope < 0)
    for _ in range(trials):
        if not bool(searching.any()):
            break
        with torch.no_grad():
            value = objective.energy(advanced(theta, direction, torch.where(searching, step, taken)))
        good = searching & sufficient(value, energy, step * slope)
        found, taken, reached = found | good, torch.where(good, step, taken), torch.where(good, value, reached)
        step = torch.where(searching & ~good, shrunk(step, slope, value - energy), step)
        searching = searching & ~good & ~invisible(step * slope, energy)
    return Cut(taken, reached, found)


def sufficient(value: Tensor, energy: Tensor, promised: Tensor) -> Tensor:
    """Armijo's condition, `(B,)` bool: finite, and lower by a share of the `promised` (negative) change."""
    return value.isfinite() & (value <= energy + SUFFICIENT * promised)


def shrunk(step: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
    """The next trial after a rejected `step (B,)` whose energy rose by `rise (B,)`."""
    parabola = -slope * step.square() / (2 * (rise - slope * step))
    parabola = torch.where(rise.isfinite() & parabola.isfinite(), parabola, 0.1 * step)
    return torch.minimum(torch.maximum(parabola, 0.1 * step), 0.5 * step)
