"""Landmarks from files, in voxels of their image.

Four formats, each with its own frame and unit; a file that does not state them is refused rather than guessed:

* Learn2Reg `.csv`: no header, `x,y,z` in voxels;
* `.csv` with the header `x_mm,y_mm,z_mm`: LPS millimetres;
* 3D Slicer `.fcsv`: millimetres in the coordinate system that the file declares (0 or RAS, 1 or LPS; 2 or IJK
  are voxels);
* 3D Slicer `.mrk.json`: millimetres, RAS or LPS as declared.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import DataError
from reg_bench.grid import Grid

Points = NDArray[np.float64]

_FORMATS = (
    "Learn2Reg .csv (x,y,z in voxels, no header), .csv with the header x_mm,y_mm,z_mm (LPS), "
    "3D Slicer .fcsv or .mrk.json"
)
_SYSTEMS = {"0": "RAS", "1": "LPS", "2": "IJK", "RAS": "RAS", "LPS": "LPS", "IJK": "IJK"}


def read_points(path: str | Path, grid: Grid, *, note: Callable[[str], None] | None = None) -> Points:
    """The points of a file, `(N, D)` voxel coordinates of `grid`.

    For a 2-D grid, files in three coordinates may be used if all points share the third.

    Args:
        path: one of the formats above, told apart by name and header.
        grid: the image that the points belong to.
        note: is told of points outside the image, which are then no error: Learn2Reg scores them.

    Raises:
        DataError: missing or unknown file, an undeclared coordinate system or unit, something that is not a
            number, no points, the wrong number of coordinates, normalised ones, or a point outside the image.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file of points")
    name = path.name.lower()
    if name.endswith(".csv"):
        values, system = _read_csv(path, grid)
    elif name.endswith(".fcsv"):
        values, system = _read_fcsv(path)
    elif name.endswith(".mrk.json"):
        values, system = _read_markups(path)
    else:
        raise DataError(f"{path}: unknown format of points, expected {_FORMATS}")
    stored = _as_array(path, values)
    voxels = _to_voxels(path, stored, system, grid)
    # In every image of some size a corner of one voxel is where nobody puts all landmarks.
    if system == "IJK" and len(stored) > 1 and min(grid.shape) > 4 and bool((np.abs(stored) <= 1).all()):
        raise DataError(
            f"{path}: all coordinates lie within -1..1; expected voxels of {grid.shape}, are they normalised?"
        )
    problem = _outside(path, voxels, grid, system)
    if problem and note is None:
        raise DataError(problem)
    if problem and note is not None:
        note(problem)
    return voxels


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not a readable text file of points ({error})") from error


def _as_array(path: Path, rows: Sequence[Sequence[Any]]) -> Points:
    """Rows of equal length as numbers."""
    if not rows:
        raise DataError(f"{path}: holds no points")
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise DataError(f"{path}: rows of different length {sorted(lengths)}, expected one point in each row")
    for number, row in enumerate(rows, start=1):
        if not all(_is_number(value) for value in row):
            raise DataError(f"{path}: point {number} is {list(row)}, expected finite numbers")
    return np.asarray(rows, dtype=np.float64)


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _read_csv(path: Path, grid: Grid) -> tuple[list[list[str]], str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(_text(path).splitlines()) if any(row)]
    if not rows:
        raise DataError(f"{path}: holds no points")
    header = rows[0]
    if any(_is_number(cell) for cell in header):
        if len(header) == 2 * grid.dimension:
            raise DataError(
                f"{path}: {len(header)} columns; the six-column landmark file of Learn2Reg 2020 holds fixed and "
                f"moving points together, expected {grid.dimension} columns of one image"
            )
        return rows, "IJK"
    expected = ["x_mm", "y_mm", "z_mm"]
    if [cell.lower() for cell in header] in (expected, expected[: grid.dimension]):
        return rows[1:], "LPS"
    raise DataError(
        f"{path}: unknown header {','.join(header)!r}, expected {','.join(expected)!r} (LPS) "
        "or no header (Learn2Reg, voxels)"
    )


