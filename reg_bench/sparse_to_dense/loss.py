"""What the network of normalised convolutions is trained with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


def confident_huber(u: Tensor, confidence: Tensor, truth: Tensor, decay: float = 1.0) -> Tensor:
    """`mean(E - (c - c E) / p)` with the Huber error E (delta 1 voxel) of every component of every voxel.

    It asks for small errors, and for confidence where they are small; the second is worth `1 / p` of the first
    (Eldesokey, Felsberg and Khan, BMVC 2018; Paper I).

    Args:
        u, truth: `(B, D, *S)`, voxels.
        confidence: `(B, 1, *S)`, 0..1.
        decay: p, at least 1; the number of the epoch, so that in the end the error decides.

    Returns:
        a number, differentiable in `u` and `confidence`.
    """
    if u.shape != truth.shape or confidence.shape != (len(u), 1, *u.shape[2:]):
        raise ValueError(
            "confident_huber: u and truth must be (B, D, *S) and confidence (B, 1, *S), got "
            f"{tuple(u.shape)}, {tuple(truth.shape)} and {tuple(confidence.shape)}"
        )
    if not decay >= 1:
        raise ValueError(f"confident_huber: decay must be at least 1, got {decay}")
    error = huber_loss(u, truth, reduction="none", delta=1.0)
    return (error - (confidence - confidence * error) / decay).mean()


def end_point_error(u: Tensor, truth: Tensor) -> Tensor:
    """The mean distance in voxels between displacements `(B, D, *S)`, per case `(B,)`."""
    return torch.linalg.vector_norm(u - truth, dim=1).flatten(1).mean(dim=1)
