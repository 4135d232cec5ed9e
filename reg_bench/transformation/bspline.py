"""Cubic B-splines on regular control grids, axis by axis: thesis eqs. 2.11–2.13; Rueckert et al., IEEE TMI 18 (1999).

A spline in several dimensions is a product of splines of one, so it is evaluated by one small matrix per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix

_REACH = 3  # coefficients beyond the number of intervals: a cubic has four at every place


def bspline_weights(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four basis functions at a `fraction (...)` of an interval, `(..., 4)` (thesis eq. 2.13, the first corrected
    to `(1 - v)^3 / 6`)."""
    v = fraction
    parts = ((1 - v) ** 3, 3 * v**3 - 6 * v**2 + 4, -3 * v**3 + 3 * v**2 + 3 * v + 1, v**3)
    return np.stack(parts, axis=-1) / 6


def bspline_basis(places: NDArray[np.float64], intervals: int) -> NDArray[np.float64]:
    """The basis functions of an axis at `places (n,)`, counted in intervals from 0 to `intervals`: `(n, P)`.

    `P = intervals + 3`; with no interval (an axis of one voxel) there is one constant function.
    """
    if intervals == 0:
        return np.ones((len(places), 1))
    first = np.clip(np.floor(places).astype(int), 0, intervals - 1)
    basis = np.zeros((len(places), intervals + _REACH))
    rows = np.arange(len(places))[:, None]
    basis[rows, first[:, None] + np.arange(4)] = bspline_weights(places - first)
    return basis


def control_shape(intervals: Sequence[int]) -> tuple[int, ...]:
    """The number of coefficients along each axis."""
    return tuple(m + _REACH if m else 1 for m in intervals)


def evaluate_bspline(coefficients: Tensor, intervals: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The spline on a grid whose first and last voxels are the first and last knots.

    Args:
        coefficients: `(B, C, *P)` with `P = control_shape(intervals)`; more than that along an axis are ignored.
        intervals: of the control grid, per axis.
        shape: of the grid.

    Returns:
        `(B, C, *S)`, differentiable.
    """
    device, dtype = coefficients.device, coefficients.dtype
    matrices = [
        _evaluation(n, m, p, dtype, device) for n, m, p in zip(shape, intervals, coefficients.shape[2:], strict=True)
    ]
    return along_axes(coefficients, matrices)


def refine_bspline(coefficients: Tensor, intervals: Sequence[int], finer: Sequence[int]) -> Tensor:
    """The coefficients of a spline on another control grid over the same extent.

    Exact where every interval is divided into equal parts, as from one level of a pyramid to the next; otherwise the
    best fit in the sense of least squares.

    Args:
        coefficients: `(B, C, *P)` for `intervals`.
        intervals, finer: per axis, of the control grids.

    Returns:
        `(B, C, *P')` for `finer`.
    """
    matrices = [
        None if old == new else _refinement(old, new, coefficients.dtype, coefficients.device)
        for old, new in zip(intervals, finer, strict=True)
    ]
    return along_axes(coefficients, matrices)


@lru_cache(maxsize=64)
def _evaluation(length: int, intervals: int, columns: int, dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    places = np.linspace(0, intervals, length) if length > 1 else np.zeros(1)
    basis = bspline_basis(places, intervals)
    return axis_matrix(np.pad(basis, ((0, 0), (0, columns - basis.shape[1]))), dtype, device)


@lru_cache(maxsize=64)
def _refinement(old: int, new: int, dtype: torch.dtype, device: torch.device) -> AxisMatrix:
    """The least-squares fit at places that determine the new spline: four in every interval, and the ends."""
    fractions = np.linspace(0, 1, 4 * max(old, new, 1) + 1)
    fine, coarse = bspline_basis(fractions * new, new), bspline_basis(fractions * old, old)
    fitted: NDArray[np.float64] = np.linalg.lstsq(fine, coarse, rcond=None)[0].astype(np.float64)
    return axis_matrix(fitted, dtype, device)
