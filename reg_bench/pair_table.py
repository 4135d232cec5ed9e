"""Tables of image pairs: a CSV is read and every file that it names is checked before any long work begins.

Checks look at headers and points only. What needs the voxels (NaN, a constant image, labels that are absent)
shows when a case is loaded, and fails that case alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reg_bench.csv_table import MORE_CELLS, read_lines
from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.image_io import read_grid
from reg_bench.points_io import read_points
from reg_bench.splits import SPLITS

IMAGES = ("fixed", "moving", "fixed_labels", "moving_labels", "mask")
POINTS = ("fixed_points", "moving_points")
REQUIRED = ("fixed", "moving")
COLUMNS = (*IMAGES, *POINTS, "case_id", "split")


@dataclass(frozen=True)
class PairRow:
    """One line of the table: existing files by column, and who it is."""

    line: int
    case_id: str
    split: str
    files: dict[str, Path]


@dataclass
class _Reader:
    """Checks row by row and collects what is wrong."""

    path: Path
    faults: list[tuple[int, str]] = field(default_factory=list)
    grids: dict[Path, Grid | str] = field(default_factory=dict)
    case_ids: dict[str, int] = field(default_factory=dict)

    def fault(self, line: int, text: str) -> None:
        self.faults.append((line, text))

    def row(self, line: int, cells: dict[str, str]) -> PairRow:
        files = {c: self.path.parent / cells[c] for c in (*IMAGES, *POINTS) if cells.get(c)}
        for column in REQUIRED:
            if column not in files:
                self.fault(line, f"{column} is empty; expected the name of an image file")
        case_id = cells.get("case_id") or "--".join(_stem(files[c]) for c in REQUIRED if c in files)
        if case_id in self.case_ids:
            self.fault(line, f"duplicate case id {case_id!r}, first on line {self.case_ids[case_id]}")
        self.case_ids.setdefault(case_id, line)
        split = cells.get("split") or "test"
        if split not in SPLITS:
            self.fault(line, f"split {split!r}, expected one of {', '.join(SPLITS)}")
        self._check_images(line, files)
        self._check_points(line, files)
        return PairRow(line, case_id, split, files)

    def _grid(self, path: Path) -> Grid | None:
        """The grid of a file; `None` where it cannot be read, which is reported by `_check_images`."""
        if path not in self.grids:
            try:
                self.grids[path] = read_grid(path)
            except DataError as error:
                self.grids[path] = str(error)
        grid = self.grids[path]
        return grid if isinstance(grid, Grid) else None

    def _check_images(self, line: int, files: dict[str, Path]) -> None:
        grids = {c: self._grid(files[c]) for c in IMAGES if c in files}
        for column in grids:
            error = self.grids[files[column]]
            if isinstance(error, str):
                self.fault(line, f"{column}: {error}")
        fixed, moving = grids.get("fixed"), grids.get("moving")
        if fixed and moving and fixed.dimension != moving.dimension:
            self.fault(
                line,
                f"moving: {files['moving']}: a {moving.dimension}-D image {moving.shape}, expected the dimension of "
                f"{files['fixed']}, a {fixed.dimension}-D image {fixed.shape}",
            )
        for column in ("fixed_labels", "moving_labels", "mask"):
            of = "moving" if column == "moving_labels" else "fixed"
            grid, image = grids.get(column), grids.get(of)
            if grid and image and grid.shape != image.shape:
                self.fault(
                    line,
                    f"{column}: {files[column]}: shape {grid.shape}, expected {image.shape} as its image {files[of]}",
                )

    def _check_points(self, line: int, files: dict[str, Path]) -> None:
        counts: dict[str, int] = {}
        for column, image in zip(POINTS, REQUIRED, strict=True):
            if column not in files:
                continue
            grid = self._grid(files[image]) if image in files else None
            if not files[column].is_file():
                self.fault(line, f"{column}: {files[column]}: no such file of points")
            elif grid is not None:
                try:
                    counts[column] = len(read_points(files[column], grid))
                except DataError as error:
                    self.fault(line, f"{column}: {error}")
        given = [c for c in POINTS if c in files]
        if len(given) == 1:
            self.fault(line, f"{given[0]}: {files[given[0]]}: points of one image only; expected both or none")
        if len(counts) == 2 and len(set(counts.values())) == 2:
            self.fault(
                line,
                f"moving_points: {files['moving_points']}: {counts['moving_points']} points, expected "
                f"{counts['fixed_points']} as in {files['fixed_points']}",
            )


def read_pair_table(path: str | Path) -> tuple[list[PairRow], list[tuple[int, str]]]:
    """The rows of a CSV of pairs that are sound, and every fault of the others as line number and text.

    The first line names the columns: `fixed` and `moving` are required; `fixed_labels`, `moving_labels`,
    `fixed_points`, `moving_points`, `mask`, `case_id` and `split` may follow in any order. Names of files are
    relative to the folder of the CSV. Without `case_id` the names of the two images make one; without `split` a
    row belongs to `test`.

    Raises:
        DataError: the table itself cannot be used: missing, not a CSV, unknown columns, no rows.
    """
    path = Path(path)
    reader, rows = _Reader(path), []
    for line, cells in read_lines(path, required=REQUIRED, columns=COLUMNS, what="pairs"):
        extra = cells.pop(MORE_CELLS, None)
        if extra is not None:
            reader.fault(line, f"more cells than columns: {extra!r}")
        row = reader.row(line, cells)
        if not any(number == line for number, _ in reader.faults):
            rows.append(row)
    return rows, reader.faults


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
