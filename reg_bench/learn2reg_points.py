"""Corresponding points of Learn2Reg: a `.csv` for each image, or in 2020 one `.txt` for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.points_io import Points, read_points


def read_pair_points(
    path: Path, side: int, grids: tuple[Grid, Grid], note: Callable[[str], None] = lambda text: None
) -> Points:
    """Points of the fixed (`side` 0) or moving image (1) in voxels, from a `.csv`, or from the `.txt` of 2020.

    Args:
        note: told of points outside the image, which the challenge scores.

    Raises:
        DataError: see `reg_bench.points_io.read_points` and `read_landmarks`.
    """
    if path.suffix.lower() == ".txt":
        return read_landmarks(path, grids, note)[side]
    return read_points(path, grids[side], note=note)


def read_landmarks(path: Path, grids: tuple[Grid, Grid], note: Callable[[str], None]) -> tuple[Points, Points]:
    """Fixed and moving points of `case_NNN.txt`: six columns in voxels, fixed x, y, z and moving x, y, z.

    Raises:
        DataError: missing, not six numbers in each row, or empty.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable text file of landmarks ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = [float(cell) for cell in line.split(",")]
        except ValueError:
            row = []
        if len(row) != 6 or not np.isfinite(row).all():
            raise DataError(f"{path}: row {number} is {line[:60]!r}, expected six numbers: fixed x,y,z, moving x,y,z")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no landmarks")
    values = np.asarray(rows, dtype=np.float64)
    sides = (values[:, :3], values[:, 3:])
    for role, points, grid in zip(("fixed", "moving"), sides, grids, strict=True):
        outside = ((points < -0.501) | (points > np.asarray(grid.shape) - 0.499)).any(axis=1)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            note(
                f"{path}: {int(outside.sum())} of {len(points)} {role} points lie outside the image, the first in row "
                f"{first + 1} at {points[first].tolist()}; expected within {grid.shape} voxels."
            )
    return sides
