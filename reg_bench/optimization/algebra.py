"""Vectors per case: parameters `(B, *P)` are flattened per case, numbers per case are `(B,)`."""

from __future__ import annotations

from torch import Tensor


def per_case(values: Tensor, like: Tensor) -> Tensor:
    """`values (B,)` shaped to broadcast over `like (B, *P)`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every case, `(B,)`."""
    return (a * b).flatten(1).sum(dim=1)


def norm(a: Tensor) -> Tensor:
    """The Euclidean length of every case, `(B,)`."""
    return dot(a, a).sqrt()


def largest(a: Tensor) -> Tensor:
    """The largest magnitude of every case, `(B,)`."""
    return a.flatten(1).abs().amax(dim=1)
