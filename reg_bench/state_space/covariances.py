"""What the Kalman filter computes without looking at the observations: covariances and gains.

The update has Joseph's form, `P = (I - K C) P (I - K C)^T + K R K^T`: a sum of positive terms, which rounding errors do
not drive out of the positive matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import Groups
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.settling import Settling, needs_gradient


@dataclass(frozen=True, eq=False)
class Covariances:
    """Of `G` groups at `T` times, kept once where they repeat: `U <= T` different ones.

    Attributes:
        predicted: `(G, U, n, n)`, of `z_t` given `y_1 .. y_{t-1}`.
        filtered: `(G, U, n, n)`, of `z_t` given `y_1 .. y_t`.
        gain: `(G, U, n, p)`, zero where nothing is observed.
        keep: `(G, U, n, n)`, `I - K C`.
        innovation: `(G, U, p, p)`, Cholesky factor of the covariance of `y_t` given its past; the identity at times
            at which no group observes.
        place: of all `T` times among the `U`. A place is taken for the first time in the order of time.
    """

    predicted: Tensor
    filtered: Tensor
    gain: Tensor
    keep: Tensor
    innovation: Tensor
    place: tuple[int, ...]

    def to(self, dtype: torch.dtype) -> Covariances:
        """The same as tensors of that type."""
        if self.gain.dtype == dtype:
            return self
        names = ("predicted", "filtered", "gain", "keep", "innovation")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})


def sequential_covariances(model: LinearGaussianModel, groups: Groups) -> Covariances:
    """One time after the other.

    Raises:
        NotPositiveDefiniteError: an innovation whose covariance is not positive definite.
    """
    count, length = groups.observed.shape
    flat = count == 1
    # One group alone is kept without an axis of groups: for matrices of this size the call costs as much as the work.
    product, fused = (torch.mm, torch.addmm) if flat else (torch.bmm, torch.baddbmm)
    fixed = (model.A, model.C, model.Q, model.R, _eye(model.A, model.states), _eye(model.A, model.observations))
    A, C, Q, R, eye, unit = fixed if flat else (m.expand(count, *m.shape).contiguous() for m in fixed)
    A_t, C_t = A.mT, C.mT
    some, every = groups.observed.any(dim=0).tolist(), groups.observed.all(dim=0).tolist()
    settling = None if needs_gradient(model) else Settling(A.dtype)
    weights = groups.observed.to(A.dtype)[..., None, None]
    predicted = groups.covariance[0] if flat else groups.covariance.expand(count, -1, -1)
    nothing = C_t * 0
    times: list[tuple[Tensor, ...]] = []
    place: list[int] = []
    infos: list[Tensor] = []
    for t in range(length):
        if t and every[t] and settling is not None and settling.settled:
            place.append(place[-1])
            continue
        place.append(len(times))
        if t:
            previous, predicted = predicted, fused(Q, product(A, times[-1][1]), A_t)
            if settling is not None:
                settling.look(previous, predicted)
        if settling is not None and not every[t]:
            settling.reset()
        if not some[t]:
            times.append((predicted, predicted, nothing, eye, unit))
            continue
        across = product(C, predicted)
        lower, info = torch.linalg.cholesky_ex(fused(R, across, C_t))
        infos.append(info)
        gain_t = product(torch.cholesky_inverse(lower), across)
        if not every[t]:
            gain_t = gain_t * weights[:, t]
        gain = gain_t.mT
        keep = fused(eye, gain, C, alpha=-1)
        filtered = fused(product(product(gain, R), gain_t), product(keep, predicted), keep.mT)
        times.append((predicted, filtered, gain, keep, lower))
    check_innovations(torch.stack(infos) if infos else None)
    stacked = (torch.stack(column, dim=0 if flat else 1) for column in zip(*times, strict=True))
    predictions, updates, gains, keeps, factors = (x[None] if flat else x for x in stacked)
    return Covariances(symmetric(predictions), symmetric(updates), gains, keeps, factors, tuple(place))


class NotPositiveDefiniteError(ValueError):
    """A covariance that has to be inverted is not positive definite."""


def check_innovations(info: Tensor | None) -> None:
    """Raises:
    NotPositiveDefiniteError: where Cholesky's decomposition reported a failure.
    """
    if info is not None and bool(info.any()):
        raise NotPositiveDefiniteError(
            "the covariance of an observation given its past is not positive definite: R must be positive definite "
            "(or C P C^T make up for it), Q and the first covariance positive semi-definite, and all finite"
        )


def _eye(like: Tensor, size: int) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
