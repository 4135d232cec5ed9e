"""Tables that a user writes: lines of a CSV with known columns, checked before a row is looked at."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from reg_bench.errors import DataError

MORE_CELLS = ""  # column under which `read_lines` gives the cells beyond the last column


def read_lines(
    path: Path, *, required: Sequence[str], columns: Sequence[str], what: str
) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column of every row; columns may stand in any order.

    Args:
        path: the table; its first line names the columns.
        required: columns that must be there.
        columns: all that may be there.
        what: the rows are called so in messages, such as `pairs`.

    Raises:
        DataError: no such file, not a CSV, a column that is missing, unknown or twice there, or no rows.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table of {what}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey=MORE_CELLS, restval="", skipinitialspace=True)
            names = [c.strip() for c in reader.fieldnames or []]
            _check_columns(path, names, required, columns)
            reader.fieldnames = names
            rows = [(reader.line_num, {k: _text(v) for k, v in row.items()}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: holds no {what}, only a header")
    return rows


def _text(cell: str | list[str]) -> str:
    return ",".join(cell) if isinstance(cell, list) else cell.strip()


def _check_columns(path: Path, names: list[str], required: Sequence[str], columns: Sequence[str]) -> None:
    for column in required:
        if column not in names:
            raise DataError(
                f"{path}: no column {column!r} in the first line; expected {','.join(required)} and any of "
                f"{', '.join(c for c in columns if c not in required)}; got {','.join(names) or 'nothing'}"
            )
    for column in names:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(columns)}"
            raise DataError(f"{path}: unknown column {column!r}{hint}")
    twice = [c for c in columns if names.count(c) > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} stands twice in the first line")
