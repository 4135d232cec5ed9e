"""Rauch-Tung-Striebel smoother (thesis, Algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.state_space.filtering import Filtered
from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import spread, unfolded
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.recurrence import covariance_recurrence, linear_recurrence, times
from reg_bench.state_space.scan import parallel_covariance_recurrence, parallel_recurrence
from reg_bench.state_space.settling import Settling, needs_gradient


@dataclass(frozen=True, eq=False)
class Gain:
    """What the smoother takes back from later states.

    Attributes:
        matrix: `(G, U, n, n)`, `G_t = P_{t|t} A^T P_{t+1|t}^-1`, the different ones.
        kept: `(G, U, n, n)`, `(I - G A) P_{t|t} (I - G A)^T`.
        place: of all times but the last among the `U`.
    """

    matrix: Tensor
    kept: Tensor
    place: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The states given all observations of their sequence; groups as in `Filtered`.

    Attributes:
        mean: `(B, T, n)`.
        group_covariance: `(G, U, n, n)`, the different ones.
        place: of all times among the `U`.
        gain: of every group and time, see `Gain`.
        group: `(B,)` or `None`.
    """

    mean: Tensor
    group_covariance: Tensor
    place: tuple[int, ...]
    gain: Gain
    group: Tensor | None

    @property
    def covariance(self) -> Tensor:
        """`(B, T, n, n)`, of `z_t`."""
        return spread(unfolded(self.group_covariance, self.place), self.group, len(self.mean))

    @property
    def cross_covariance(self) -> Tensor:
        """`(B, T - 1, n, n)`, entry `t` is `E[(z_{t+1} - m_{t+1}) (z_t - m_t)^T]`."""
        later = unfolded(self.group_covariance, self.place)[:, 1:]
        return spread(later @ unfolded(self.gain.matrix, self.gain.place).mT, self.group, len(self.mean))


@dataclass(frozen=True, eq=False)
class BackwardKernel:
    """`z_t` given `z_{t+1}` and `y_1 .. y_t`: `N(m_t + G_t (z_{t+1} - A m_t), D_t)` with `m_t` filtered.

    By it the posterior factorises backwards in time (thesis, equation A.7).

    Attributes:
        gain: `(G, U, n, n)`, `G_t`, the different ones.
        covariance: `(G, U, n, n)`, `D_t = (I - G A) P (I - G A)^T + G Q G^T`, positive by construction.
        place: of all times but the last among the `U`.
    """

    gain: Tensor
    covariance: Tensor
    place: tuple[int, ...]


def smoother_gain(model: LinearGaussianModel, filtered: Filtered) -> Gain:
    """The gains of what `kalman_filter` found with the same model, in the type of its covariances or in float64."""
    found, place = filtered.covariances, filtered.covariances.place[:-1]
    count = max(place, default=-1) + 1
    next_place = [filtered.covariances.place[place.index(k) + 1] for k in range(count)]
    known, ahead = found.filtered[:, :count], found.predicted[:, next_place]
    inverse = _inverse(ahead)
    if inverse is None and ahead.dtype != torch.float64:
        known, ahead = known.double(), ahead.double()
        inverse = _inverse(ahead)
    if inverse is None:
        # Without noise in the transition, states may be known exactly.
        inverse = torch.linalg.pinv(ahead, rtol=torch.finfo(ahead.dtype).eps ** 0.5, hermitian=True)
    A = model.A.to(known.dtype)
    gain = (known @ A.mT) @ inverse
    keep = torch.eye(model.states, dtype=gain.dtype, device=gain.device) - gain @ A
    return Gain(gain, keep @ known @ keep.mT, place)


def _inverse(covariance: Tensor) -> Tensor | None:
    """Of matrices `(G, U, n, n)`, or `None` where one is singular up to rounding errors."""
    lower, info = torch.linalg.cholesky_ex(covariance)
    pivots = lower.detach().diagonal(dim1=-2, dim2=-1).square()
    least = 10 * torch.finfo(covariance.dtype).eps * pivots.amax(dim=-1)
    if bool((info.bool() | (pivots.amin(dim=-1) < least)).any()):
        return None
    return torch.cholesky_inverse(lower)


def backward_kernel(model: LinearGaussianModel, filtered: Filtered) -> BackwardKernel:
    """The kernel of every group and time but the last."""
    gain = smoother_gain(model, filtered)
    matrix, dtype = gain.matrix, filtered.mean.dtype
    covariance = symmetric(gain.kept + matrix @ model.Q.to(matrix.dtype) @ matrix.mT)
    return BackwardKernel(matrix.to(dtype), covariance.to(dtype), gain.place)


def rts_smoother(model: LinearGaussianModel, filtered: Filtered, *, parallel: bool = False) -> Smoothed:
    """Smooths what `kalman_filter` found with the same model; `parallel` as there.

    The covariances are sums of positive terms too: `P_t = (I - G A) P (I - G A)^T + G (Q + P_{t+1}) G^T`.
    """
    with torch.autocast(filtered.mean.device.type, enabled=False):
        gain = smoother_gain(model, filtered)
        backwards, dtype = gain.place[::-1], filtered.mean.dtype
        last = filtered.covariances.filtered[:, filtered.covariances.place[-1]].to(gain.matrix.dtype)
        Q = model.Q.to(last.dtype)
        settling = None if needs_gradient(model) else Settling(last.dtype)
        if parallel:
            noise = gain.kept + gain.matrix @ Q @ gain.matrix.mT
            covariance = parallel_covariance_recurrence(gain.matrix, backwards, last, noise)
            place = tuple(range(len(backwards), -1, -1))
        else:
            covariance, found = covariance_recurrence(gain.matrix, backwards, last, gain.kept, Q, settling)
            place = found[::-1]
        covariance = symmetric(covariance).to(dtype)
        gain = replace(gain, matrix=gain.matrix.to(dtype), kept=gain.kept.to(dtype))
        inputs = filtered.mean[:, :-1] - times(gain.matrix, gain.place, filtered.predicted_mean[:, 1:], filtered.group)
        recurrence = parallel_recurrence if parallel else linear_recurrence
        mean = recurrence(gain.matrix, backwards, filtered.mean[:, -1], inputs.flip(1), filtered.group).flip(1)
        return Smoothed(mean, covariance, place, gain, filtered.group)
