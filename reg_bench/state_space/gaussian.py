"""Gaussians in closed form: density, conditioning, product, affine map (thesis, appendix A).

Means are `(..., n)`, covariances `(..., n, n)`; leading axes broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part of `matrix (..., n, n)`."""
    return torch.lerp(matrix, matrix.mT, 0.5)


def factor(covariance: Tensor) -> Tensor:
    """Lower triangular `L (..., n, n)` with `L L^T = covariance`, which may be singular.

    Where Cholesky's decomposition fails, the diagonal is raised by rounding errors of its largest entry, and by ten
    times as much until it succeeds.

    Raises:
        ValueError: a matrix that is not positive semi-definite, or not finite.
    """
    lower, info = torch.linalg.cholesky_ex(covariance)
    if not bool(info.any()):
        return lower
    largest = covariance.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp(min=1e-30)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    epsilon = torch.finfo(covariance.dtype).eps * covariance.shape[-1]
    for power in range(5):
        raised = torch.where(info > 0, largest * epsilon * 10**power + 1e-30, torch.zeros_like(largest))
        lower, still = torch.linalg.cholesky_ex(covariance + raised[..., None, None] * eye)
        if not bool(still.any()):
            return lower
    raise ValueError("a covariance is not positive semi-definite, or holds numbers that are not finite")


def log_density(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Logarithm of `N(x; mean, covariance)`, `(...)`, of `x (..., n)`; a singular covariance as in `factor`."""
    lower = factor(covariance)
    difference = (x - mean)[..., None]
    white = torch.linalg.solve_triangular(lower, difference, upper=False)[..., 0]
    half_log_determinant = lower.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return -0.5 * white.square().sum(dim=-1) - half_log_determinant - 0.5 * x.shape[-1] * math.log(2 * math.pi)


def affine(mean: Tensor, covariance: Tensor, matrix: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `matrix x + e`, with `e ~ N(0, noise)` independent of `x ~ N(mean, covariance)`."""
    return (matrix @ mean[..., None])[..., 0], symmetric(matrix @ covariance @ matrix.mT + noise)


def marginal(mean: Tensor, covariance: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Of the entries `kept`, indices `(k,)`: their part of the mean and of the covariance."""
    return mean[..., kept], covariance[..., kept[:, None], kept]


def condition(mean: Tensor, covariance: Tensor, given: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the other entries, in their order, when the entries `given (k,)` equal `values (..., k)`.

    `mu_a + S_ab S_bb^-1 (b - mu_b)` and `S_aa - S_ab S_bb^-1 S_ba`.
    """
    free = torch.ones(mean.shape[-1], dtype=torch.bool, device=mean.device)
    free[given] = False
    other = free.nonzero()[:, 0]
    mean_given, covariance_given = marginal(mean, covariance, given)
    mean_other, covariance_other = marginal(mean, covariance, other)
    cross = covariance[..., other[:, None], given]
    gain = torch.cholesky_solve(cross.mT, factor(covariance_given)).mT
    shift = (gain @ (values - mean_given)[..., None])[..., 0]
    return mean_other + shift, symmetric(covariance_other - gain @ cross.mT)


def product(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`N(x; a, A) N(x; b, B) = c N(x; m, P)`: mean `m`, covariance `P` and `log c = log N(a; b, A + B)`.

    Written with the gain `A (A + B)^-1`, so that one of both may be singular.
    """
    total = covariance_a + covariance_b
    gain = torch.cholesky_solve(covariance_a, factor(total)).mT
    mean = mean_a + (gain @ (mean_b - mean_a)[..., None])[..., 0]
    return mean, symmetric(covariance_a - gain @ covariance_a), log_density(mean_a, mean_b, total)
