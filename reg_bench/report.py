"""Builds the tables and the page of a run folder from its rows, its manifest and its panel pictures.

`leaderboard.md`, `leaderboard.csv` and `index.html` are pure functions of those: the same rows in any order give
the same bytes. Neither torch nor polars is imported; Jinja and rich only when they are used.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from reg_bench import leaderboard_rows
from reg_bench import leaderboard_text as text
from reg_bench.errors import DataError
from reg_bench.leaderboard import Board, Entry, tables
from reg_bench.plot_ticks import round_numbers
from reg_bench.results import read_rows
from reg_bench.stream_plots import charts, latency_plot
from reg_bench.stream_tables import StreamTable, is_stream, stream_tables
from reg_bench.stream_tables import columns as stream_columns

#: Values drawn one by one in the plot of a method; of more, that many quantiles.
DOTS = 150
WIDTH = 760


def build(folder: str | os.PathLike[str], *, colour: bool = False) -> str:
    """Writes the three files into `folder` and returns the tables for the terminal.

    `colour` adds terminal colours to the text.

    Raises:
        DataError: the folder does not exist, or none of its row files holds a result.
    """
    directory = Path(folder)
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; expected the --out folder of `reg-bench run`")
    manifest = read_manifest(directory)
    with leaderboard_rows.no_collection():
        boards = tables(leaderboard_rows.read(directory), manifest)
    if not boards:
        raise DataError(f"{directory}: no results; expected rows*.jsonl as `reg-bench run` writes them")
    # Rows are parsed as a whole only where there are frames to be looked at.
    rows = read_rows(directory) if any(map(is_stream, boards)) else []
    streams = stream_tables(boards, rows, manifest)
    shown = {i: stream_columns(t) for t in streams for i, b in enumerate(boards) if b is t.board}
    _write(directory / "leaderboard.md", text.markdown(boards, manifest, shown))
    _write(directory / "leaderboard.csv", text.to_csv(boards))
    _write(directory / "index.html", html(boards, manifest, directory, streams))
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


def _write(path: Path, content: str) -> None:
    """Replaces `path` in one step: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8", newline="\n")
    temporary.replace(path)


# The page ------------------------------------------------------------------------------------------------


