"""Every table of a report as plain columns: texts as people read them, and the numbers behind them unrounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reg_bench import leaderboard_text as text
from reg_bench import statistics as st
from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import NONE, number, title_of
from reg_bench.report_plots import label_order
from reg_bench.report_significance import compared
from reg_bench.stream_forecasts import forecast_columns
from reg_bench.stream_tables import columns as stream_columns

if TYPE_CHECKING:
    from reg_bench.report import Content

STATISTICS = ("mean", "sd", "median", "hardest", "n", "substituted")
STATUS = {st.MISSING: "missing", st.OK: "ok", st.FAILED: "failed", st.SKIPPED: "skipped"}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: of its files, of letters that every file system takes.
        heads, lines: as people read them; empty where a table is too long to be read.
        left: places of columns of words.
        best: line and column of what stands out.
        data: numbers and words by column, all equally long; None for what is not there.
    """

    name: str
    title: str
    data: Mapping[str, Sequence[Any]]
    heads: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    left: frozenset[int] = frozenset()
    best: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def all_tables(content: Content) -> list[Table]:
    """Boards, frame by frame, significance, labels and cases of every task, then what is shown as published."""
    made: list[Table] = []
    streams = {id(t.board): t for t in content.streams}
    for board in content.boards:
        made.append(_board(board))
        if id(board) in streams:
            made.append(_streams(board, "frames", "frame by frame", stream_columns(streams[id(board)])))
            told = forecast_columns(streams[id(board)])
            made += [_streams(board, "forecasts", "forecasts", told)] if told else []
        if board.main:
            made += [t for t in (_significance(board), _labels(board)) if t is not None]
        made.append(_cases(board))
    made += [_published(block) for block in content.published]
    return _unique(made)


def _unique(tables: Sequence[Table]) -> list[Table]:
    """Tables of other versions of a suite or of the data have a number at the end of their name."""
    seen: dict[str, int] = {}
    made = []
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        number = seen[table.name]
        made.append(table if number == 1 else Table(**{**vars(table), "name": f"{table.name}.{number}"}))
    return made


def _name(board: Board, *more: str) -> str:
    parts = (board.task, board.profile, board.condition, *more)
    return ".".join(re.sub(r"[^\w+-]+", "-", p) for p in parts if p)


def _board(board: Board) -> Table:
    shown = text.columns(board)
    return Table(_name(board), f"{board.title}: {text.describe(board)}", _statistics(board), *_readable(board, shown))


def _streams(board: Board, name: str, words: str, shown: Sequence[text.Column]) -> Table:
    data: dict[str, Sequence[Any]] = _who(board) | {c.title: c.keys for c in shown}
    return Table(_name(board, name), f"{board.title}, {words}", data, *_readable(board, shown))


def _readable(board: Board, shown: Sequence[text.Column]) -> tuple[Any, ...]:
    heads = ("#", "method", *(c.title for c in shown), "cases")
    lines = tuple(
        (text.rank_text(e), text.name_text(e), *(c.texts[i] for c in shown), text.cases_text(e))
        for i, e in enumerate(board.entries)
    )
    best = frozenset((i, j + 2) for j, c in enumerate(shown) for i in c.best(board))
    return heads, lines, frozenset({1}), best


def _who(board: Board) -> dict[str, Sequence[Any]]:
    return {
        "rank": [e.rank for e in board.entries],
        "method": [e.name for e in board.entries],
        "role": [e.role or None for e in board.entries],
    }


