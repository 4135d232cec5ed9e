"""Line search for the strong Wolfe conditions, each case with its own bracket."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot
from reg_bench.optimization.line_search import Move, Point, invisible, selected, sufficient
from reg_bench.optimization.objective import Objective

_FARTHEST = 10.0
_MARGIN = 0.01
_BISECT_AFTER = 5


@dataclass(frozen=True)
class _End:
    """One end of the bracket: the step with its energy and slope, all `(B,)`."""

    step: Tensor
    energy: Tensor
    slope: Tensor

    def moved(self, where: Tensor, to: _End) -> _End:
        pairs = ((to.step, self.step), (to.energy, self.energy), (to.slope, self.slope))
        return _End(*(torch.where(where, new, old) for new, old in pairs))


def wolfe(
    objective: Objective,
    start: Point,
    direction: Tensor,
    step: Tensor,
    active: Tensor,
    curvature: float = 0.9,
    trials: int = 12,
) -> Move:
    """A step with a sufficient decrease whose slope is at most `curvature` times that at the start.

    Nocedal & Wright, section 3.5. The bracket's lower end descends steeply and has the sufficient decrease; the upper
    end lacks it or ascends, so that the conditions hold somewhere between. The next trial is the zero of the secant
    of the slopes, exact for quadratic energies. Out of trials, the lowest point with a sufficient decrease is taken.

    Args:
        direction: `(B, *P)`; where it does not descend, nothing is found.
        step: `(B,)`, the first trial.
        active: `(B,)` bool, the cases to move.
        curvature: in (1e-4, 1): small for a nearly exact search.
        trials: most evaluations, each with its gradient.
    """
    slope = dot(start.gradient, direction)
    flat = active & invisible(step * slope, start.energy)
    searching = active & (slope < 0) & ~flat
    found, taken, point = torch.zeros_like(active), torch.zeros_like(step), start
    low = _End(torch.zeros_like(step), start.energy, slope)
    high = _End(torch.full_like(step, torch.inf), start.energy, slope)
    for trial in range(trials):
        if not bool(searching.any()):
            break
        here = start.along(direction, torch.where(searching, step, taken))
        new = Point(here, *objective.energy_and_gradient(here))
        end = _End(step, new.energy, dot(new.gradient, direction))
        lower = searching & end.slope.isfinite() & sufficient(end.energy, start.energy, step * slope)
        done = lower & (end.slope.abs() <= curvature * slope.abs())
        better = done | (lower & (new.energy < point.energy))
        point, taken, found = selected(better, new, point), torch.where(better, step, taken), found | better
        searching = searching & ~done
        up = searching & (~lower | (end.slope >= 0))
        following = _next(low, high, end, up, bisect=trial >= _BISECT_AFTER)
        low, high = low.moved(searching & ~up, end), high.moved(up, end)
        step = torch.where(searching, following, step)
    return Move(point, taken, found, flat)


def _next(low: _End, high: _End, end: _End, up: Tensor, bisect: bool) -> Tensor:
    """The next trial `(B,)` once `end` has become the upper end where `up`, else the lower one."""
    ahead = _extrapolated(low, end)
    low, high = low.moved(~up, end), high.moved(up, end)
    width = high.step - low.step
    inside = _halfway(low, width) if bisect else _interpolated(low, high, width)
    return torch.where(high.step.isinf(), ahead, inside)


def _halfway(low: _End, width: Tensor) -> Tensor:
    return low.step + width / 2


def _interpolated(low: _End, high: _End, width: Tensor) -> Tensor:
    """The minimum between two ends: by their slopes where these differ in sign, else by slope and energies."""
    secant = -low.slope / (high.slope - low.slope)
    parabola = -low.slope * width / (2 * (high.energy - low.energy - low.slope * width))
    share = torch.where(high.slope > 0, secant, parabola)
    # Far beyond a point without a finite energy little is known but that it is too far.
    share = torch.where(high.energy.isfinite() & share.isfinite(), share, torch.full_like(share, 0.1))
    return low.step + width * share.clamp(_MARGIN, 1 - _MARGIN)


def _extrapolated(low: _End, end: _End) -> Tensor:
    """Beyond a lower end: where the slope would vanish, at most ten times as far."""
    secant = end.step - end.slope * (end.step - low.step) / (end.slope - low.slope)
    farthest = _FARTHEST * end.step
    secant = torch.where((end.slope > low.slope) & secant.isfinite(), secant, farthest)
    return torch.minimum(torch.maximum(secant, (1 + _MARGIN) * end.step), farthest)
