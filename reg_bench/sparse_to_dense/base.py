"""What an interpolation of scattered displacements is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DenseField:
    """A dense displacement.

    Attributes:
        u: `(B, D, *S)`, voxels.
        confidence: `(B, 1, *S)`, 0..1, of methods that have one.
    """

    u: Tensor
    confidence: Tensor | None = None


class Interpolation(nn.Module, ABC):
    """Makes a dense field of displacements at scattered points. Subclasses are final and implement `forward`.

    Points that lie outside the image (more than half a voxel beyond the outermost voxels), are not finite, have a value
    that is not finite or a confidence that is not positive are left out; with none left the field is zero. Each case of
    a batch comes out as if alone.
    """

    @abstractmethod
    def forward(self, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]) -> DenseField:
        """The field on a grid of `shape`.

        Args:
            points: `(B, N, D)`, voxels, array axis order.
            values: `(B, N, D)`, voxels: the displacement at each point.
            confidence: `(B, N)`, 0..1; `None` trusts all points alike.
            shape: of the grid, D lengths.

        Raises:
            ValueError: shapes that do not fit.
        """


def usable_points(
    name: str, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Points and values with those to be left out at 0, and weights `(B, N)` that are 0 there and otherwise the
    confidence; all in the dtype of `values`.

    Raises:
        ValueError: shapes that do not fit; `name` begins the message.
    """
    dims = len(shape)
    if dims not in (2, 3) or min(shape) < 1:
        raise ValueError(f"{name}: shape must hold 2 or 3 positive lengths, got {tuple(shape)}")
    if points.ndim != 3 or points.shape[2] != dims or not points.is_floating_point():
        raise ValueError(f"{name}: points must be floating point (B, N, {dims}), got {tuple(points.shape)}")
    if values.shape != points.shape or not values.is_floating_point():
        raise ValueError(
            f"{name}: values must be floating point {tuple(points.shape)} like points, got {tuple(values.shape)}"
        )
    if confidence is not None and confidence.shape != points.shape[:2]:
        raise ValueError(f"{name}: confidence must be {tuple(points.shape[:2])}, got {tuple(confidence.shape)}")
    upper = points.new_tensor([n - 0.5 for n in shape])
    # Comparisons with NaN are false, so what is not a number is left out as well.
    good = ((points >= -0.5) & (points < upper)).all(dim=2) & values.isfinite().all(dim=2)
    weights = torch.ones_like(values[:, :, 0]) if confidence is None else confidence.to(values)
    good = good & (weights > 0) & weights.isfinite()
    zero = torch.zeros_like(values)
    kept = good[:, :, None]
    return (
        torch.where(kept, points.to(values), zero),
        torch.where(kept, values, zero),
        torch.where(good, weights, zero[:, :, 0]),
    )
