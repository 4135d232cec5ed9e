"""Kalman filter (thesis, Algorithm 2, with `mu_{1|0} = mu_1`; equation 3.17 for the likelihood)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.state_space.covariances import Covariances, NotPositiveDefiniteError
from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import checked, grouped, spread, unfolded
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.precision import precise_covariances
from reg_bench.state_space.recurrence import linear_recurrence, times
from reg_bench.state_space.scan import parallel_recurrence


@dataclass(frozen=True, eq=False)
class Filtered:
    """What a Kalman filter found in `B` sequences of length `T`.

    Covariances are computed and kept once for sequences that share them, and for times at which they have settled;
    `covariance` and `predicted_covariance` show them per sequence and time, as a view where there is one group.

    Attributes:
        mean: `(B, T, n)`, of `z_t` given `y_1 .. y_t`.
        predicted_mean: `(B, T, n)`, of `z_t` given `y_1 .. y_{t-1}`.
        log_likelihood: `(B, T)`, of `y_t` given the observations before it; 0 where it is missing.
        covariances: of `G` groups; float64 where float32 would not do.
        group: `(B,)`, the group of every sequence; `None`: one for all, or each its own.
    """

    mean: Tensor
    predicted_mean: Tensor
    log_likelihood: Tensor
    covariances: Covariances
    group: Tensor | None

    @property
    def covariance(self) -> Tensor:
        """`(B, T, n, n)`, of `z_t` given `y_1 .. y_t`."""
        each = unfolded(self.covariances.filtered, self.covariances.place).to(self.mean.dtype)
        return spread(each, self.group, len(self.mean))

    @property
    def predicted_covariance(self) -> Tensor:
        """`(B, T, n, n)`, of `z_t` given `y_1 .. y_{t-1}`."""
        each = unfolded(self.covariances.predicted, self.covariances.place).to(self.mean.dtype)
        return spread(each, self.group, len(self.mean))

    @property
    def last_covariance(self) -> Tensor:
        """`(G, n, n)`, of `z_T` in every group."""
        return self.covariances.filtered[:, self.covariances.place[-1]].to(self.mean.dtype)


def kalman_filter(
    model: LinearGaussianModel, y: Tensor, observed: Tensor | None = None, *, parallel: bool = False
) -> Filtered:
    """Filters all sequences; differentiable in the model and in `y`.

    Args:
        model: of `n` states and `p` observations.
        y: `(B, T, p)`; what stands where nothing is observed is ignored, NaN too.
        observed: `(B, T)` bool, `None` for all.
        parallel: by associative scans in O(log T) steps instead of T. Pays where a step costs less than calling it:
            few states, long sequences, GPUs.

    Raises:
        ValueError: shapes or types that do not fit, or covariances that are not positive definite.
    """
    checked(model, y, observed)
    with torch.autocast(y.device.type, enabled=False):
        groups = grouped(model, y, observed)
        wide = precise_covariances(model, groups, parallel)
        found = wide.to(y.dtype)
        if observed is not None:
            y = torch.where(observed[..., None], y, torch.zeros_like(y))
        means, predicted = _means(model, found, y, groups.index, parallel)
        likelihood = _log_likelihood(model, found, y, predicted, groups.index)
        if observed is not None:
            likelihood = torch.where(observed, likelihood, torch.zeros_like(likelihood))
    return Filtered(means, predicted, likelihood, wide, groups.index)


def _means(
    model: LinearGaussianModel, found: Covariances, y: Tensor, index: Tensor | None, parallel: bool
) -> tuple[Tensor, Tensor]:
    """Filtered and predicted means: `m_t = (I - K C) A m_{t-1} + K y_t`, a linear recurrence."""
    batch = len(y)
    first = model.mean.expand(batch, -1)
    inputs = times(found.gain, found.place, y, index)
    start = (spread(found.keep[:, 0], index, batch) @ first[..., None])[..., 0] + inputs[:, 0]
    recurrence = parallel_recurrence if parallel else linear_recurrence
    means = recurrence(found.keep @ model.A, found.place[1:], start, inputs[:, 1:], index)
    return means, torch.cat([first[:, None], means[:, :-1] @ model.A.mT], dim=1)


def _log_likelihood(
    model: LinearGaussianModel, found: Covariances, y: Tensor, predicted: Tensor, index: Tensor | None
) -> Tensor:
    """`(B, T)`, of `y_t` given its past, as if all were observed."""
    error = y - predicted @ model.C.mT
    lower = unfolded(found.innovation, found.place)
    if len(lower) == 1:
        white = torch.linalg.solve_triangular(lower[0], error.permute(1, 2, 0), upper=False).permute(2, 0, 1)
    else:
        each = spread(lower, index, len(y))
        white = torch.linalg.solve_triangular(each, error[..., None], upper=False)[..., 0]
    half = lower.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constant = 0.5 * model.observations * math.log(2 * math.pi)
    return -0.5 * white.square().sum(dim=-1) - spread(half, index, len(y)) - constant


def kalman_update(
    model: LinearGaussianModel, mean: Tensor, covariance: Tensor, y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state after one observation at its own time: `(B, n)` and `(B, n, n)` or `(1, n, n)` as they came.

    The first observation of a stream meets the state `model.mean, model.covariance` so, without a prediction.

    Args:
        mean: `(B, n)`, before it.
        covariance: `(B, n, n)`; `(1, n, n)` or `(n, n)` if common to all.
        y: `(B, p)`, or `None`, which changes nothing.
    """
    if y is None:
        return mean, covariance
    with torch.autocast(y.device.type, enabled=False):
        across = model.C @ covariance
        lower, info = torch.linalg.cholesky_ex(across @ model.C.mT + model.R)
        if bool(info.any()):
            raise NotPositiveDefiniteError("the covariance of an observation given its past is not positive definite")
        gain = torch.cholesky_solve(across, lower).mT
        keep = torch.eye(model.states, dtype=mean.dtype, device=mean.device) - gain @ model.C
        error = y - mean @ model.C.mT
        moved = mean + (gain @ error[..., None])[..., 0]
        return moved, symmetric(keep @ covariance @ keep.mT + gain @ model.R @ gain.mT)


def kalman_step(
    model: LinearGaussianModel, mean: Tensor, covariance: Tensor, y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The filtered state one time later: predicted by one step, then updated with `y`, see `kalman_update`."""
    with torch.autocast(mean.device.type, enabled=False):
        ahead = mean @ model.A.mT
        spread_out = symmetric(model.A @ covariance @ model.A.mT + model.Q)
    return kalman_update(model, ahead, spread_out, y)
