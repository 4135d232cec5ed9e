"""Thin-plate splines through scattered displacements: the paper's ECO+TPS."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.sparse_to_dense.affine_trend import affine_trend, trend_on_grid
from reg_bench.sparse_to_dense.base import DenseField, Interpolation, usable_points
from reg_bench.transformation import thin_plate_spline

# Points that extend less than this share of their extent across a line (plane) count as lying on it.
_FLAT = 1e-4


class ThinPlateInterpolation(Interpolation):
    """The smoothest field through the points (thesis eqs. 2.9-2.10), at their places between the voxels.

    Points at one place are one point, with their mean by confidence. Points too few or too nearly on a line (plane)
    for a spline give the affine function nearest to them.

    Args:
        lam: 0 passes through every point, whatever its confidence. Above that it smooths, in `voxel^2` (2-D) or
            `voxel` (3-D) as of `thin_plate_spline`: a point of confidence c is held by `lam / c`.
        least_confidence: points below it are left out.
    """

    def __init__(self, lam: float = 0.0, least_confidence: float = 0.0) -> None:
        super().__init__()
        if not (lam >= 0 and math.isfinite(lam)):
            raise ValueError(f"ThinPlateInterpolation: lam must be finite and at least 0, got {lam}")
        if not 0 <= least_confidence <= 1:
            raise ValueError(f"ThinPlateInterpolation: least_confidence must be in 0..1, got {least_confidence}")
        self.lam, self.least_confidence = lam, least_confidence

    def forward(self, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]) -> DenseField:
        """The spline on a grid, as of `Interpolation`; it has no confidence."""
        points, values, weights = usable_points("ThinPlateInterpolation", points, values, confidence, shape)
        weights = torch.where(weights >= self.least_confidence, weights, torch.zeros_like(weights))
        # How many points there are depends on the case.
        cases = [self._one(*case, tuple(shape)) for case in zip(points, values, weights, strict=True)]
        return DenseField(torch.cat(cases) if cases else values.new_zeros(0, len(shape), *shape))

    def _one(self, points: Tensor, values: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The field `(1, D, *S)` of points `(N, D)`."""
        kept = weights > 0
        p, v, w = _distinct(points[kept], values[kept], weights[kept])
        if not _determine_a_spline(p):
            return trend_on_grid(affine_trend(p[None], v[None], w[None]), shape, v.dtype)
        spline = thin_plate_spline(p[None], v[None], self.lam / w[None] if self.lam else 0.0)
        return spline.on_grid(shape, p.new_ones(1, len(shape)).double(), v.dtype)


def _distinct(points: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points `(N, D)` without repetition; values are means by weight, weights sums."""
    places, index = torch.unique(points.detach(), dim=0, return_inverse=True)
    if len(places) == len(points):
        return points, values, weights
    sums = torch.zeros_like(weights[: len(places)]).index_add(0, index, weights)
    means = torch.zeros_like(values[: len(places)]).index_add(0, index, values * weights[:, None])
    return places, means / sums[:, None], sums


def _determine_a_spline(points: Tensor) -> bool:
    """Whether points `(N, D)` bend in every direction in which they vary; those equal along an axis may be a slice."""
    if len(points) < 3:
        return False
    p = points.detach().to(torch.float64)
    varying = p[:, (p != p[0]).any(dim=0)]
    if len(p) <= varying.shape[1] + 1:
        return False
    extents = torch.linalg.svdvals(varying - varying.mean(dim=0))
    return bool(extents[-1] > _FLAT * extents[0])
