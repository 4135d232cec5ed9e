"""What BFGS and DFP share: a dense inverse Hessian per case and the step along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot, norm
from reg_bench.optimization.descent import Descent, begin, descend, first_step
from reg_bench.optimization.objective import Objective
from reg_bench.optimization.wolfe import wolfe

Update = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the inverse Hessian `(B, P, P)`, the move `s (B, P)` and the change of gradient `y (B, P)` to the next one."""

_CURVED = 1e-10


@dataclass
class DenseNewton(Descent):
    """With the inverse Hessian `(B, P, P)` and where `(B,)` it is still none."""

    inverse: Tensor
    fresh: Tensor


def curved(s: Tensor, y: Tensor) -> Tensor:
    """Where `(B,)` the pair has positive curvature, without which no update is positive definite."""
    return dot(s, y) > _CURVED * norm(s) * norm(y)


def check_search(name: str, size: float, curvature: float, trials: int) -> None:
    """Raises `ValueError` for options that no search can use."""
    if not size > 0 or not 1e-4 < curvature < 1 or trials < 1:
        raise ValueError(
            f"{name}: needs size > 0, curvature in (1e-4, 1) and trials >= 1, got {size}, {curvature} and {trials}"
        )


def start_dense(name: str, objective: Objective, theta: Tensor, limit: int) -> DenseNewton:
    """The state at the start, with the identity as the inverse Hessian.

    Raises:
        ValueError: more than `limit` parameters per case.
    """
    count = theta[0].numel()
    if count > limit:
        raise ValueError(
            f"{name}: takes at most {limit} parameters per case, got {count}: "
            f"its matrix would hold {count**2} numbers; use LBFGS"
        )
    state = begin(objective, theta)
    inverse = torch.eye(count, dtype=theta.dtype, device=theta.device).repeat(theta.shape[0], 1, 1)
    return DenseNewton(**vars(state), inverse=inverse, fresh=torch.ones_like(state.active))


def step_dense(
    objective: Objective, state: DenseNewton, update: Update, size: float, curvature: float, trials: int
) -> DenseNewton:
    """A search along `-H g` and the update of `H` with what it met."""
    direction = -(state.inverse @ state.gradient.flatten(1)[..., None])[..., 0].reshape(state.theta.shape)
    fallback = first_step(state.gradient, size)
    search = partial(wolfe, objective, curvature=curvature, trials=trials)
    step = torch.where(state.fresh, fallback, torch.ones_like(fallback))
    move, restarted = descend(search, state, direction, step, fallback)
    s = (move.point.theta - state.theta).flatten(1)
    y = (move.point.gradient - state.gradient).flatten(1)
    fresh, usable = state.fresh | restarted, move.found & curved(s, y)
    # Before the first update the identity takes the scale of the curvature just met: Nocedal & Wright, equation 6.20.
    scale = torch.where(usable, dot(s, y) / dot(y, y), torch.ones_like(step))
    identity = torch.eye(s.shape[1], dtype=s.dtype, device=s.device) * scale[:, None, None]
    inverse = torch.where(fresh[:, None, None], identity, state.inverse)
    return replace(
        state,
        **vars(move.point),
        stuck=~move.found & ~move.flat,
        flat=move.flat,
        inverse=torch.where(usable[:, None, None], update(inverse, s, y), inverse),
        fresh=fresh & ~usable,
    )
