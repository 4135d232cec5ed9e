"""Joint densities of states and observations (thesis, equations 3.4 and A.7)."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.state_space.filtering import Filtered
from reg_bench.state_space.gaussian import log_density
from reg_bench.state_space.groups import checked, spread, unfolded
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.recurrence import times
from reg_bench.state_space.smoothing import backward_kernel


def joint_log_density(model: LinearGaussianModel, states: Tensor, y: Tensor, observed: Tensor | None = None) -> Tensor:
    """`log p(y, z)`, `(B,)`: first state, transitions and observations.

    Args:
        model: of `n` states and `p` observations.
        states: `(B, T, n)`.
        y: `(B, T, p)`.
        observed: `(B, T)` bool; what is not observed does not count.
    """
    checked(model, y, observed)
    if observed is not None:
        y = torch.where(observed[..., None], y, torch.zeros_like(y))
    first = log_density(states[:, 0], model.mean, model.covariance)
    steps = log_density(states[:, 1:], states[:, :-1] @ model.A.mT, model.Q)
    seen = log_density(y, states @ model.C.mT, model.R)
    if observed is not None:
        seen = torch.where(observed, seen, torch.zeros_like(seen))
    return first + steps.sum(dim=1) + seen.sum(dim=1)


def posterior_log_density(model: LinearGaussianModel, filtered: Filtered, states: Tensor) -> Tensor:
    """`log p(z | y)`, `(B,)`, of `states (B, T, n)` together, by its backward factorisation.

    `joint_log_density` less this is the likelihood of the observations, whatever the states.
    """
    kernel = backward_kernel(model, filtered)
    last = log_density(
        states[:, -1], filtered.mean[:, -1], spread(filtered.last_covariance, filtered.group, len(states))
    )
    off = states[:, 1:] - filtered.predicted_mean[:, 1:]
    mean = filtered.mean[:, :-1] + times(kernel.gain, kernel.place, off, filtered.group)
    covariance = spread(unfolded(kernel.covariance, kernel.place), filtered.group, len(states))
    return last + log_density(states[:, :-1], mean, covariance).sum(dim=1)
