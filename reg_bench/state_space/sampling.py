"""Sequences drawn from the model, and states drawn given the observations."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.state_space.filtering import Filtered
from reg_bench.state_space.gaussian import factor
from reg_bench.state_space.groups import spread, unfolded
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.recurrence import linear_recurrence, times
from reg_bench.state_space.smoothing import backward_kernel


def sample_prior(
    model: LinearGaussianModel, count: int, length: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`count` sequences of `length` drawn from the model; differentiable in its parameters.

    Returns:
        States `(count, T, n)` and observations `(count, T, p)`; `(count, B, T, n)` and `(count, B, T, p)` of a model
        whose first state is of each of `B` sequences its own.

    Raises:
        ValueError: a count or length below 1.
    """
    if count < 1 or length < 1:
        raise ValueError(f"sample_prior: count and length must be at least 1, got {count} and {length}")
    own = model.sequences
    leading = (count,) if own is None else (count, own)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*leading, *shape, dtype=model.A.dtype, device=model.A.device, generator=generator)

    with torch.autocast(model.A.device.type, enabled=False):
        start = model.mean + (factor(model.covariance) @ draw(model.states)[..., None])[..., 0]
        noise = draw(length - 1, model.states) @ factor(model.Q).mT
        start = start.reshape(-1, model.states)
        states = linear_recurrence(model.A[None, None], (0,) * (length - 1), start, noise.flatten(0, -3), None)
        states = states.reshape(*leading, length, model.states)
        return states, states @ model.C.mT + draw(length, model.observations) @ factor(model.R).mT


def sample_posterior(
    model: LinearGaussianModel, filtered: Filtered, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """`count` draws `(count, B, T, n)` of all states of a sequence together, given its observations.

    Backwards in time: the last from the filter, the others by the backward kernel. Differentiable.
    """
    batch, length, n = filtered.mean.shape
    noise = torch.randn(
        count, batch, length, n, dtype=filtered.mean.dtype, device=filtered.mean.device, generator=generator
    )
    with torch.autocast(noise.device.type, enabled=False):
        kernel = backward_kernel(model, filtered)
        scale = factor(torch.cat([unfolded(kernel.covariance, kernel.place), filtered.last_covariance[:, None]], dim=1))
        noise = (spread(scale, filtered.group, batch) @ noise[..., None])[..., 0]
        last = (filtered.mean[:, -1] + noise[:, :, -1]).flatten(0, 1)
        free = filtered.mean[:, :-1] - times(kernel.gain, kernel.place, filtered.predicted_mean[:, 1:], filtered.group)
        inputs = (free + noise[:, :, :-1]).flatten(0, 1).flip(1)
        index = filtered.group
        if index is None and len(kernel.gain) > 1:
            index = torch.arange(batch, device=noise.device)
        index = None if index is None else index.repeat(count)
        return (
            linear_recurrence(kernel.gain, kernel.place[::-1], last, inputs, index)
            .flip(1)
            .reshape(count, batch, length, n)
        )
