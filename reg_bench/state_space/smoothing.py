"""Rauch-Tung-Striebel smoother (thesis, Algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.state_space.filtering import Filtered
from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import spread
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.recurrence import covariance_recurrence, linear_recurrence, times
from reg_bench.state_space.scan import parallel_covariance_recurrence, parallel_recurrence


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The states given all observations of their sequence; groups as in `Filtered`.

    Attributes:
        mean: `(B, T, n)`.
        group_covariance: `(G, T, n, n)`.
        group_cross_covariance: `(G, T - 1, n, n)`.
        group: `(B,)` or `None`.
    """

    mean: Tensor
    group_covariance: Tensor
    group_cross_covariance: Tensor
    group: Tensor | None

    @property
    def covariance(self) -> Tensor:
        """`(B, T, n, n)`, of `z_t`."""
        return spread(self.group_covariance, self.group, len(self.mean))

    @property
    def cross_covariance(self) -> Tensor:
        """`(B, T - 1, n, n)`, entry `t` is `E[(z_{t+1} - m_{t+1}) (z_t - m_t)^T]`."""
        return spread(self.group_cross_covariance, self.group, len(self.mean))


@dataclass(frozen=True, eq=False)
class BackwardKernel:
    """`z_t` given `z_{t+1}` and `y_1 .. y_t`: `N(m_t + G_t (z_{t+1} - A m_t), D_t)` with `m_t` filtered.

    By it the posterior factorises backwards in time (thesis, equation A.7).

    Attributes:
        gain: `(G, T - 1, n, n)`, `G_t`.
        covariance: `(G, T - 1, n, n)`, `D_t = (I - G A) P (I - G A)^T + G Q G^T`, positive by construction.
    """

    gain: Tensor
    covariance: Tensor


def backward_kernel(model: LinearGaussianModel, filtered: Filtered) -> BackwardKernel:
    """The kernel of every group and time but the last."""
    known, ahead = filtered.group_covariance[:, :-1], filtered.group_predicted_covariance[:, 1:]
    across = model.A @ known
    lower, info = torch.linalg.cholesky_ex(ahead)
    if bool(info.any()):
        # Without noise in the transition, states may be known exactly.
        gain = (torch.linalg.pinv(ahead, hermitian=True) @ across).mT
    else:
        gain = torch.cholesky_solve(across, lower).mT
    keep = torch.eye(model.states, dtype=gain.dtype, device=gain.device) - gain @ model.A
    return BackwardKernel(gain, symmetric(keep @ known @ keep.mT + gain @ model.Q @ gain.mT))


def rts_smoother(model: LinearGaussianModel, filtered: Filtered, *, parallel: bool = False) -> Smoothed:
    """Smooths what `kalman_filter` found with the same model; `parallel` as there."""
    with torch.autocast(filtered.mean.device.type, enabled=False):
        kernel = backward_kernel(model, filtered)
        last, gain = filtered.group_covariance[:, -1], kernel.gain.flip(1)
        along = parallel_covariance_recurrence if parallel else covariance_recurrence
        covariance = symmetric(along(gain, last, kernel.covariance.flip(1)).flip(1))
        inputs = filtered.mean[:, :-1] - times(kernel.gain, filtered.predicted_mean[:, 1:], filtered.group)
        forward = parallel_recurrence if parallel else linear_recurrence
        mean = forward(gain, filtered.mean[:, -1], inputs.flip(1), filtered.group).flip(1)
        return Smoothed(mean, covariance, covariance[:, 1:] @ kernel.gain.mT, filtered.group)
