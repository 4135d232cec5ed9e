"""What every optimizer is: one loop, one stopping rule and one record; subclasses supply a step."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor
from typing_extensions import TypeVar

from reg_bench.optimization.algebra import per_case
from reg_bench.optimization.objective import LeastSquares, Objective, check_energy
from reg_bench.optimization.record import CONVERGED, ITERATIONS, NO_DESCENT, Record, Stopping

__all__ = ["LeastSquares", "Objective", "Optimizer", "Record", "State", "Stopping"]


@dataclass
class State:
    """Where a minimisation stands; subclasses add what they remember.

    Attributes:
        theta: `(B, *P)`.
        energy: its energy, `(B,)`.
        active: `(B,)` bool, the cases that still move. What a step computes for the others is thrown away.
        stuck: `(B,)` bool, cases for which the last step found no descent.
        flat: `(B,)` bool, cases whose descent is below rounding: nothing is left to gain.
    """

    theta: Tensor
    energy: Tensor
    active: Tensor
    stuck: Tensor
    flat: Tensor


# With a default, `Optimizer` alone stands for any of them, also where a configuration is parsed.
S = TypeVar("S", bound=State, default=Any)


class Optimizer(ABC, Generic[S]):
    """A minimiser of an energy per case. Each case of a batch comes out as if alone.

    A monotone optimizer accepts no step that raises the energy; of another one the best parameters met are returned.
    Both never return anything worse than the start.
    """

    @property
    def monotone(self) -> bool:
        """Whether the energy never rises from one step to the next."""
        return True

    @abstractmethod
    def start(self, objective: Objective, theta: Tensor) -> S:
        """The state at `theta (B, *P)`.

        Raises:
            ValueError: an objective or number of parameters that the optimizer cannot take.
        """

    @abstractmethod
    def step(self, objective: Objective, state: S) -> S:
        """The state after one iteration of the active cases."""

    def minimise(self, objective: Objective, theta: Tensor, stopping: Stopping | None = None) -> tuple[Tensor, Record]:
        """Lowers the energy until every case has stopped.

        Args:
            objective: what to minimise.
            theta: `(B, *P)` floating point, the start.
            stopping: the rule; `None` takes its defaults.

        Returns:
            the parameters `(B, *P)`, detached, and the record. A case whose energy is not finite at the start is
            returned unchanged, its reason `no descent`.

        Raises:
            ValueError: parameters or energies of a wrong shape.
        """
        stopping = stopping or Stopping()
        if theta.ndim < 2 or not theta.is_floating_point():
            raise ValueError(f"minimise: theta must be floating point (B, *P), got {theta.dtype} {tuple(theta.shape)}")
        clock = time.perf_counter()
        state = self.start(objective, theta.detach().clone())
        check_energy(state.energy, theta)
        progress = _Progress(state, keep_best=not self.monotone)
        for _ in range(stopping.iterations):
            if not bool(state.active.any()):
                break
            state = progress.after(self._frozen(state, self.step(objective, state)), stopping, clock)
        return (state.theta if self.monotone else progress.theta), progress.record

    @staticmethod
    def _frozen(old: S, new: S) -> S:
        """The new state with the parameters of cases that do not move, or met no finite energy, taken from the old."""
        stuck = new.stuck | (old.active & ~new.energy.isfinite())
        moves = old.active & ~stuck
        if bool(moves.all()):
            return replace(new, active=old.active, stuck=stuck)
        theta = torch.where(per_case(moves, new.theta), new.theta, old.theta)
        energy = torch.where(moves, new.energy, old.energy)
        return replace(new, theta=theta, energy=energy, active=old.active, stuck=stuck)


class _Progress:
    """The record of a running minimisation, its best energies and the parameters that had them."""

    def __init__(self, state: State, keep_best: bool) -> None:
        finite = state.energy.isfinite()
        state.active &= finite
        self.record = Record([state.energy], [0.0], [ITERATIONS if ok else NO_DESCENT for ok in finite.tolist()])
        self.record.steps = [0] * len(self.record.reason)
        self.best = [state.energy]
        self.theta, self.keep_best = state.theta, keep_best

    def after(self, state: S, stopping: Stopping, clock: float) -> S:
        """Takes down an iteration and stops the cases that are done."""
        better = state.energy < self.best[-1]
        if self.keep_best:
            self.theta = torch.where(per_case(better, state.theta), state.theta, self.theta)
        self.best.append(torch.where(better, state.energy, self.best[-1]))
        self.record.energies.append(state.energy)
        self.record.seconds.append(time.perf_counter() - clock)
        converged = stopping.converged(self.best) | state.flat
        fates = zip(state.active.tolist(), state.stuck.tolist(), converged.tolist(), strict=True)
        for case, (active, stuck, done) in enumerate(fates):
            if active:
                self.record.steps[case] += 1
                self.record.reason[case] = NO_DESCENT if stuck else CONVERGED if done else ITERATIONS
        return replace(state, active=state.active & ~state.stuck & ~converged)
