"""Dense fields as trackers see them: at scattered points, with noise, outliers and a confidence that tells most."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.field import sample


@dataclass(frozen=True)
class Observed:
    """Displacements at points, and the field that they come from.

    Attributes:
        points, values: `(B, N, D)`, voxels.
        confidence: `(B, N)`, 0..1.
        truth: `(B, D, *S)`, voxels.
    """

    points: Tensor
    values: Tensor
    confidence: Tensor
    truth: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Observed:
        """On a device."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class TrackerErrors:
    """How trackers err.

    Confidences follow beta distributions that overlap: with the defaults 2 % of the outliers are trusted more than an
    inlier in the middle, and 2 % of the inliers less than an outlier in the middle.

    Attributes:
        noise: standard deviation of every component, voxels.
        outliers: share of the points that are lost.
        reach: a lost point is off by up to this many voxels, in any direction.
        trust, doubt: the beta distributions of the confidence of inliers and of outliers; `None` for 1 everywhere.
    """

    noise: float = 1.0
    outliers: float = 0.1
    reach: float = 15.0
    trust: tuple[float, float] | None = (6.0, 2.0)
    doubt: tuple[float, float] | None = (1.5, 6.0)

    def __post_init__(self) -> None:
        if not (self.noise >= 0 and 0 <= self.outliers <= 1 and self.reach >= 0):
            raise ValueError(
                "TrackerErrors: noise and reach must be at least 0 and outliers in 0..1, got "
                f"{self.noise}, {self.reach} and {self.outliers}"
            )


EXACT = TrackerErrors(0.0, 0.0, 0.0, None, None)


def observe(truth: Tensor, count: int, generator: torch.Generator, errors: TrackerErrors = EXACT) -> Observed:
    """A field at `count` points drawn uniformly over the image, between the voxels.

    Args:
        truth: `(B, D, *S)`, voxels, on the CPU.
        count: points of every case.
        generator: of everything that is drawn, on the CPU.
        errors: of the values.
    """
    if count < 1:
        raise ValueError(f"observe: count must be at least 1, got {count}")
    batch, dims = truth.shape[:2]
    last = truth.new_tensor([n - 1 for n in truth.shape[2:]])
    points = torch.rand(batch, count, dims, generator=generator) * last
    values = sample(truth, points)
    values = values + errors.noise * torch.randn(values.shape, generator=generator)
    lost = torch.rand(batch, count, generator=generator) < errors.outliers
    away = torch.randn(values.shape, generator=generator)
    away = away / torch.linalg.vector_norm(away, dim=2, keepdim=True).clamp(min=1e-12)
    far = errors.reach * torch.rand(batch, count, 1, generator=generator)
    values = torch.where(lost[:, :, None], values + away * far, values)
    confidence = torch.where(
        lost, _beta(errors.doubt, lost.shape, generator), _beta(errors.trust, lost.shape, generator)
    )
    return Observed(points, values, confidence, truth)


def _beta(parameters: tuple[float, float] | None, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draws of a beta distribution; torch's own take no generator, so two gamma draws do."""
    if parameters is None:
        return torch.ones(shape)
    a, b = (torch._standard_gamma(torch.full(shape, p), generator=generator) for p in parameters)
    return (a / (a + b)).clamp(min=math.ulp(0.0))
