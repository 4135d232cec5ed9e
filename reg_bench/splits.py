"""Reading the `split.csv` that goes with a dataset: which subject belongs to train, val or test."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from reg_bench.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def read_split(path: Path, subject: str, split: str) -> list[dict[str, str]]:
    """The rows of `path` that belong to `split`, in the order of the file.

    Args:
        path: CSV with the columns `subject` and `split`.
        subject: name of the column that identifies a subject.
        split: `train`, `val` or `test`.

    Raises:
        DataError: no such file, a missing column, an unknown split or a subject that occurs twice; names
            file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; it says which subject belongs to train, val and test")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [c for c in (subject, "split") if c not in (reader.fieldnames or [])]
        if absent:
            raise DataError(f"{path}: no column {absent[0]!r}; found {', '.join(reader.fieldnames or []) or 'none'}")
        rows = list(reader)
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise DataError(f"{path}, line {line}: split must be one of {', '.join(SPLITS)}, got {row['split']!r}")
        if row[subject] in seen:
            raise DataError(f"{path}, line {line}: {row[subject]!r} occurs twice")
        seen.add(row[subject])
    return [row for row in rows if row["split"] == split]
