"""Multilevel B-splines near scattered displacements: Lee, Wolberg and Shin, IEEE TVCG 3 (1997)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.field.points import strides_of
from reg_bench.sparse_to_dense.affine_trend import affine_trend, trend_at
from reg_bench.sparse_to_dense.base import DenseField, Interpolation, usable_points
from reg_bench.transformation.bspline import control_shape, evaluate_bspline, refine_bspline


@dataclass(frozen=True)
class Spline:
    """A cubic B-spline.

    Attributes:
        coefficients: `(B, C, *P)`.
        intervals: of its control grid, per axis.
    """

    coefficients: Tensor
    intervals: tuple[int, ...]

    def __add__(self, other: Spline) -> Spline:
        """Of a spline on the same control grid."""
        return Spline(self.coefficients + other.coefficients, self.intervals)

    def on_grid(self, shape: Sequence[int]) -> Tensor:
        """Its values `(B, C, *S)`."""
        return evaluate_bspline(self.coefficients, self.intervals, shape)


class BSplineInterpolation(Interpolation):
    """Cubic B-splines on control grids from coarse to fine, each of which takes what the ones before leave.

    The affine function nearest to the points is taken off first, so that such functions are kept exactly, and far from
    all points it is all there is. No equations are solved: the cost is that of the points and of the grid.

    Args:
        spacing: the distance of control points on the finest grid, in voxels, about. Finer grids come nearer to the
            points and are less smooth between them.
        levels: how many grids, each with twice the intervals of the one before.
    """

    def __init__(self, spacing: float = 10.0, levels: int = 5) -> None:
        super().__init__()
        if not (spacing > 0 and math.isfinite(spacing)) or levels < 1:
            raise ValueError(
                f"BSplineInterpolation: spacing must be positive and levels at least 1, got {spacing} and {levels}"
            )
        self.spacing, self.levels = spacing, levels

    def forward(self, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]) -> DenseField:
        """The spline on a grid, as of `Interpolation`; it has no confidence."""
        shape = tuple(shape)
        points, values, weights = usable_points("BSplineInterpolation", points, values, confidence, shape)
        spline, _ = self.fitted(points, values, weights, shape)
        return DenseField(spline.on_grid(shape))

    def fitted(self, points: Tensor, values: Tensor, weights: Tensor, shape: tuple[int, ...]) -> tuple[Spline, Tensor]:
        """The spline, and what it leaves of `values (B, N, C)` at the points `(B, N, D)` of weight `(B, N)`."""
        affine = affine_trend(points, values, weights)
        left = values - trend_at(affine, points).to(values)
        coefficients: Tensor | None = None
        before: tuple[int, ...] = ()
        for intervals in self._intervals(shape):
            index, basis = _taps(points, intervals, shape)
            now = _approximation(left, weights, index, basis, control_shape(intervals))
            left = left - _at_points(now, index, basis)
            coefficients = now if coefficients is None else now + refine_bspline(coefficients, before, intervals)
            before = intervals
        assert coefficients is not None
        return Spline(coefficients + _affine_coefficients(affine, before, shape).to(values), before), left

    def _intervals(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Of the control grids, coarse to fine; an axis is divided in half from level to level where it is divided."""
        coarsest = [self.spacing * 2**level for level in reversed(range(self.levels))]
        first = [max(1, round((n - 1) / coarsest[0])) if n > 1 else 0 for n in shape]
        most = [max(1.0, (n - 1) / self.spacing) for n in shape]
        grids = [tuple(first)]
        for _ in range(self.levels - 1):
            doubled = (2 * m if 2 * m < 1.5 * top else m for m, top in zip(grids[-1], most, strict=True))
            grids.append(tuple(doubled))
        return list(dict.fromkeys(grids))


def _affine_coefficients(trend: Tensor, intervals: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """The coefficients `(B, C, *P)` of a spline that is an affine function: its values at the control points."""
    values = trend[:, 0].reshape(len(trend), -1, *(1,) * len(shape))
    for axis, (m, n, count) in enumerate(zip(intervals, shape, control_shape(intervals), strict=True)):
        # The first control point lies one interval before the grid.
        places = (torch.arange(count, device=trend.device, dtype=trend.dtype) - 1) * ((n - 1) / m) if m else None
        if places is not None:
            ordered = [1] * len(shape)
            ordered[axis] = count
            slope = trend[:, 1 + axis].reshape(len(trend), -1, *(1,) * len(shape))
            values = values + slope * places.reshape(ordered)
    return values


def _taps(points: Tensor, intervals: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Which coefficients make up the spline at `points (B, N, D)`, flat, and how: `(B, N, K)` each."""
    index = torch.zeros_like(points[:, :, :1], dtype=torch.long)
    basis = torch.ones_like(points[:, :, :1])
    for axis, (m, stride) in enumerate(zip(intervals, strides_of(control_shape(intervals)), strict=True)):
        if m == 0:
            continue
        place = points[:, :, axis].clamp(0, shape[axis] - 1) * (m / (shape[axis] - 1))
        first = place.detach().floor().clamp(max=m - 1)
        taps = (first.long()[:, :, None] + torch.arange(4, device=points.device)) * stride
        index = (index[..., None] + taps[:, :, None]).flatten(2)
        basis = (basis[..., None] * _cubic(place - first)[:, :, None]).flatten(2)
    return index, basis


def _cubic(v: Tensor) -> Tensor:
    """The four basis functions at a fraction of an interval, `(..., 4)`."""
    parts = ((1 - v) ** 3, 3 * v**3 - 6 * v**2 + 4, -3 * v**3 + 3 * v**2 + 3 * v + 1, v**3)
    return torch.stack(parts, dim=-1) / 6


def _approximation(values: Tensor, weights: Tensor, index: Tensor, basis: Tensor, control: tuple[int, ...]) -> Tensor:
    """The coefficients `(B, C, *P)` of a grid: equations 3 to 5 of the paper, points weighted.

    A point alone would have the coefficients `w z / sum(w^2)`; each coefficient is the mean of what the points around
    it would have, weighted by `w^2`.
    """
    squares = basis.square()
    alone = basis[..., None] * (values / squares.sum(dim=2, keepdim=True))[:, :, None]
    counted = squares * weights[:, :, None]
    stacked = torch.cat((alone * counted[..., None], counted[..., None]), dim=3).flatten(1, 2).transpose(1, 2)
    flat = index.flatten(1)[:, None].expand_as(stacked)
    sums = stacked.new_zeros(*stacked.shape[:2], math.prod(control)).scatter_add(2, flat, stacked)
    total = sums[:, -1:]
    reached = total > torch.finfo(total.dtype).tiny ** 0.5
    mean = torch.where(reached, sums[:, :-1] / torch.where(reached, total, torch.ones_like(total)), 0.0)
    return mean.reshape(len(values), -1, *control)


def _at_points(coefficients: Tensor, index: Tensor, basis: Tensor) -> Tensor:
    """The spline at the points, `(B, N, C)`."""
    batch, channels = coefficients.shape[:2]
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    taps = coefficients.flatten(2).gather(2, flat).reshape(batch, channels, *index.shape[1:])
    return (taps * basis[:, None]).sum(dim=3).transpose(1, 2)
