"""Maximum likelihood by expectation maximisation (Shumway and Stoffer 1982; Ghahramani and Hinton 1996).

The M step is in closed form. Missing observations leave the sums over observations, not those over states.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.state_space.filtering import kalman_filter
from reg_bench.state_space.gaussian import symmetric
from reg_bench.state_space.groups import unfolded
from reg_bench.state_space.learnable import NAMES
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.smoothing import Smoothed, rts_smoother


@dataclass(frozen=True, eq=False)
class Fitted:
    """`model`, and the log-likelihood of all sequences together before the first and after every iteration."""

    model: LinearGaussianModel
    log_likelihood: tuple[float, ...]


@torch.no_grad()
def expectation_maximization(
    model: LinearGaussianModel,
    y: Tensor,
    observed: Tensor | None = None,
    *,
    iterations: int = 50,
    learn: Collection[str] = NAMES,
    diagonal: Collection[str] = (),
    tolerance: float = 0.0,
) -> Fitted:
    """Raises the likelihood of the sequences `y`, in every iteration or not at all.

    Args:
        model: to begin with.
        y: `(B, T, p)`.
        observed: `(B, T)` bool, `None` for all.
        iterations: at most.
        learn: which of A, C, Q, R, mean and covariance change. A mean of every sequence its own stays as it is.
        diagonal: which of the learned covariances are to stay diagonal.
        tolerance: stops when the likelihood rises by less than this times its size.

    Raises:
        ValueError: unknown names; A or Q to learn from sequences of length 1; C or R without an observation.
    """
    unknown = (set(learn) - set(NAMES)) | (set(diagonal) - {"Q", "R", "covariance"})
    if unknown or iterations < 0:
        raise ValueError(
            f"expectation maximisation: learn may name {', '.join(NAMES)}, diagonal Q, R and covariance, and "
            f"iterations must be at least 0; got {', '.join(sorted(unknown)) or 'known names'} and {iterations}"
        )
    seen = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if observed is None else observed
    if y.shape[1] < 2 and {"A", "Q"} & set(learn):
        raise ValueError("expectation maximisation: A and Q cannot be learned from sequences of length 1")
    if not bool(seen.any()):
        raise ValueError("expectation maximisation: nothing is observed")
    filtered = kalman_filter(model, y, observed)
    history = [float(filtered.log_likelihood.sum())]
    for _ in range(iterations):
        model = maximization(model, rts_smoother(model, filtered), y, seen, learn, diagonal)
        filtered = kalman_filter(model, y, observed)
        history.append(float(filtered.log_likelihood.sum()))
        if history[-1] - history[-2] < tolerance * abs(history[-2]):
            break
    return Fitted(model, tuple(history))


def maximization(
    model: LinearGaussianModel,
    smoothed: Smoothed,
    y: Tensor,
    observed: Tensor,
    learn: Collection[str] = NAMES,
    diagonal: Collection[str] = (),
) -> LinearGaussianModel:
    """The model that maximises the expected joint density under `smoothed`: the M step. `observed (B, T)` bool."""
    found: dict[str, Tensor] = {}
    if {"A", "Q"} & set(learn):
        every = torch.ones_like(observed)
        before = _second_moment(smoothed, every, slice(None, -1))
        after = _second_moment(smoothed, every, slice(1, None))
        later = unfolded(smoothed.group_covariance, smoothed.place)[:, 1:]
        cross = later @ unfolded(smoothed.gain.matrix, smoothed.gain.place).mT
        across = torch.einsum("gt,gtij->ij", _counts(smoothed, every[:, 1:]), cross)
        across = across + torch.einsum("bti,btj->ij", smoothed.mean[:, 1:], smoothed.mean[:, :-1])
        A, noise = _regression(after, across, before, model.A if "A" not in learn else None)
        found |= {"A": A, "Q": noise / every[:, 1:].sum()}
    if {"C", "R"} & set(learn):
        weight = observed.to(y.dtype)
        values = torch.where(observed[..., None], y, torch.zeros_like(y))
        states = _second_moment(smoothed, observed, slice(None))
        across = torch.einsum("bt,btp,btn->pn", weight, values, smoothed.mean)
        both = torch.einsum("btp,btq->pq", values, values)
        C, noise = _regression(both, across, states, model.C if "C" not in learn else None)
        found |= {"C": C, "R": noise / weight.sum()}
    if "mean" in learn and model.mean.ndim == 1:
        found["mean"] = smoothed.mean[:, 0].mean(dim=0)
    if "covariance" in learn:
        off = smoothed.mean[:, 0] - found.get("mean", model.mean)
        sizes = _counts(smoothed, torch.ones_like(observed[:, :1]))[:, 0]
        spread_out = torch.einsum("g,gij->ij", sizes, smoothed.group_covariance[:, smoothed.place[0]])
        found["covariance"] = symmetric(spread_out + off.mT @ off) / len(off)
    found = {name: value for name, value in found.items() if name in learn}
    return replace(model, **{k: torch.diag(v.diagonal()) if k in diagonal else v for k, v in found.items()})


def _regression(after: Tensor, across: Tensor, before: Tensor, fixed: Tensor | None) -> tuple[Tensor, Tensor]:
    """The matrix that predicts best, or the fixed one, and the second moment of what it leaves over."""
    matrix = torch.linalg.solve(before, across, left=False) if fixed is None else fixed
    explained = matrix @ across.mT
    return matrix, symmetric(after - explained - explained.mT + matrix @ before @ matrix.mT)


def _second_moment(smoothed: Smoothed, observed: Tensor, times: slice) -> Tensor:
    """The sum of `E[z z^T]` over all that is observed at `times`, `(n, n)`."""
    chosen = observed[:, times]
    mean = smoothed.mean[:, times] * chosen[..., None]
    each = unfolded(smoothed.group_covariance, smoothed.place)[:, times]
    spread_out = torch.einsum("gt,gtij->ij", _counts(smoothed, chosen), each)
    return spread_out + torch.einsum("bti,btj->ij", mean, mean)


def _counts(smoothed: Smoothed, observed: Tensor) -> Tensor:
    """How many sequences of every group are observed at every time, `(G, T)`."""
    values = observed.to(smoothed.mean.dtype)
    groups = len(smoothed.group_covariance)
    if smoothed.group is not None:
        return values.new_zeros(groups, values.shape[1]).index_add(0, smoothed.group, values)
    return values.sum(dim=0, keepdim=True) if groups == 1 else values
