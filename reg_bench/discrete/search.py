"""Discrete search from coarse to fine: at each level all displacements of a window compete, then the field is refined.

The moving image is warped by what is known and its features are computed anew, so that a window stays small. A
symmetric search warps both images half way towards each other and looks from each into the other: what both find
together is smooth, invertible, and exactly opposite when the images change places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.discrete.control_grid import ControlGrid, unary_costs
from reg_bench.discrete.regularization import Regularization
from reg_bench.discrete.window import Window
from reg_bench.field import compose, exponential, gaussian, resize, resize_image, warp
from reg_bench.pyramid import level_shapes, shrink

Features = Callable[[Tensor], Tensor]

# Squarings of the exponential: an increment changes by less than a voxel over its control points.
_SQUARINGS = 3


@dataclass(frozen=True)
class Level:
    """One round of the search: the control grid over an image of its resolution, and the window."""

    grid: ControlGrid
    window: Window


@dataclass(frozen=True)
class Search:
    """How displacements are chosen and refined.

    Attributes:
        features: of an image `(B, C, *S)`, what is compared: `(B, C', *S)`.
        regularization: chooses among the displacements of the control points.
        smoothing: standard deviation of the Gaussian that smooths every increment between its control points, in their
            distance.
        symmetric: both images move half way.
    """

    features: Features
    regularization: Regularization
    smoothing: float = 0.5
    symmetric: bool = True


def search_levels(
    shape: Sequence[int],
    shrink_factors: Sequence[float],
    radii: Sequence[int],
    cell_voxels: Sequence[float],
    *,
    edges: Tensor | None = None,
    smallest_size: int = 16,
) -> list[Level]:
    """The rounds of a search over images of `shape`, one per entry of the sequences.

    Args:
        shape: of the images.
        shrink_factors: how much coarser the image of a round is; thick axes shrink less (`level_shapes`).
        radii: of the windows, in voxels of the round along its thinnest axis; along thicker ones fewer, but at least
            one, and none along an axis of length 1.
        cell_voxels: voxels of the round per control point.
        edges: voxel edges `(D,)` in any unit; `None` means cubes.
        smallest_size: no axis is shrunk below this many voxels.
    """
    lengths = [1.0] * len(shape) if edges is None else [float(e) for e in edges]
    levels = []
    for number, level in enumerate(level_shapes(shape, shrink_factors, edges, smallest_size)):
        pairs = zip(lengths, shape, level, strict=True)
        coarse = [e * (n - 1) / (m - 1) if m > 1 else e for e, n, m in pairs]
        grid = ControlGrid.over(level, cell_voxels[number], coarse)
        wanted = (max(1, round(radii[number] / e)) for e in grid.edges)
        levels.append(Level(grid, Window(tuple(min(r, n - 1) for r, n in zip(wanted, level, strict=True)))))
    return levels


@torch.no_grad()
def coarse_to_fine(fixed: Tensor, moving: Tensor, levels: Sequence[Level], search: Search) -> Tensor:
    """The displacement that makes `moving` fit `fixed`, level after level.

    Args:
        fixed, moving: `(B, C, *S)` of one grid.
        levels: from `search_levels`.
        search: how.

    Returns:
        `u (B, D, *S)`, voxels, for `moving(x + u(x))`. Cases do not influence each other.
    """
    run = _half_way if search.symmetric else _one_way
    return run(fixed, moving, levels, search)


def _one_way(fixed: Tensor, moving: Tensor, levels: Sequence[Level], search: Search) -> Tensor:
    u = fixed.new_zeros(len(fixed), fixed.ndim - 2, *(1,) * (fixed.ndim - 2))
    for level in levels:
        u = _on_grid(u, level.grid.spatial)
        shown = shrink(fixed, level.grid.spatial), warp(shrink(moving, level.grid.spatial), u)
        a, b = (search.features(image) for image in shown)
        increment = _smooth(_chosen(a, b, level, search), level, search)
        u = compose(u, exponential(increment, _SQUARINGS))
    return _on_grid(u, fixed.shape[2:])


def _half_way(fixed: Tensor, moving: Tensor, levels: Sequence[Level], search: Search) -> Tensor:
    """`to_fixed` and `to_moving` lead from the middle to the images, `back` from the fixed image to the middle."""
    to_fixed = fixed.new_zeros(len(fixed), fixed.ndim - 2, *(1,) * (fixed.ndim - 2))
    to_moving = back = to_fixed
    for level in levels:
        to_fixed, to_moving, back = (_on_grid(u, level.grid.spatial) for u in (to_fixed, to_moving, back))
        sides = ((fixed, to_fixed), (moving, to_moving))
        a, b = (search.features(warp(shrink(image, level.grid.spatial), u)) for image, u in sides)
        found = (_chosen(a, b, level, search) - _chosen(b, a, level, search)) / 4
        half = _smooth(found, level, search)
        forwards, backwards = exponential(half, _SQUARINGS), exponential(-half, _SQUARINGS)
        to_fixed, to_moving = compose(to_fixed, backwards), compose(to_moving, forwards)
        back = compose(forwards, back)
    to_moving, back = (_on_grid(u, fixed.shape[2:]) for u in (to_moving, back))
    return compose(to_moving, back)


def _chosen(fixed: Tensor, moving: Tensor, level: Level, search: Search) -> Tensor:
    """The displacements of the control points `(B, D, *M)`, in voxels of the level, from features of both images."""
    costs = unary_costs(fixed, moving, level.window, level.grid)
    return search.regularization(costs, level.window, level.grid)


def _smooth(control: Tensor, level: Level, search: Search) -> Tensor:
    """A field on the control points, on the voxels of its level and smooth between the points."""
    sigmas = [search.smoothing * s if s > 1 else 0.0 for s in level.grid.step_voxels]
    return gaussian(resize_image(control, level.grid.spatial), sigmas)


def _on_grid(u: Tensor, spatial: Sequence[int]) -> Tensor:
    """A field on the grid of another level; the first, of one voxel, is zero everywhere."""
    if u[0, 0].numel() == 1:
        return u.new_zeros(*u.shape[:2], *spatial)
    return u if u.shape[2:] == torch.Size(spatial) else resize(u, spatial)
