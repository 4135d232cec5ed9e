"""Builds the tables and the page of a run folder from its rows, its manifest and its panel pictures.

`leaderboard.md`, `leaderboard.csv` and `index.html` are pure functions of those: the same rows in any order give
the same bytes. Neither torch nor polars is imported; Jinja and rich only when they are used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reg_bench import leaderboard_rows
from reg_bench.errors import DataError
from reg_bench.leaderboard import Board, tables
from reg_bench.leaderboard_files import markdown, to_csv
from reg_bench.leaderboard_text import Column
from reg_bench.published import published, published_beside, published_markdown
from reg_bench.ranking_board import rank_board
from reg_bench.results import read_rows
from reg_bench.stream_forecasts import forecast_columns
from reg_bench.stream_tables import StreamTable, is_stream, stream_tables
from reg_bench.stream_tables import columns as stream_columns

__all__ = ["Content", "build", "published", "read", "read_manifest"]


@dataclass(frozen=True)
class Content:
    """What a run folder holds, as data: all that tables, page and exports are made of."""

    folder: Path
    manifest: dict[str, Any]
    boards: tuple[Board, ...]
    streams: tuple[StreamTable, ...]
    published: tuple[Mapping[str, Any], ...] = ()

    @property
    def stream_columns(self) -> dict[int, list[Column]]:
        """Columns of the tables frame by frame, by the place of their board."""
        return self._by_place({id(t.board): stream_columns(t) for t in self.streams})

    @property
    def forecast_columns(self) -> dict[int, list[Column]]:
        """Columns of the tables of forecasts, by the place of their board; of boards that have one."""
        return self._by_place({id(t.board): found for t in self.streams if (found := forecast_columns(t))})

    def _by_place(self, by_board: dict[int, list[Column]]) -> dict[int, list[Column]]:
        return {i: by_board[id(b)] for i, b in enumerate(self.boards) if id(b) in by_board}


def read(folder: str | os.PathLike[str]) -> Content:
    """Reads the rows and the manifest of a run folder.

    Raises:
        DataError: the folder does not exist, or none of its row files holds a result.
        ConfigError: the suite names a published table that there is not.
    """
    directory = Path(folder)
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; expected the --out folder of `reg-bench run`")
    manifest = read_manifest(directory)
    with leaderboard_rows.no_collection():
        boards = [replace(b, ranking=rank_board(b)) for b in tables(leaderboard_rows.read(directory), manifest)]
    if not boards:
        raise DataError(f"{directory}: no results; expected rows*.jsonl as `reg-bench run` writes them")
    # Rows are parsed as a whole only where there are frames to be looked at.
    rows = read_rows(directory) if any(map(is_stream, boards)) else []
    beside = published_beside(boards[0].suite, boards[0].suite_version, manifest)
    return Content(directory, manifest, tuple(boards), tuple(stream_tables(boards, rows, manifest)), tuple(beside))


def build(folder: str | os.PathLike[str], *, colour: bool = False, standalone: bool = False) -> str:
    """Writes the tables and the page into `folder` and returns the tables for the terminal.

    Args:
        folder: of a run.
        colour: adds terminal colours to the text.
        standalone: puts the shown pictures into the page, which can then be sent as one file.

    Raises:
        DataError, ConfigError: see `read`.
    """
    return write(read(folder), colour=colour, standalone=standalone)


def write(content: Content, *, colour: bool = False, standalone: bool = False) -> str:
    """The same for what was read before."""
    from reg_bench.report_page import SUITE_FILE, page, suite_source
    from reg_bench.report_terminal import terminal

    boards, manifest, shown = content.boards, content.manifest, content.stream_columns
    words = markdown(boards, manifest, shown, content.forecast_columns)
    replace_file(content.folder / "leaderboard.md", words + published_markdown(content.published))
    replace_file(content.folder / "leaderboard.csv", to_csv(boards))
    replace_file(content.folder / "index.html", page(content, standalone=standalone))
    if suite_source(manifest, boards) == SUITE_FILE:
        import yaml

        suite = yaml.safe_dump(manifest["suite"], sort_keys=False, allow_unicode=True)
        replace_file(content.folder / SUITE_FILE, suite)
    return terminal(boards, manifest, colour=colour, streams=shown)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run folder; empty where there is none.

    Raises:
        DataError: a file that is not a JSON object.
    """
    path = directory / "manifest.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def replace_file(path: Path, content: str) -> None:
    """Replaces `path` in one step: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8", newline="\n")
    temporary.replace(path)