def html(
    boards: Sequence[Board],
    manifest: Mapping[str, Any],
    directory: Path | None = None,
    streams: Sequence[StreamTable] = (),
) -> str:
    """The page: one file without references but to the pictures, which are linked by relative path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(text=text, columns=text.columns, none=text.NONE)
    suite = manifest.get("suite") or {}
    wanted = suite.get("published") or ()
    tasks = [
        {
            "board": group[0],
            "others": group[1:],
            "plot": plot(group[0]),
            "pictures": pictures(group[0], directory),
            "stream": _stream(group[0], streams),
        }
        for group in _by_task(boards)
    ]
    return environment.get_template("index.html.j2").render(
        title=text.heading(boards, manifest),
        summary=str(suite.get("summary") or ""),
        tasks=tasks,
        warnings=list(dict.fromkeys(w for b in boards for w in b.warnings)),
        protocol=text.protocol(boards, manifest),
        published=[b for b in published() if b["id"] in wanted] if wanted else [],
    )


def _stream(board: Board, streams: Sequence[StreamTable]) -> dict[str, Any] | None:
    """Table and drawings of the streams of a task, None where its cases are pairs."""
    for table in streams:
        if table.board is board:
            return {"columns": stream_columns(table), "charts": charts(table), "latency": latency_plot(table)}
    return None


def _by_task(boards: Sequence[Board]) -> list[list[Board]]:
    groups: list[list[Board]] = []
    for board in boards:
        if board.main:
            groups.append([])
        groups[-1].append(board)
    return groups


@dataclass(frozen=True)
class Line:
    """One method in the plot: positions in pixels of the drawing."""

    name: str
    role: str
    y: float
    dots: tuple[float, ...]
    box: tuple[float, float, float]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Plot:
    """The distribution of the primary metric over cases, a line per complete method."""

    title: str
    height: int
    left: float
    right: float
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


def plot(board: Board) -> Plot | None:
    """The plot of `board`, None where nothing is ranked."""
    entries = [e for e in board.entries if e.complete and np.isfinite(e.values).any()] if board.primary else []
    if not entries:
        return None
    values = np.concatenate([e.values[np.isfinite(e.values)] for e in entries])
    known_ticks = round_numbers(float(values.min()), float(values.max()))
    low, high = min(known_ticks[0], float(values.min())), max(known_ticks[-1], float(values.max()))
    left, right, row, top = 190.0, WIDTH - 20.0, 26, 8

    def x(value: float) -> float:
        return round(left + (right - left) * (value - low) / ((high - low) or 1.0), 1)

    lines = []
    for i, entry in enumerate(entries):
        known = np.sort(entry.values[np.isfinite(entry.values)])
        dots = known if len(known) <= DOTS else np.quantile(known, np.linspace(0, 1, DOTS))
        quartiles = np.quantile(known, (0.25, 0.5, 0.75))
        lines.append(
            Line(
                name=entry.name,
                role=entry.role,
                y=top + row * (i + 0.5),
                dots=tuple(x(float(v)) for v in dots),
                box=(x(quartiles[0]), x(quartiles[1]), x(quartiles[2])),
                mean=x(float(known.mean())),
                interval=None if entry.interval is None else (x(entry.interval[0]), x(entry.interval[1])),
            )
        )
    unit = board.units.get(board.primary, "")
    title = text.title_of(board.primary, board.metrics) + (f" [{unit}]" if unit not in ("", "1") else "")
    marks = tuple((x(t), f"{t:g}") for t in known_ticks)
    return Plot(title, top + row * len(entries) + 34, left, right, marks, tuple(lines))


def pictures(board: Board, directory: Path | None) -> list[dict[str, Any]]:
    """For each method its median and its worst case among those with a picture, with value and path."""
    made = []
    for entry in sorted(board.entries, key=lambda e: bool(e.role)):
        chosen = _chosen_cases(board, entry, directory)
        if chosen:
            made.append({"entry": entry, "cases": chosen})
    return made


def _chosen_cases(board: Board, entry: Entry, directory: Path | None) -> list[dict[str, str]]:
    index = {case: i for i, case in enumerate(board.cases)}
    shown = [c for c, p in entry.panels.items() if _is_picture(p, directory)]
    scored = [(float(entry.values[index[c]]), c) for c in shown if np.isfinite(entry.values[index[c]])]
    if not board.primary or not scored:
        return [{"what": "first case", "case": c, "value": "", "path": entry.panels[c]} for c in sorted(shown)[:1]]
    higher = board.better[board.primary] == "higher"
    scored.sort(key=lambda pair: (pair[0] if higher else -pair[0], pair[1]))
    picks = {"worst case": scored[0], "median case": scored[len(scored) // 2]}
    if scored[0] == scored[len(scored) // 2]:
        picks = {"only case" if len(scored) == 1 else "worst case": scored[0]}
    title = text.title_of(board.primary, board.metrics)
    return [
        {"what": what, "case": c, "value": f"{title} {text.number(v, board.primary)}", "path": entry.panels[c]}
        for what, (v, c) in sorted(picks.items())
    ]


def _is_picture(path: str, directory: Path | None) -> bool:
    """Whether `path` names a picture inside the folder: rows may come from anyone."""
    pure = PurePosixPath(path)
    inside = not pure.is_absolute() and ".." not in pure.parts and ":" not in path and "\\" not in path
    return inside and (directory is None or (directory / pure).is_file())


@cache
def published() -> tuple[Mapping[str, Any], ...]:
    """The published figures of the papers and the challenge, as `published.yaml` holds them."""
    import yaml

    package = Path(__file__).parent
    for path in (package / "_benchmarks" / "published.yaml", package.parent / "leaderboards" / "published.yaml"):
        if path.is_file():
            return tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["tables"])
    return ()


# The terminal --------------------------------------------------------------------------------------------


def terminal(
    boards: Sequence[Board],
    manifest: Mapping[str, Any],
    *,
    colour: bool = False,
    width: int = 110,
    streams: Mapping[int, Sequence[text.Column]] | None = None,
) -> str:
    """The main board of every task as text tables, with what failed below each; at most `width` characters.

    `streams` holds further columns, by the place of their board in `boards`.
    """
    from rich.console import Console
    from rich.markup import escape

    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False, legacy_windows=False
    )
    console.print(f"[bold]{escape(text.heading(boards, manifest))}[/]")
    for place, board in enumerate(boards):
        if not board.main:
            continue
        console.print()
        console.print(f"[bold]{escape(board.title)}[/]: {escape(text.describe(board))}")
        console.print(_terminal_table(board, width, text.columns(board)))
        if streams and place in streams:
            console.print(_terminal_table(board, width, streams[place]))
        for trouble in board.troubles:
            style = "red" if trouble.status == "failed" else "yellow"
            console.print(f"[{style}]{escape(text.trouble_text(trouble, 2))}[/]")
    for warning in dict.fromkeys(w for b in boards for w in b.warnings):
        console.print(f"[yellow]warning: {escape(warning)}[/]")
    # Padding up to the width would only show when the text is pasted somewhere.
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _terminal_table(board: Board, width: int, known: Sequence[text.Column]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("method", min_width=min(34, max(len(text.name_text(e)) for e in board.entries)))
    table.add_column("cases", justify="right", no_wrap=True)
    # Rank, number of cases and time take some 32 characters beside the names.
    shown = _terminal_columns(known, width - 32 - min(34, max(len(text.name_text(e)) for e in board.entries)))
    for column in shown:
        table.add_column(Text(column.title), justify="right", no_wrap=True)
    best = [c.best(board) for c in shown]
    for i, entry in enumerate(board.entries):
        cells = [Text(c.texts[i], style="bold green" if i in best[j] else "") for j, c in enumerate(shown)]
        style = "dim" if entry.role or not entry.complete else ""
        cases = f"{entry.ok}/{len(board.cases)}"
        table.add_row(text.rank_text(entry), Text(text.name_text(entry)), cases, *cells, style=style)
    return table


def _terminal_columns(columns: Sequence[text.Column], room: int) -> list[text.Column]:
    """The means that fit into `room` characters, and the time; the page has everything."""
    known = [c for c in columns if c.title not in ("95 % CI", "p") and not c.title.startswith("rank ")]
    costs = [c for c in known if c.title == "time [s]"]
    chosen: list[text.Column] = []
    for column in (c for c in known if c.title not in ("time [s]", "CPU [s]", "peak [MB]")):
        room -= max(map(len, (column.title, *column.texts))) + 2
        if room < 0 and chosen:
            break
        chosen.append(column)
    return chosen + costs
