"""The grid of control points of a discrete search, and the costs of displacements around each of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reg_bench.cost_volume import difference_volume
from reg_bench.discrete.window import Window
from reg_bench.field.checks import at_least_float32
from reg_bench.field.separable import AxisMatrix, along_axes, axis_matrix

# Costs of voxels held at a time, before they are averaged over the cells of the control grid.
_CPU_COSTS, _OTHER_COSTS = 1 << 24, 1 << 28


@dataclass(frozen=True)
class ControlGrid:
    """Control points over an image; first and last points lie on the first and last voxels of every axis.

    Attributes:
        spatial: shape `*S` of the image.
        shape: number of points along each axis, `*M`.
        edges: voxel edges, in units of the shortest.
    """

    spatial: tuple[int, ...]
    shape: tuple[int, ...]
    edges: tuple[float, ...]

    @classmethod
    def over(cls, spatial: Sequence[int], cell_voxels: float, edges: Sequence[float] | None = None) -> ControlGrid:
        """The grid whose points have about the same distance along all axes, in millimetres, never below a voxel.

        Args:
            spatial: shape of the image.
            cell_voxels: voxels per control point; 1 puts a point on every voxel. The more, the less noise in the costs
                of a point: a cell of 64 voxels is 8 x 8 in 2-D and 4 x 4 x 4 in 3-D.
            edges: voxel edges in any unit; `None` means cubes.

        Raises:
            ValueError: fewer than one voxel per cell, or edges that do not fit.
        """
        edges = (1.0,) * len(spatial) if edges is None else tuple(float(e) for e in edges)
        if len(edges) != len(spatial) or min(edges) <= 0 or not cell_voxels >= 1:
            raise ValueError(
                f"ControlGrid: cell_voxels must be at least 1 and edges {len(spatial)} positive lengths, "
                f"got {cell_voxels} and {edges}"
            )
        relative = tuple(e / min(edges) for e in edges)
        steps = _steps(spatial, cell_voxels, relative)
        shape = tuple(max(1, round((n - 1) / s)) + 1 if n > 1 else 1 for n, s in zip(spatial, steps, strict=True))
        return cls(tuple(spatial), shape, relative)

    @property
    def step_voxels(self) -> tuple[float, ...]:
        """Distance of neighbouring points, per axis; 1 along an axis of one point."""
        return tuple((n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(self.spatial, self.shape, strict=True))

    @property
    def closeness(self) -> tuple[float, ...]:
        """Shortest distance of neighbouring points, over that along each axis; in millimetres, at most 1."""
        distances = [s * e for s, e in zip(self.step_voxels, self.edges, strict=True)]
        used = [d for d, m in zip(distances, self.shape, strict=True) if m > 1] or distances
        return tuple(min(1.0, min(used) / d) for d in distances)


def _steps(spatial: Sequence[int], cell_voxels: float, edges: Sequence[float]) -> list[float]:
    """Voxels per control point along each axis: as long in space, none below 1, with the product `cell_voxels`."""
    free = [a for a, n in enumerate(spatial) if n > 1]
    while free:
        length = (cell_voxels * math.prod(edges[a] for a in free)) ** (1 / len(free))
        thick = [a for a in free if length < edges[a]]
        if not thick:
            return [length / edges[a] if a in free else 1.0 for a in range(len(spatial))]
        free = [a for a in free if a not in thick]
    return [1.0] * len(spatial)


def unary_costs(fixed: Tensor, moving: Tensor, window: Window, grid: ControlGrid) -> Tensor:
    """The mean squared difference of features around each control point, for each displacement of a window.

    Voxels count by the weights of linear interpolation: one half way between two points counts half for each.

    Args:
        fixed, moving: features `(B, C, *S)`, floating point; beyond its grid the moving map repeats its border.
        window: displacements `o` of the moving map, `moving(x + o)`.
        grid: the control points, over `*S`.

    Returns:
        `(B, K, *M)`, without a graph; cases do not influence each other.

    Raises:
        ValueError: a window or grid that does not fit the features.
    """
    if tuple(fixed.shape[2:]) != grid.spatial or len(window.radius) != len(grid.spatial):
        raise ValueError(
            f"unary_costs: features, window and grid must fit, got features {tuple(fixed.shape)}, a window of radius "
            f"{window.radius} and a grid over {grid.spatial}"
        )
    work = at_least_float32(fixed, moving)
    matrices = [_cells(n, m, work, fixed.device) for n, m in zip(grid.spatial, grid.shape, strict=True)]
    out = fixed.new_empty((len(fixed), window.count, *grid.shape), dtype=work)
    with torch.no_grad():
        for k in range(len(fixed)):
            _costs_of_case(fixed[k : k + 1].to(work), moving[k : k + 1].to(work), window, matrices, out[k : k + 1])
    return out


def _costs_of_case(
    fixed: Tensor, moving: Tensor, window: Window, matrices: Sequence[AxisMatrix | None], out: Tensor
) -> None:
    """The window is cut along its first axes, so that the costs of all voxels never exist together."""
    most = _CPU_COSTS if fixed.device.type == "cpu" else _OTHER_COSTS
    axes, voxels = len(window.radius), fixed[0, 0].numel()
    cut = next((a for a in range(axes) if math.prod(window.labels[a:]) * voxels <= most), axes - 1)
    radius = (*(0,) * cut, *window.radius[cut:])
    leading = itertools.product(*(range(-r, r + 1) for r in window.radius[:cut]))
    for shifts, part in zip(leading, torch.split(out, math.prod(window.labels[cut:]), dim=1), strict=True):
        shifted = moving
        for axis, shift in enumerate(shifts):
            shifted = _shifted(shifted, axis + 2, shift * window.step)
        part.copy_(along_axes(difference_volume(fixed, shifted, radius, window.step), matrices))


def _shifted(values: Tensor, dim: int, shift: int) -> Tensor:
    """`values(x + shift)` along one axis, the border repeated."""
    if shift == 0:
        return values
    last = values.shape[dim] - 1
    where = (torch.arange(last + 1, device=values.device) + shift).clamp_(0, last)
    return values.index_select(dim, where)


@lru_cache(maxsize=64)
def _cells(length: int, points: int, dtype: torch.dtype, device: torch.device) -> AxisMatrix | None:
    """The matrix `(points, length)` that averages an axis over the cells of control points; its rows have sum 1."""
    if points == length:
        return None
    places = np.arange(length) * ((points - 1) / max(length - 1, 1))
    weights = np.clip(1 - np.abs(np.arange(points)[:, None] - places), 0, None)
    return axis_matrix(weights / weights.sum(axis=1, keepdims=True), dtype, device)
