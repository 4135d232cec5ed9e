"""Principal components of images, displacement fields or any other vectors (thesis, equations 3.19 to 3.25)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """An affine subspace: `x` is approximated by `mean` and a combination of `components`.

    Attributes:
        mean: `(*S)`, zero if nothing was subtracted.
        components: `(r, *S)`, orthonormal, by falling variance.
        variances: `(r,)`, of the coefficients: squared singular values over the number of samples less one.
        total_variance: of the samples, in all directions.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    total_variance: Tensor

    @property
    def rank(self) -> int:
        """The number of components, `r`."""
        return len(self.components)

    def first(self, rank: int) -> PrincipalComponents:
        """The first `rank` of them."""
        return PrincipalComponents(self.mean, self.components[:rank], self.variances[:rank], self.total_variance)

    def coefficients(self, x: Tensor) -> Tensor:
        """`(T, r)` of `x (T, *S)`."""
        return (x - self.mean).flatten(1) @ self.components.flatten(1).mT

    def reconstruct(self, coefficients: Tensor) -> Tensor:
        """`(T, *S)` from `coefficients (T, r)`."""
        flat = coefficients @ self.components.flatten(1)
        return flat.reshape(len(coefficients), *self.mean.shape) + self.mean


def principal_components(x: Tensor, rank: int | None = None, *, centred: bool = True) -> PrincipalComponents:
    """The `rank` directions in which `x` varies most, by its singular value decomposition.

    Of all subspaces of that dimension they leave the least squared error: the sum of the squared singular values that
    are left out.

    Args:
        x: `(T, *S)`, samples.
        rank: how many; fewer come if `x` does not vary in so many. `None`: all.
        centred: whether the mean of the samples is subtracted.

    Raises:
        ValueError: no samples, or `rank < 0`.
    """
    if x.ndim < 2 or not len(x) or not x.is_floating_point():
        raise ValueError(f"principal components: x must be (T, *S) in floating point, got {tuple(x.shape)} {x.dtype}")
    if rank is not None and rank < 0:
        raise ValueError(f"principal components: rank must be at least 0, got {rank}")
    mean = x.mean(dim=0) if centred else torch.zeros_like(x[0])
    _, s, vh = torch.linalg.svd((x - mean).flatten(1), full_matrices=False)
    count = int((s > s[:1] * significant(x.flatten(1))).sum())
    count = count if rank is None else min(rank, count)
    variances = s.square() / max(len(x) - 1, 1)
    return PrincipalComponents(mean, vh[:count].reshape(count, *x.shape[1:]), variances[:count], variances.sum())


def significant(matrix: Tensor) -> float:
    """The share of the largest singular value of `matrix` below which another is a rounding error."""
    return max(matrix.shape) * torch.finfo(matrix.dtype).eps