def _statistics(board: Board) -> dict[str, Sequence[Any]]:
    entries = board.entries
    data: dict[str, Sequence[Any]] = {
        name: [getattr(board, name)] * len(entries)
        for name in ("suite", "suite_version", "task", "dataset", "dataset_checksum", "profile", "condition", "primary")
    }
    data |= _who(board)
    data |= {k: [e.key[k] or None for e in entries] for k in ("method_version", "config_hash", "checkpoint", "seed")}
    data |= {name: [getattr(e, name) for e in entries] for name in ("state", "ok", "failed", "skipped", "missing")}
    data["primary_ci_low"] = [None if e.interval is None else e.interval[0] for e in entries]
    data["primary_ci_high"] = [None if e.interval is None else e.interval[1] for e in entries]
    data["p_holm"] = [e.p_value for e in entries]
    for metric in board.metrics:
        for name in STATISTICS:
            data[f"{metric}_{name}"] = [getattr(e.cells[metric], name) for e in entries]
    data |= {f"{n}_median": [getattr(e, n) for e in entries] for n in ("wall_s", "cpu_s")}
    return data | {"peak_mb_max": [e.peak_mb for e in entries], "timed": [e.timed for e in entries]}


def _significance(board: Board) -> Table | None:
    found = compared(board)
    if found is None:
        return None
    entries, p = found
    names = [e.name for e in entries]
    data: dict[str, Sequence[Any]] = {"better": names}
    data |= {f"than {n}": [_number(v) for v in p[:, j]] for j, n in enumerate(names)}
    lines = tuple((n, *(_p_text(v) for v in p[i])) for i, n in enumerate(names))
    title = f"{board.title}: p of the row being better than the column, Holm-corrected"
    return Table(_name(board, "significance"), title, data, ("better", *names), lines, frozenset({0}))


def _p_text(p: float) -> str:
    return NONE if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _labels(board: Board) -> Table | None:
    places = sorted(
        {(m, label) for e in board.entries for m, by in e.labelled.items() for label in by},
        key=lambda p: (p[0], label_order(p[1])),
    )
    if not places:
        return None
    means = {p: [_mean(e, *p) for e in board.entries] for p in places}
    heads = ("method", *(f"{title_of(m, board.metrics)} {label}" for m, label in places))
    lines = tuple((e.name, *(number(means[p][i], p[0]) for p in places)) for i, e in enumerate(board.entries))
    data: dict[str, Sequence[Any]] = {"method": [e.name for e in board.entries]}
    data |= {f"{m}#{label}": means[(m, label)] for m, label in places}
    return Table(_name(board, "labels"), f"{board.title}: means of each label", data, heads, lines, frozenset({0}))


def _mean(entry: Entry, metric: str, label: str) -> float | None:
    values = entry.labelled.get(metric, {}).get(label, np.empty(0))
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _cases(board: Board) -> Table:
    """Every value as it came, a line per method and case."""
    entries, count = board.entries, len(board.cases)
    data: dict[str, Sequence[Any]] = {
        "method": [e.name for e in entries for _ in range(count)],
        "case": [case for _ in entries for case in board.cases],
        "status": [STATUS[int(s)] for e in entries for s in e.status],
        "reason": [e.reasons.get(case) for e in entries for case in board.cases],
    }
    empty = np.full(count, np.nan)
    for metric in board.metrics:
        data[metric] = list(_numbers(e.scores.get(metric, empty) for e in entries))
    for cost in ("wall_s", "cpu_s", "peak_mb"):
        data[cost] = list(_numbers(e.costs.get(cost, empty) for e in entries))
    return Table(_name(board, "cases"), f"{board.title}: every case", data)


def _numbers(arrays: Iterator[Any]) -> Iterator[float | None]:
    for array in arrays:
        yield from (_number(v) for v in array.tolist())


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _published(block: Mapping[str, Any]) -> Table:
    """As published; columns that are called alike are numbered."""
    heads = [str(c) for c in block["columns"]]
    names = [h if heads.count(h) == 1 else f"{h} {heads[: i + 1].count(h)}" for i, h in enumerate(heads)]
    rows = block["rows"]
    lines = tuple(map(tuple, block["texts"]))
    data = {n: [row[i] for row in rows] for i, n in enumerate(names)}
    title = f"As published: {block['title']} ({block['source']})"
    return Table(f"published.{block['id']}", title, data, tuple(heads), lines, frozenset({0}))
