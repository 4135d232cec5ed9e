"""Tables of image sequences: a CSV is read and every file that it names is checked before any long work begins.

Checks look at headers, names and points. What needs the voxels (NaN, constant frames, labels that are absent) shows
when a case is loaded, and fails the cases concerned alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reg_bench.csv_table import MORE_CELLS, read_lines
from reg_bench.errors import DataError
from reg_bench.grid import grids_equal
from reg_bench.sequence_io import Series, frames_of_files, open_series
from reg_bench.sequence_points import read_tracks
from reg_bench.splits import SPLITS

FILES = ("sequence", "labels", "points", "mask")
COLUMNS = (*FILES, "labelled_frames", "reference", "seconds_per_frame", "spacing_mm", "case_id", "split")
# Share by which the table may differ from a header without a note.
_CLOSE = 0.05


@dataclass(frozen=True)
class SequenceRow:
    """One line of the table, checked.

    Attributes:
        files: existing files and folders by column.
        series: what the headers tell; spacing as the table has it, where it has one.
        labelled_frames: as listed; empty where the column is.
        seconds_per_frame: of the table, else of the file.
        spacing_mm: of the table only.
    """

    line: int
    case_id: str
    split: str
    files: dict[str, Path]
    series: Series
    reference: int
    seconds_per_frame: float
    spacing_mm: tuple[float, ...] = ()
    labelled_frames: tuple[int, ...] = ()


@dataclass
class SequenceTable:
    """The rows without fault, and every fault and note as line number and text."""

    rows: list[SequenceRow] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)


def read_sequence_table(path: Path) -> SequenceTable:
    """Reads a CSV of sequences and looks at every file it names; see `datamodules.sequences` for the columns.

    Raises:
        DataError: the table itself cannot be used: missing, not a CSV, unknown columns, no rows.
    """
    reader = _Reader(path, SequenceTable())
    for line, cells in read_lines(path, required=("sequence",), columns=COLUMNS, what="sequences"):
        reader.row(line, cells)
    return reader.table


@dataclass
class _Reader:
    """Checks row by row and collects what is wrong."""

    path: Path
    table: SequenceTable
    case_ids: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, tuple[str, int]] = field(default_factory=dict)

    def row(self, line: int, cells: dict[str, str]) -> None:
        faults: list[str] = []
        if MORE_CELLS in cells:
            faults.append(f"more cells than columns: {cells[MORE_CELLS]!r}")
        files = {c: self.path.parent / cells[c] for c in FILES if cells.get(c)}
        case_id, split = self._who(line, cells, files, faults)
        series, spacing = self._series(line, cells, files, faults)
        seconds = self._seconds(line, cells, series, faults)
        if series is not None:
            reference = _frame(cells.get("reference") or "0", series.length, faults)
            labelled = _labelled(cells, files, series, faults)
            notes: list[str] = []
            _check_labels(files, series, reference, labelled, faults, notes)
            _check_points(files, series, reference, faults)
            _check_mask(files, series, faults, notes)
            self.table.notes += [] if spacing else [(line, note) for note in notes]
            if not faults and seconds is not None:
                self.table.rows.append(
                    SequenceRow(line, case_id, split, files, series, reference, seconds, spacing, labelled)
                )
        self.table.faults += [(line, text) for text in faults]

    def _who(self, line: int, cells: dict[str, str], files: dict[str, Path], faults: list[str]) -> tuple[str, str]:
        """Identifier and split."""
        case_id = cells.get("case_id") or (_stem(files["sequence"]) if "sequence" in files else f"line-{line}")
        if case_id in self.case_ids:
            faults.append(f"duplicate case id {case_id!r}, first on line {self.case_ids[case_id]}")
        self.case_ids.setdefault(case_id, line)
        if not all(case_id.split("/")):
            faults.append(f"case_id {case_id!r}: an empty part before, between or after slashes; expected subject/name")
        split = cells.get("split") or "test"
        if split not in SPLITS:
            faults.append(f"split {split!r}, expected one of {', '.join(SPLITS)}")
            return case_id, split
        subject = case_id.split("/")[0]
        other, first = self.subjects.setdefault(subject, (split, line))
        if other != split:
            faults.append(f"subject {subject!r} in split {split!r}, expected {other!r} as on line {first}; one only")
        return case_id, split

    def _series(
        self, line: int, cells: dict[str, str], files: dict[str, Path], faults: list[str]
    ) -> tuple[Series | None, tuple[float, ...]]:
        """What the headers tell, with the spacing of the table, and that spacing."""
        spacing = _numbers(cells, "spacing_mm", faults)
        if "sequence" not in files:
            faults.append("sequence is empty; expected the name of a file or folder")
            return None, ()
        try:
            series = open_series(files["sequence"])
        except DataError as error:
            faults += _lines_of("sequence", error)
            return None, ()
        self.table.notes += [(line, f"sequence: {note}") for note in series.notes]
        if series.length < 2:
            faults.append(f"sequence: {series.path}: {series.length} frame, expected at least 2")
        if not spacing:
            return series, ()
        spacing = spacing * series.dimension if len(spacing) == 1 else spacing
        if len(spacing) != series.dimension:
            faults.append(f"spacing_mm: {len(spacing)} numbers, expected 1 or {series.dimension} for {series.path}")
            return series, ()
        if series.spacing_known and any(not _close(a, b) for a, b in zip(spacing, series.grid.spacing_mm, strict=True)):
            told = " ".join(f"{s:.4g}" for s in series.grid.spacing_mm)
            self.table.notes.append((line, f"spacing_mm: {series.path} says {told}; the table is used"))
        return series.with_spacing(spacing), spacing

    def _seconds(self, line: int, cells: dict[str, str], series: Series | None, faults: list[str]) -> float | None:
        given = _numbers(cells, "seconds_per_frame", faults)
        if len(given) > 1:
            faults.append(f"seconds_per_frame: {cells['seconds_per_frame']!r}, expected one number")
        if series is None:
            return None
        told = series.seconds_per_frame
        if not cells.get("seconds_per_frame"):
            if told is None:
                faults.append(f"seconds_per_frame is empty, and {series.path} does not tell it; expected seconds")
            return told
        if given and told is not None and not _close(given[0], told):
            self.table.notes.append((line, f"seconds_per_frame: {series.path} says {told:.4g}; the table is used"))
        return given[0] if given else None


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= _CLOSE * max(abs(a), abs(b))


def _lines_of(column: str, error: DataError) -> Iterator[str]:
    """An error that tells several faults, one a line."""
    return (f"{column}: {text}" for text in str(error).splitlines())


def _numbers(cells: dict[str, str], column: str, faults: list[str]) -> tuple[float, ...]:
    """Positive numbers in a cell."""
    parts = _parts(cells.get(column) or "")
    try:
        values = tuple(float(p) for p in parts)
    except ValueError:
        values = (math.nan,)
    if all(math.isfinite(v) and v > 0 for v in values):
        return values
    faults.append(f"{column}: {cells[column]!r}, expected positive numbers")
    return ()


def _parts(cell: str) -> list[str]:
    return [p for p in re.split(r"[\s;,x×]+", cell) if p]


def _frame(cell: str, length: int, faults: list[str]) -> int:
    if cell.isdecimal() and int(cell) < length:
        return int(cell)
    faults.append(f"reference {cell!r}, expected a frame number in 0..{length - 1}")
    return 0


def _labelled(cells: dict[str, str], files: dict[str, Path], series: Series, faults: list[str]) -> tuple[int, ...]:
    """The frames listed, in order: numbers and ranges such as `0 4-7`."""
    frames: list[int] = []
    for part in _parts(cells.get("labelled_frames") or ""):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            faults.append(f"labelled_frames: {part!r}, expected frame numbers such as 0 11 or a range such as 4-7")
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= series.length or first > last:
            faults.append(f"labelled_frames: {part}, expected within 0..{series.length - 1} for {series.path}")
            continue
        frames += range(first, last + 1)
    if len(set(frames)) < len(frames):
        faults.append(f"labelled_frames: {cells['labelled_frames']!r} names a frame twice")
    if frames and "labels" not in files:
        faults.append("labelled_frames without labels; expected a file or folder in the column labels")
    return tuple(sorted(set(frames)))


def _check_labels(
    files: dict[str, Path],
    series: Series,
    reference: int,
    listed: Sequence[int],
    faults: list[str],
    notes: list[str],
) -> None:
    if "labels" not in files:
        return
    try:
        labels = open_series(files["labels"], maps=True)
        check_grid(labels, series)
        frames = label_frames(labels, series, listed)
    except DataError as error:
        faults += _lines_of("labels", error)
        return
    notes += _disagreement("labels", labels, series)
    if (listed or len(frames) < series.length) and reference not in (listed or frames):
        shown = ", ".join(map(str, list(listed or frames)[:9]))
        faults.append(
            f"labels: {files['labels']}: none for the reference frame {reference}, so that nothing could be compared; "
            f"expected a reference among the labelled frames {shown}"
        )


def _disagreement(column: str, maps: Series, series: Series) -> list[str]:
    """Where headers place the same voxels differently."""
    if not (maps.spacing_known and series.spacing_known) or grids_equal(maps.grid, series.grid):
        return []
    return [
        f"{column}: {maps.path}: the header disagrees with that of {series.path}, whose geometry is used: "
        f"{maps.grid.describe()} against {series.grid.describe()}"
    ]


def check_grid(maps: Series, series: Series) -> None:
    """That labels or a mask lie on the grid of the frames.

    Raises:
        DataError: they have another shape.
    """
    if maps.grid.shape != series.grid.shape:
        raise DataError(f"{maps.path}: shape {maps.grid.shape}, expected {series.grid.shape} as {series.path}")


def label_frames(labels: Series, series: Series, listed: Sequence[int]) -> tuple[int, ...]:
    """Which frame of `series` each map of `labels` belongs to, in the order of the maps.

    Raises:
        DataError: their numbers do not fit.
    """
    if labels.files:
        number = {path: frame for frame, path in frames_of_files(labels.files, series).items()}
        frames = tuple(number[path] for path in labels.files)
        absent = [t for t in listed if t not in frames]
        if absent:
            raise DataError(f"{labels.path}: no file for frame {absent[0]}, which labelled_frames lists")
        return frames
    if labels.length == series.length:
        return tuple(range(series.length))
    if labels.length == len(listed):
        return tuple(listed)
    raise DataError(
        f"{labels.path}: {labels.length} frames, expected {series.length} as {series.path}, or those that "
        f"labelled_frames lists ({len(listed)})"
    )


def _check_points(files: dict[str, Path], series: Series, reference: int, faults: list[str]) -> None:
    if "points" in files:
        try:
            read_tracks(files["points"], series, reference)
        except DataError as error:
            faults += _lines_of("points", error)


def _check_mask(files: dict[str, Path], series: Series, faults: list[str], notes: list[str]) -> None:
    if "mask" not in files:
        return
    try:
        mask = open_series(files["mask"], maps=True)
        check_grid(mask, series)
    except DataError as error:
        faults += _lines_of("mask", error)
        return
    notes += _disagreement("mask", mask, series)
    if mask.length not in (1, series.length):
        faults.append(f"mask: {mask.path}: {mask.length} frames, expected 1 or {series.length} as {series.path}")


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if path.is_file() and "." in name else name
