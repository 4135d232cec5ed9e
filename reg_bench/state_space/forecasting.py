"""Prediction of states and observations."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.model import LinearGaussianModel


def forecast(model: LinearGaussianModel, mean: Tensor, covariance: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The states 1 .. `steps` times later, if nothing more is observed.

    Args:
        model: of `n` states.
        mean: `(B, n)`, now.
        covariance: `(B, n, n)`, or `(1, n, n)` or `(n, n)` if common to all, now.
        steps: at least 0.

    Returns:
        Means `(B, steps, n)` and covariances `(B, steps, n, n)`, a view where the covariance was common.

    Raises:
        ValueError: shapes that do not fit, or `steps < 0`.
    """
    n = model.states
    if steps < 0:
        raise ValueError(f"forecast: steps must be at least 0, got {steps}")
    if mean.ndim != 2 or mean.shape[1] != n or covariance.shape not in ((n, n), (1, n, n), (len(mean), n, n)):
        raise ValueError(
            f"forecast: expected a mean (B, {n}) and a covariance (B, {n}, {n}), "
            f"got {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    own = covariance[None] if covariance.ndim == 2 else covariance
    own = own[:1] if own.stride(0) == 0 else own
    means, covariances = [mean.new_zeros(0, *mean.shape)], [own.new_zeros(0, *own.shape)]
    with torch.autocast(mean.device.type, enabled=False):
        for _ in range(steps):
            mean = mean @ model.A.mT
            own = symmetric(model.A @ own @ model.A.mT + model.Q)
            means.append(mean[None])
            covariances.append(own[None])
    found = torch.cat(covariances).transpose(0, 1)
    return torch.cat(means).transpose(0, 1), found.expand(len(mean), -1, -1, -1)


def observe(model: LinearGaussianModel, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(..., p)` and covariance `(..., p, p)` of observations of states `(..., n)` and `(..., n, n)`."""
    with torch.autocast(mean.device.type, enabled=False):
        return mean @ model.C.mT, symmetric(model.C @ covariance @ model.C.mT + model.R)