def _read_fcsv(path: Path) -> tuple[list[list[str]], str]:
    """Slicer's fiducial list: comment lines `# key = value`, then one point in each line."""
    settings: dict[str, str] = {}
    rows: list[list[str]] = []
    for row in csv.reader(_text(path).splitlines()):
        line = ",".join(row).strip()
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").partition("=")
            settings[key.strip().lower()] = value.strip()
        elif line:
            rows.append([cell.strip() for cell in row])
    columns = [c.strip().lower() for c in settings.get("columns", "id,x,y,z").split(",")]
    if not {"x", "y", "z"} <= set(columns):
        raise DataError(f"{path}: columns {columns}, expected x, y and z among them")
    places = [columns.index(axis) for axis in "xyz"]
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(places):
            raise DataError(f"{path}: point {number} has {len(row)} columns, expected {', '.join(columns)}")
    return [[row[i] for i in places] for row in rows], _system(path, settings.get("coordinatesystem"))


def _system(path: Path, declared: Any) -> str:
    """The coordinate system that a Slicer file declares."""
    system = _SYSTEMS.get(str(declared).strip().upper()) if declared is not None else None
    if system is None:
        raise DataError(
            f"{path}: coordinate system {declared!r}, expected a declared RAS (0), LPS (1) or IJK (2); "
            "it is not guessed"
        )
    return system


def _read_markups(path: Path) -> tuple[list[Any], str]:
    """Slicer's markups: one list of control points."""
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: unreadable or truncated JSON ({error})") from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or len(markups) != 1 or not isinstance(markups[0], dict):
        count = len(markups) if isinstance(markups, list) else 0
        raise DataError(f"{path}: {count} markups, expected one list of control points")
    markup = markups[0]
    system = _system(path, markup.get("coordinateSystem"))
    units = markup.get("coordinateUnits", "mm")
    if system != "IJK" and any(unit != "mm" for unit in ([units] if isinstance(units, str) else units)):
        raise DataError(f"{path}: coordinateUnits {units!r}, expected mm")
    rows = []
    for number, point in enumerate(markup.get("controlPoints") or [], start=1):
        if point.get("positionStatus", "defined") != "defined" or not isinstance(point.get("position"), list):
            raise DataError(f"{path}: control point {number} has no defined position")
        rows.append(point["position"])
    return rows, system


def _to_voxels(path: Path, values: Points, system: str, grid: Grid) -> Points:
    """Coordinates of a system as voxels of the grid."""
    dims = grid.dimension
    if values.shape[1] == 3 and dims == 2 and np.ptp(values[:, 2]) < 1e-3:
        values = values[:, :2]
    if values.shape[1] != dims:
        raise DataError(f"{path}: {values.shape[1]} coordinates in each row, expected {dims} for a {dims}-D image")
    if system == "IJK":
        return values
    if system == "RAS":
        values = values * np.array([-1.0, -1.0, 1.0])[:dims]
    return grid.to_voxels(values)


def _outside(path: Path, voxels: Points, grid: Grid, system: str) -> str | None:
    """What is wrong where a point lies more than a voxel outside the image.

    The bound is half a voxel beyond the outer voxel centres plus a little for coordinates written with few
    decimals.
    """
    margin = 0.5 + 1e-3
    upper = np.asarray(grid.shape) - 1 + margin
    outside = ((voxels < -margin) | (voxels > upper)).any(axis=1)
    if not outside.any():
        return None
    first = int(np.flatnonzero(outside)[0])
    where = ", ".join(f"{v:.2f}" for v in voxels[first])
    read = "voxels" if system == "IJK" else f"{system} mm"
    return (
        f"{path}: {int(outside.sum())} of {len(voxels)} points lie outside the image, the first is point {first + 1} "
        f"at voxel ({where}); expected within {grid.shape} voxels. The file was read as {read}; does it belong to "
        "this image?"
    )
