"""L-BFGS: quasi-Newton for any number of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, per_case
from reg_bench.optimization.base import Optimizer
from reg_bench.optimization.descent import Descent, begin, descend, first_step
from reg_bench.optimization.objective import Objective
from reg_bench.optimization.quasi_newton import check_search, curved
from reg_bench.optimization.wolfe import wolfe


@dataclass(frozen=True)
class Pair:
    """A move `s (B, *P)`, its change of gradient `y (B, *P)` and `1 / s^T y (B,)`, 0 where the pair is not used."""

    s: Tensor
    y: Tensor
    rho: Tensor


@dataclass
class _Memory(Descent):
    """With the last pairs, newest last, and the scale `(B,)` of the initial inverse Hessian, 0 before any."""

    pairs: list[Pair]
    scale: Tensor


class LBFGS(Optimizer[_Memory]):
    """Limited-memory BFGS by the two-loop recursion, strong Wolfe search: Nocedal & Wright, algorithms 7.4 and 7.5.

    Pairs without positive curvature are skipped, case by case; a search that fails forgets the case's pairs.
    """

    def __init__(self, memory: int = 10, size: float = 1.0, curvature: float = 0.9, trials: int = 12) -> None:
        """
        Args:
            memory: number of pairs, each of which costs twice the size of the parameters, at least 1.
            size: of the first step, in units of the parameters (voxels), above 0.
            curvature: in (1e-4, 1): the slope left at the end of a search, as a share of that at its start.
            trials: most evaluations of a search.
        """
        check_search("LBFGS", size, curvature, trials)
        if memory < 1:
            raise ValueError(f"LBFGS: memory must be at least 1, got {memory}")
        self.memory, self.size, self.curvature, self.trials = memory, size, curvature, trials

    def start(self, objective: Objective, theta: Tensor) -> _Memory:
        state = begin(objective, theta)
        return _Memory(**vars(state), pairs=[], scale=torch.zeros_like(state.energy, dtype=theta.dtype))

    def step(self, objective: Objective, state: _Memory) -> _Memory:
        fallback = first_step(state.gradient, self.size)
        fresh = state.scale == 0
        direction = -two_loop(state.gradient, state.pairs, torch.where(fresh, torch.ones_like(fallback), state.scale))
        step = torch.where(fresh, fallback, torch.ones_like(fallback))
        search = partial(wolfe, objective, curvature=self.curvature, trials=self.trials)
        move, restarted = descend(search, state, direction, step, fallback)
        pairs, scale = state.pairs, state.scale
        if bool(restarted.any()):
            pairs = [replace(p, rho=torch.where(restarted, 0, p.rho)) for p in pairs]
            scale = torch.where(restarted, 0, scale)
        s, y = move.point.theta - state.theta, move.point.gradient - state.gradient
        usable, product = move.found & curved(s, y), dot(s, y)
        pair = Pair(s, y, torch.where(usable, 1 / product, 0))
        return replace(
            state,
            **vars(move.point),
            stuck=~move.found & ~move.flat,
            flat=move.flat,
            pairs=[*pairs, pair][-self.memory :],
            scale=torch.where(usable, product / dot(y, y), scale),
        )


def two_loop(gradient: Tensor, pairs: list[Pair], scale: Tensor) -> Tensor:
    """The product of the inverse Hessian that the pairs describe with a gradient `(B, *P)`.

    Args:
        pairs: oldest first.
        scale: `(B,)`, the multiple of the identity that the pairs update.
    """
    q, shares = gradient.clone(), []
    for pair in reversed(pairs):
        share = pair.rho * dot(pair.s, q)
        q.addcmul_(per_case(share, q), pair.y, value=-1)
        shares.append(share)
    q.mul_(per_case(scale, q))
    for pair, share in zip(pairs, reversed(shares), strict=True):
        q.addcmul_(per_case(share - pair.rho * dot(pair.y, q), q), pair.s)
    return q
