"""Normalised gradient fields whose energy cannot be lowered by sharpening an image."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.field.differences import difference
from reg_bench.similarity.base import (
    Differentiable,
    Similarity,
    check_fixed,
    check_warped,
    expanded,
    inverse_edges,
    mean_weights,
)


class BalancedNGF(Similarity):
    """One minus the correlation of squared gradients: `NGF` with equal images as its exact minimum.

    The energy of `NGF` (thesis 2.29-2.31) also falls where a warp makes weak gradients stronger, so that it moves
    images that are equal. Here, with the normalised gradients `n_F`, `n_W` of that equation,

        `1 - sum (n_F . n_W)^2 / sqrt(sum |n_F|^4 sum |n_W|^4)`,

    which by Cauchy and Schwarz is never below 0, and 0 for equal and for inverted images. Mean over channels; images
    without any gradient give 1. Gradients are physical, in units of the geometric mean voxel edge.

    Args:
        noise: `eta` of (2.31); 1 takes gradients below the mean for noise.

    Raises:
        ValueError: noise that is not positive.
    """

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        if not noise > 0:
            raise ValueError(f"BalancedNGF: noise must be positive, got {noise}")
        self.noise = noise

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Differentiable:
        check_fixed("BalancedNGF", fixed)
        dtype = at_least_float32(fixed)
        weights = mean_weights("BalancedNGF", mask, fixed, dtype)
        edges = inverse_edges("BalancedNGF", fixed, spacing_mm, dtype)
        inverse = None if edges is None else edges.reshape(*edges.shape, *(1,) * (fixed.ndim - 1))
        usable = None if weights is None else weights.flatten(1).any(dim=1)
        own = self._normalised(fixed.to(dtype), weights, inverse)
        own_power = _mean(own.square().sum(1).square(), weights)

        def energy(warped: Tensor) -> Tensor:
            check_warped("BalancedNGF", fixed, warped)
            other = self._normalised(warped.to(dtype), weights, inverse)
            power = _mean(other.square().sum(1).square(), weights)
            common = _mean((own * other).sum(1).square(), weights)
            tiny = torch.finfo(dtype).tiny ** 0.5
            value = (1 - common / (own_power * power).clamp(min=tiny).sqrt()).mean(dim=1)
            return value if usable is None else value * usable

        return Differentiable(energy)

    def _normalised(self, image: Tensor, weights: Tensor | None, inverse: Tensor | None) -> Tensor:
        """`(B, D, C, *S)`: gradients over `sqrt(|grad|^2 + eps^2)`, eps from the mean magnitude."""
        gradient = torch.stack([difference(image, dim) for dim in range(2, image.ndim)], dim=1)
        if inverse is not None:
            gradient = gradient * inverse
        square = gradient.square().sum(dim=1)
        # The root of zero has no derivative.
        magnitude = _mean((square + torch.finfo(square.dtype).tiny ** 0.5).sqrt(), weights)
        epsilon = expanded((self.noise * magnitude).square(), square) + torch.finfo(square.dtype).tiny ** 0.5
        return gradient / (square + epsilon).sqrt()[:, None]


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The weighted mean over the grid of `values (B, C, *S)`: `(B, C)`."""
    return values.flatten(2).mean(dim=2) if weights is None else (values * weights).flatten(2).sum(dim=2)
