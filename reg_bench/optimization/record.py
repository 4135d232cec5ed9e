"""When to stop, and what happened until then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

ITERATIONS, CONVERGED, NO_DESCENT = "iterations", "converged", "no descent"


@dataclass(frozen=True)
class Stopping:
    """One rule for every optimizer, applied case by case.

    Attributes:
        iterations: most steps, at least 0.
        tolerance: a case has converged when its best energy fell by at most `tolerance` times its magnitude during the
            last `patience` iterations; 0 waits until it does not fall at all.
        patience: at least 1; more than `iterations` switches the rule off.
    """

    iterations: int = 100
    tolerance: float = 1e-4
    patience: int = 5

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.patience < 1 or not self.tolerance >= 0:
            raise ValueError(
                "Stopping: needs iterations >= 0, patience >= 1 and tolerance >= 0, got "
                f"{self.iterations}, {self.patience} and {self.tolerance}"
            )

    def converged(self, best: list[Tensor]) -> Tensor:
        """Which cases have converged, `(B,)` bool.

        Args:
            best: the lowest energy so far `(B,)`, after each iteration; the first is the start.
        """
        if len(best) <= self.patience:
            return torch.zeros_like(best[-1], dtype=torch.bool)
        before, now = best[-1 - self.patience], best[-1]
        return before - now <= self.tolerance * torch.maximum(before.abs(), now.abs())


@dataclass
class Record:
    """The course of a minimisation.

    Attributes:
        energies: `(B,)` per iteration; the first is the start. A case that has stopped keeps its last value.
        seconds: wall time since the start, one per entry of `energies`.
        reason: per case why it stopped: `iterations`, `converged`, or `no descent` (no finite lower energy along the
            direction, or none at the start).
        steps: per case the number of iterations until it stopped.
    """

    energies: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """One row per case and iteration until it stopped: `case, iteration, energy, seconds`."""
        columns = torch.stack(self.energies, dim=1).double().cpu().tolist()
        return [
            {"case": case, "iteration": k, "energy": energies[k], "seconds": self.seconds[k]}
            for case, energies in enumerate(columns)
            for k in range(self.steps[case] + 1)
        ]
