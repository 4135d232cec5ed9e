"""Distances between the surfaces of two label maps, for all labels in one pass.

Two definitions of a surface stand side by side, because HD95 is not one number:

* `voxel_surfaces`: the voxels of a label with a face neighbour outside it (the image border counts as outside);
  unweighted percentile. This is MONAI's definition and the textbook one.
* `element_surfaces`: points on the grid of voxel corners whose 2×2(×2) neighbourhood is partly the label, weighted
  by the area of the surface in that neighbourhood. This is the definition of the package `surface-distance`,
  which the Learn2Reg evaluation uses.

Points that both surfaces share have distance 0. Around the others the grid is searched in growing shells, and only
points without a near partner go to a tree, if the percentile depends on them at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reg_bench.metrics.label_maps import Codes
from reg_bench.metrics.surface_elements import element_sizes

Indices = NDArray[np.int64]

# Half-width of the box that shells are cut from, and how many offsets are tried before a tree takes over.
_REACH = 4
_MOST_OFFSETS = 250
# When this share of the points is still alone after so many shells, the surfaces are far apart.
_TRIAL_SHELLS, _HOPELESS = 4, 0.9


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
        """The points of a code."""
        return slice(int(self.start[code]), int(self.start[code + 1]))

    def points(self, code: int) -> Indices:
        """`(N, D)` grid coordinates of the points of a code."""
        return np.stack(np.unravel_index(self.index[self.of(code)], self.shape), -1)


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
    return _completed(_Search(source, target, code, spacing).near(), source, target, code, spacing)


def directed_percentile(
    source: Surface, target: Surface, code: int, spacing: NDArray[np.float64], share: float = 0.95
) -> float:
    """The `share` percentile of the distances from `source` to `target`, as `percentile` has it.

    The neighbourhood of every point is searched first. Only where the percentile lies beyond it are the remaining
    points looked up in a tree.
    """
    weight = None if source.weight is None else source.weight[source.of(code)]
    near = _Search(source, target, code, spacing).near()
    if np.isfinite(near).mean() > share:
        value, certain = _percentile_and_certainty(near, weight, share)
        if certain:
            return value
    return percentile(_completed(near, source, target, code, spacing), weight, share)


def _completed(
    near: NDArray[np.float64], source: Surface, target: Surface, code: int, spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`near` with the distances that are still infinite looked up in a tree."""
    missing = np.flatnonzero(np.isinf(near))
    if missing.size:
        tree = cKDTree(target.points(code) * spacing, balanced_tree=False, compact_nodes=False)
        near[missing] = tree.query(source.points(code)[missing] * spacing)[0]
    return near


@lru_cache(maxsize=16)
def _shells(spacing: tuple[float, ...]) -> list[tuple[float, NDArray[np.int64]]]:
    """Distance and offsets `(K, D)` of the grid points around a point, nearest first, as far as all are listed."""
    reach = _REACH
    offsets = np.stack(np.meshgrid(*(np.arange(-reach, reach + 1),) * len(spacing), indexing="ij"), -1)
    offsets = offsets.reshape(-1, len(spacing))
    length = np.sqrt(((offsets * np.array(spacing)) ** 2).sum(1))
    # Farther away, a point outside the box could be nearer than one inside it.
    limit = (reach + 1) * min(spacing)
    found = []
    for distance in np.unique(length[(length > 0) & (length < limit)]):
        found.append((float(distance), offsets[length == distance]))
        if sum(len(shell) for _, shell in found) >= _MOST_OFFSETS:
            break
    return found


class _Search:
    """Looks for the nearest target point of one label in growing shells around the source points."""

    def __init__(self, source: Surface, target: Surface, code: int, spacing: NDArray[np.float64]) -> None:
        piece = source.of(code)
        self.shells = _shells(tuple(float(s) for s in spacing))
        self.result = np.zeros(piece.stop - piece.start)
        self.lonely = np.flatnonzero(~source.shared[piece])
        if self.lonely.size:
            points, others = source.points(code)[self.lonely], target.points(code)
            margin = _REACH
            low = np.minimum(points.min(0), others.min(0)) - margin
            box = np.maximum(points.max(0), others.max(0)) + margin + 1 - low
            self.strides = np.append(np.cumprod(box[:0:-1])[::-1], 1)
            self.occupied = np.zeros(int(box.prod()), bool)
            self.occupied[(others - low) @ self.strides] = True
            self.index = (points - low) @ self.strides

    def near(self) -> NDArray[np.float64]:
        """Distances; infinite for the points that have no target point in any shell."""
        remaining, index = self.lonely, self.index if self.lonely.size else self.lonely
        start = len(remaining)
        for number, (distance, offsets) in enumerate(self.shells):
            if not remaining.size or (number == _TRIAL_SHELLS and remaining.size > _HOPELESS * start):
                break
            steps = offsets @ self.strides
            hit = self.occupied[index + steps[0]]
            for step in steps[1:]:
                hit |= self.occupied[index + step]
            self.result[remaining[hit]] = distance
            remaining, index = remaining[~hit], index[~hit]
        self.result[remaining] = np.inf
        return self.result


def percentile(values: NDArray[np.float64], weight: NDArray[np.float64] | None, share: float = 0.95) -> float:
    """Percentile of distances: linear between order statistics, or, with weights, the smallest distance whose
    cumulative share of the weight reaches `share`."""
    return _percentile_and_certainty(values, weight, share)[0]


def _percentile_and_certainty(
    values: NDArray[np.float64], weight: NDArray[np.float64] | None, share: float
) -> tuple[float, bool]:
    """The percentile, and whether it stays the same when infinite values become finite but larger than all others."""
    if weight is None:
        with np.errstate(invalid="ignore"):
            value = float(np.quantile(values, share))
        return value, bool(np.isfinite(value))
    order = np.lexsort((weight, values))
    cumulative = np.cumsum(weight[order]) / np.sum(weight[order])
    place = min(int(np.searchsorted(cumulative, share)), len(values) - 1)
    value = float(values[order][place])
    # The order of the far values decides the last bits of the shares.
    clear = bool(np.abs(cumulative - share).min() > 1e-9)
    return value, bool(np.isfinite(value)) and clear


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
        yield max(directed_percentile(a, b, code, spacing) for a, b in ((first, second), (second, first)))
