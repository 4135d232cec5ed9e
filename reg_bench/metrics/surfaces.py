"""Distances between the surfaces of two label maps, for all labels in one pass.

Two definitions of a surface stand side by side, because HD95 is not one number:

* `voxel_surfaces`: the voxels of a label with a face neighbour outside it (the image border counts as outside);
  unweighted percentile. This is MONAI's definition and the textbook one.
* `element_surfaces`: points on the grid of voxel corners whose 2×2(×2) neighbourhood is partly the label, weighted
  by the area of the surface in that neighbourhood. This is the definition of the package `surface-distance`,
  which the Learn2Reg evaluation uses.

Points that both surfaces share have distance 0 and never enter a search tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reg_bench.metrics.label_maps import Codes
from reg_bench.metrics.surface_elements import element_sizes

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Surface:
    """Surface points of all labels of one map, grouped by label.

    Attributes:
        index: flat indices into a grid of shape `shape`, label after label.
        start: `index[start[c] : start[c + 1]]` belong to code `c`.
        shared: whether the surface of the same label in the other map holds the point too.
        weight: size of the surface element, or `None` where all count alike.
    """

    index: Indices
    start: Indices
    shared: NDArray[np.bool_]
    shape: tuple[int, ...]
    weight: NDArray[np.float64] | None = None

    def of(self, code: int) -> slice:
        return slice(int(self.start[code]), int(self.start[code + 1]))


def _grouped(codes: Codes, *columns: NDArray[Any], count: int) -> tuple[Indices, list[NDArray[Any]]]:
    """Starts of the groups, and the columns ordered by code (order within a code is kept)."""
    order = np.argsort(codes, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))])
    return start, [column[order] for column in columns]


def _voxel_edges(labels: Codes) -> NDArray[np.bool_]:
    """Voxels with a face neighbour of another label or at the border of the image; background excluded."""
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        view, out = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = view[1:] != view[:-1]
        out[1:] |= differs
        out[:-1] |= differs
        out[0] = out[-1] = True
    edge &= labels != 0
    return edge


def voxel_surfaces(fixed: Codes, warped: Codes, wanted: NDArray[np.bool_]) -> tuple[Surface, Surface]:
    """Surface voxels of every code that `wanted` marks, in both maps."""
    maps = (fixed, warped)
    edges = tuple(_voxel_edges(labels) for labels in maps)
    result = []
    for here, there in ((0, 1), (1, 0)):
        index = np.flatnonzero(edges[here])
        codes = maps[here].reshape(-1)[index]
        index = index[wanted[codes]]
        codes = codes[wanted[codes]]
        shared = edges[there].reshape(-1)[index] & (maps[there].reshape(-1)[index] == codes)
        start, (index, shared) = _grouped(codes, index, shared, count=len(wanted))
        result.append(Surface(index, start, shared, fixed.shape))
    return result[0], result[1]


def _mixed_corners(padded: Codes) -> Indices:
    """Flat indices, in the padded grid, of the low voxel of every 2×2(×2) neighbourhood that is not uniform."""
    low = high = padded
    for axis in range(padded.ndim):
        head = tuple(slice(None, -1) if a == axis else slice(None) for a in range(padded.ndim))
        tail = tuple(slice(1, None) if a == axis else slice(None) for a in range(padded.ndim))
        low, high = np.minimum(low[head], low[tail]), np.maximum(high[head], high[tail])
    corner = np.unravel_index(np.flatnonzero(low != high), low.shape)
    return np.ravel_multi_index(corner, padded.shape)


def _neighbours(padded: Codes, corners: Indices) -> NDArray[Any]:
    """`(2**D, M)` labels around each corner."""
    strides = np.cumprod([1, *padded.shape[:0:-1]])[::-1]
    offsets = [int(np.dot(bits, strides)) for bits in np.ndindex(*(2,) * padded.ndim)]
    flat = padded.reshape(-1)
    return np.stack([np.take(flat, corners + offset) for offset in offsets])


def element_surfaces(fixed: Codes, warped: Codes, wanted: NDArray[np.bool_]) -> tuple[Surface, Surface]:
    """Surface elements, on the grid of voxel corners, of every code that `wanted` marks, in both maps."""
    maps = tuple(np.pad(labels, 1) for labels in (fixed, warped))
    sizes = element_sizes(fixed.ndim)
    result = []
    for here, there in ((0, 1), (1, 0)):
        corners = _mixed_corners(maps[here])
        around, other = _neighbours(maps[here], corners), _neighbours(maps[there], corners)
        columns = [_elements_led_by(k, around, other, corners, wanted, sizes) for k in range(len(around))]
        codes, index, shared, weight = (np.concatenate(column) for column in zip(*columns, strict=True))
        start, (index, shared, weight) = _grouped(codes, index, shared, weight, count=len(wanted))
        result.append(Surface(index, start, shared, maps[here].shape, weight))
    return result[0], result[1]


def _elements_led_by(
    k: int,
    around: NDArray[Any],
    other: NDArray[Any],
    corners: Indices,
    wanted: NDArray[np.bool_],
    sizes: NDArray[np.float64],
) -> tuple[NDArray[Any], ...]:
    """Code, corner, shared, size of the elements whose label stands at neighbour `k` and at none before it."""
    chosen = wanted[around[k]]
    for earlier in range(k):
        chosen &= around[earlier] != around[k]
    columns = np.flatnonzero(chosen)
    label = around[k, columns]
    pattern = np.zeros(len(columns), np.uint8)
    beyond = np.zeros(len(columns), np.uint8)
    for bit in range(len(around)):
        pattern |= (around[bit, columns] == label).astype(np.uint8) << np.uint8(bit)
        beyond += other[bit, columns] == label
    shared = (beyond > 0) & (beyond < len(around))
    return label, corners[columns], shared, sizes[pattern]


def distances(source: Surface, target: Surface, code: int, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every surface point of `code` in `source` to the nearest one in `target`.

    `target` must have points of that label.
    """
    piece = source.of(code)
    result = np.zeros(piece.stop - piece.start)
    lonely = np.flatnonzero(~source.shared[piece])
    if lonely.size:
        points = np.stack(np.unravel_index(source.index[piece][lonely], source.shape), -1) * spacing
        others = np.stack(np.unravel_index(target.index[target.of(code)], target.shape), -1) * spacing
        tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
        result[lonely] = tree.query(points)[0]
    return result


def percentile(values: NDArray[np.float64], weight: NDArray[np.float64] | None, share: float = 0.95) -> float:
    """Percentile of distances: linear between order statistics, or, with weights, the smallest distance whose
    cumulative share of the weight reaches `share`."""
    if weight is None:
        return float(np.quantile(values, share))
    order = np.lexsort((weight, values))
    cumulative = np.cumsum(weight[order]) / np.sum(weight[order])
    place = min(int(np.searchsorted(cumulative, share)), len(values) - 1)
    return float(values[order][place])


def robust_hausdorff(
    surfaces: tuple[Surface, Surface], codes: NDArray[np.int64], spacing: NDArray[np.float64]
) -> Iterator[float]:
    """HD95 of every code: the larger of the two directed 95th percentiles.

    Infinite where only one of the maps has the label, not a number where neither has it.
    """
    first, second = surfaces
    for code in map(int, codes):
        sizes = [s.of(code).stop - s.of(code).start for s in surfaces]
        if 0 in sizes:
            yield float("nan") if sizes == [0, 0] else float("inf")
            continue
        yield max(
            percentile(distances(a, b, code, spacing), None if a.weight is None else a.weight[a.of(code)])
            for a, b in ((first, second), (second, first))
        )
