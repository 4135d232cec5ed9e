"""What the Kalman filter computes without looking at the observations: covariances and gains.

The update has Joseph's form, `P = (I - K C) P (I - K C)^T + K R K^T`: a sum of positive terms, which rounding errors do
not drive out of the positive matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.state_space.groups import Groups
from reg_bench.state_space.model import LinearGaussianModel


@dataclass(frozen=True, eq=False)
class Covariances:
    """Of `G` groups at `T` times.

    Attributes:
        predicted: `(G, T, n, n)`, of `z_t` given `y_1 .. y_{t-1}`.
        filtered: `(G, T, n, n)`, of `z_t` given `y_1 .. y_t`.
        gain: `(G, T, n, p)`, zero where nothing is observed.
        keep: `(G, T, n, n)`, `I - K C`.
        innovation: `(G, T, p, p)`, Cholesky factor of the covariance of `y_t` given its past; the identity at times
            at which no group observes.
    """

    predicted: Tensor
    filtered: Tensor
    gain: Tensor
    keep: Tensor
    innovation: Tensor


def sequential_covariances(model: LinearGaussianModel, groups: Groups) -> Covariances:
    """One time after the other.

    Raises:
        ValueError: an innovation whose covariance is not positive definite.
    """
    A, C, Q, R = model.A, model.C, model.Q, model.R
    count, length = groups.observed.shape
    flat = count == 1
    fused = torch.addmm if flat else torch.baddbmm
    predicted = groups.covariance[0] if flat else groups.covariance.expand(count, -1, -1)
    if not flat:
        # Batched products want every factor with a batch axis.
        A, C, Q, R = (m.expand(count, *m.shape) for m in (A, C, Q, R))
    eye_n, eye_p = (_eye(A, k, None if flat else count) for k in (model.states, model.observations))
    none = A.new_zeros(*A.shape[:-1], model.observations)
    some = groups.observed.any(dim=0).tolist()
    every = groups.observed.all(dim=0).tolist()
    weights = groups.observed.to(A.dtype)[..., None, None]
    columns: list[list[Tensor]] = [[], [], [], [], []]
    infos: list[Tensor] = []
    for t in range(length):
        if some[t]:
            across = C @ predicted
            lower, info = torch.linalg.cholesky_ex(fused(R, across, C.mT))
            infos.append(info)
            gain = torch.cholesky_solve(across, lower).mT
            if not every[t]:
                gain = gain * weights[:, t]
            keep = fused(eye_n, gain, C, alpha=-1)
            noise = (gain @ R) @ gain.mT
            filtered = fused(noise, keep @ predicted, keep.mT)
            filtered = torch.lerp(filtered, filtered.mT, 0.5)
        else:
            filtered, gain, keep, lower = predicted, none, eye_n, eye_p
        for column, value in zip(columns, (predicted, filtered, gain, keep, lower), strict=True):
            column.append(value)
        predicted = fused(Q, A @ filtered, A.mT)
    check_innovations(torch.stack(infos) if infos else None)
    stacked = [torch.stack(column, dim=0 if flat else 1) for column in columns]
    return Covariances(*(s[None] if flat else s for s in stacked))


def check_innovations(info: Tensor | None) -> None:
    """Raises:
    ValueError: where Cholesky's decomposition reported a failure.
    """
    if info is not None and bool(info.any()):
        raise ValueError(
            "the covariance of an observation given its past is not positive definite: R must be positive definite "
            "(or C P C^T make up for it), Q and the first covariance positive semi-definite, and all finite"
        )


def _eye(like: Tensor, size: int, count: int | None) -> Tensor:
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    return eye if count is None else eye.expand(count, size, size)
