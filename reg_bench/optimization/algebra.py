"""Vectors per case: parameters `(B, *P)` are flattened per case, numbers per case are `(B,)`."""

from __future__ import annotations

import torch
from torch import Tensor


def per_case(values: Tensor, like: Tensor) -> Tensor:
    """`values (B,)` shaped to broadcast over `like (B, *P)`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def kept(where: Tensor, values: Tensor) -> Tensor:
    """`values (B, *P)` for the cases `where (B,)`, 0 for the others, whatever they hold."""
    if bool(where.all()):
        return values
    return torch.where(per_case(where, values), values, torch.zeros_like(values))


def advanced(theta: Tensor, direction: Tensor, step: Tensor) -> Tensor:
    """`theta + step direction (B, *P)`; `theta` itself where `step (B,)` is 0, even if the direction is not finite."""
    return torch.addcmul(theta, per_case(step, theta), kept(step != 0, direction))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every case, `(B,)`."""
    return (a * b).flatten(1).sum(dim=1)


def norm(a: Tensor) -> Tensor:
    """The Euclidean length of every case, `(B,)`."""
    return dot(a, a).sqrt()


def largest(a: Tensor) -> Tensor:
    """The largest magnitude of every case, `(B,)`."""
    return a.flatten(1).abs().amax(dim=1)
