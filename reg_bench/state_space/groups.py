"""Sequences that share their covariances: those with the same first covariance and the same frames missing.

The covariances and gains of a time-invariant model do not depend on what is observed, only on when.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.state_space.model import LinearGaussianModel


@dataclass(frozen=True, eq=False)
class Groups:
    """`B` sequences in `G` groups.

    Attributes:
        observed: `(G, T)` bool.
        covariance: `(G, n, n)` or, where it is common to all, `(1, n, n)`, of the first state.
        index: `(B,)`, the group of every sequence; `None`: all are in one, or each is its own.
    """

    observed: Tensor
    covariance: Tensor
    index: Tensor | None


def unfolded(values: Tensor, place: tuple[int, ...]) -> Tensor:
    """`values (G, U, ...)` of different ones at the times that have them: `(G, T, ...)`."""
    return values if place == tuple(range(values.shape[1])) else values[:, place]


def spread(values: Tensor, index: Tensor | None, batch: int) -> Tensor:
    """`values (G, ...)` of groups as `(B, ...)`."""
    return values.expand(batch, *values.shape[1:]) if index is None else values.index_select(0, index)


def checked(model: LinearGaussianModel, y: Tensor, observed: Tensor | None) -> None:
    """Raises:
    ValueError: `y` or `observed` that do not fit the model.
    """
    if y.ndim != 3 or y.shape[2] != model.observations or y.shape[1] == 0:
        raise ValueError(f"observations must be (B, T, {model.observations}) with T > 0, got {tuple(y.shape)}")
    if y.dtype != model.A.dtype or y.device != model.A.device:
        raise ValueError(f"observations are {y.dtype} on {y.device}, the model {model.A.dtype} on {model.A.device}")
    if observed is not None and (observed.dtype != torch.bool or observed.shape != y.shape[:2]):
        raise ValueError(
            f"observed must be bool {tuple(y.shape[:2])}, got {observed.dtype} of shape {tuple(observed.shape)}"
        )
    if model.sequences not in (None, len(y)):
        raise ValueError(f"the model's first state is of {model.sequences} sequences, the observations of {len(y)}")


def grouped(model: LinearGaussianModel, y: Tensor, observed: Tensor | None) -> Groups:
    """The groups of the sequences `y (B, T, p)`, observed where `observed (B, T)`, `None` for everywhere."""
    first = model.covariance[None] if model.covariance.ndim == 2 else model.covariance
    if first.stride(0) == 0:
        first = first[:1]
    if observed is None:
        observed = torch.ones(1, y.shape[1], dtype=torch.bool, device=y.device)
    elif bool((observed == observed[:1]).all()):
        observed = observed[:1]
    if len(first) > 1:
        return Groups(observed.expand(len(first), -1), first, None)
    if len(observed) == 1:
        return Groups(observed, first, None)
    patterns, index = torch.unique(observed, dim=0, return_inverse=True)
    return Groups(patterns, first, index)
