"""Terms of evidence lower bounds: densities, divergences, bounds of several samples, and their annealing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


def normal_log_density(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """Logarithm of the density of independent normals, `(..., n)` to `(...)`: summed over the last axis."""
    std = torch.as_tensor(std, dtype=x.dtype, device=x.device)
    white = (x - mean) / std
    return (-0.5 * white.square() - std.log() - 0.5 * _LOG_2PI).sum(dim=-1)


def divergence_from_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """`KL(N(mean, std^2) || N(0, 1))`, `(..., n)` to `(...)` (thesis, equation 3.38)."""
    return 0.5 * (mean.square() + std.square() - 2 * std.log() - 1).sum(dim=-1)


def image_log_likelihood(image: Tensor, mean: Tensor, std: float) -> Tensor:
    """Logarithm of `N(image; mean, std^2 I)`, `(B, T, C, *S)` to `(B, T)`: summed over all voxels."""
    squares = (image - mean).square().flatten(2).sum(dim=2)
    voxels = math.prod(image.shape[2:])
    return -0.5 * squares / std**2 - voxels * (math.log(std) + 0.5 * _LOG_2PI)


def bound(log_weights: Tensor, weighted: bool = False) -> Tensor:
    """Of `log p(y, x_m) - log q(x_m | y)`, `(M, B)` of M samples, the lower bound of `log p(y)`, `(B,)`.

    The mean over the samples (thesis, equation 3.65); `weighted`, the logarithm of the mean of the weights, which in
    expectation rises with M (Burda et al., ICLR 2016).
    """
    if weighted:
        return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))
    return log_weights.mean(dim=0)


def monotonic_annealing(epoch: int) -> float:
    """The weight of the latent terms in epoch 1, 2, …: `sigmoid((e - 1)^2 / 3 - 3)`, from 0.047 up to 1.

    Raises:
        ValueError: an epoch below 1, where the course would fall first.
    """
    if epoch < 1:
        raise ValueError(f"monotonic_annealing: epochs count from 1, got {epoch}")
    return 1 / (1 + math.exp(min(700.0, 3 - (epoch - 1) ** 2 / 3)))
