"""Points followed over time, in voxels: one table of a sequence, or one file of points for each labelled frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reg_bench.csv_table import MORE_CELLS, read_lines
from reg_bench.errors import DataError
from reg_bench.points_io import read_points
from reg_bench.sequence_io import Series, frames_of_files, natural_order

_AXES = ("x", "y", "z")
_FILE_SUFFIXES = (".csv", ".fcsv", ".mrk.json")
_MARGIN = 0.5 + 1e-3  # voxels beyond the outer voxel centres, as in points_io


def read_tracks(path: Path, sequence: Series, reference: int) -> NDArray[np.float64]:
    """Points `(T, N, D)` in voxels of the frames; NaN where a point is not given.

    Args:
        path: a CSV with the header `frame,point,x,y[,z]` (frames from 0, points by any name), or a folder with a
            file of points (see `reg_bench.points_io`) for each frame that has some, its number in the name, row `n`
            the same point in all of them.
        sequence: the frames.
        reference: the frame in which every point must be given.

    Raises:
        DataError: every fault on a line of its own, with file and line.
    """
    if path.is_dir():
        tracks = _from_folder(path, sequence)
    elif path.is_file():
        tracks = _from_table(path, sequence)
    else:
        raise DataError(f"{path}: no such file or folder of points")
    absent = np.isnan(tracks[reference]).any(axis=1)
    if absent.all():
        raise DataError(f"{path}: no point in the reference frame {reference}, from which the points are followed")
    if absent.any():
        raise DataError(
            f"{path}: {int(absent.sum())} of {len(absent)} points are missing in the reference frame {reference}, "
            f"first number {int(np.flatnonzero(absent)[0]) + 1}; expected every point there"
        )
    return tracks


def _from_table(path: Path, sequence: Series) -> NDArray[np.float64]:
    columns = ("frame", "point", *_AXES[: sequence.dimension])
    try:
        rows = read_lines(path, required=columns, columns=columns, what="points")
    except DataError as error:
        raise DataError(f"{error} (a {sequence.dimension}-D sequence; coordinates in voxels)") from error
    faults: list[str] = []
    values: dict[tuple[int, str], tuple[float, ...]] = {}
    for line, cells in rows:
        fault = _row(line, cells, sequence, values)
        if fault:
            faults.append(f"{path}, line {line}: {fault}")
    if not faults and _normalised(np.asarray(list(values.values())), sequence):
        faults.append(f"{path}: all coordinates lie within -1..1; expected voxels of {sequence.grid.shape}, are they "
                      "normalised?")  # fmt: skip
    if faults:
        raise DataError("\n".join(faults))
    names = {name: index for index, name in enumerate(dict.fromkeys(name for _, name in values))}
    tracks = np.full((sequence.length, len(names), sequence.dimension), np.nan)
    for (frame, name), point in values.items():
        tracks[frame, names[name]] = point
    return tracks


def _row(line: int, cells: dict[str, str], sequence: Series, values: dict[tuple[int, str], tuple[float, ...]]) -> str:
    """Takes up a row; what is wrong with it, else an empty text."""
    if MORE_CELLS in cells:
        return f"more cells than columns: {cells[MORE_CELLS]!r}"
    if not cells["frame"].isdecimal() or int(cells["frame"]) >= sequence.length:
        return f"frame {cells['frame']!r}, expected 0..{sequence.length - 1}"
    if not cells["point"]:
        return "point is empty; expected a number or name"
    try:
        point = tuple(float(cells[axis]) for axis in _AXES[: sequence.dimension])
    except ValueError:
        point = (np.nan,)
    if not np.isfinite(point).all():
        return f"coordinates {[cells[a] for a in _AXES[: sequence.dimension]]}, expected finite numbers"
    key = (int(cells["frame"]), cells["point"])
    if key in values:
        return f"point {key[1]!r} of frame {key[0]} stands twice"
    values[key] = point
    return _outside(point, sequence.grid.shape)


def _outside(point: tuple[float, ...], shape: tuple[int, ...]) -> str:
    if _inside(point, shape):
        return ""
    where = ", ".join(f"{v:g}" for v in point)
    hint = "; are x and y exchanged?" if _inside((point[1], point[0], *point[2:]), shape) else ""
    return f"the point ({where}) lies outside the image of {shape} voxels{hint}"


def _inside(point: tuple[float, ...], shape: tuple[int, ...]) -> bool:
    return all(-_MARGIN <= v <= n - 1 + _MARGIN for v, n in zip(point, shape, strict=True))


def _normalised(values: NDArray[np.float64], sequence: Series) -> bool:
    """Whether more than one point lies where only normalised coordinates would put them all."""
    return len(values) > 1 and min(sequence.grid.shape) > 4 and bool((np.abs(values) <= 1).all())


def _from_folder(path: Path, sequence: Series) -> NDArray[np.float64]:
    names = (p for p in path.iterdir() if not p.name.startswith(".") and p.name.lower().endswith(_FILE_SUFFIXES))
    files = sorted(names, key=natural_order)
    if not files:
        raise DataError(f"{path}: a folder without files of points; expected {', '.join(_FILE_SUFFIXES)}")
    placed, faults = frames_of_files(files, sequence), []
    sets: dict[int, NDArray[np.float64]] = {}
    for frame, file in placed.items():
        try:
            sets[frame] = read_points(file, sequence.grid)
        except DataError as error:
            faults.append(str(error))
            continue
        first = next(iter(sets))
        if len(sets[frame]) != len(sets[first]):
            faults.append(f"{file}: {len(sets[frame])} points, expected {len(sets[first])} as in {placed[first].name}")
    if not faults and _normalised(np.concatenate(list(sets.values())), sequence):
        faults.append(f"{path}: all coordinates lie within -1..1; expected voxels, are they normalised?")
    if faults:
        raise DataError("\n".join(faults))
    tracks = np.full((sequence.length, len(next(iter(sets.values()))), sequence.dimension), np.nan)
    for frame, points in sets.items():
        tracks[frame] = points
    return tracks
