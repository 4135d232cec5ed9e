"""What the tables and plots of streams are made of: per method values pooled over frames and cases.

Pure functions of the rows and the manifest, beside the boards of `reg_bench.leaderboard`, whose order they keep.
Imports neither torch nor polars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reg_bench.leaderboard import BOARD_KEY, ENTRY_KEY, Board
from reg_bench.leaderboard_text import Column
from reg_bench.metric_titles import NONE, number, title_of
from reg_bench.statistics import Floats

#: What tells the methods of a task apart, whatever the condition.
_METHOD_KEY = ENTRY_KEY[:-1]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """One method on one task. A failed case counts as Dice 0 at every frame where another method has a value.

    Attributes:
        dice: by label, over all frames and cases.
        course: by metric and label, by frame, over cases.
        latency_ms: of all given frames after the first, of cases timed exclusively.
        first_ms: until the first estimate, per case.
        horizons: by metric, by seconds, means over the cases of the forecast and of the estimate held.
    """

    dice: Mapping[str, Floats] = field(default_factory=dict)
    course: Mapping[tuple[str, str], Mapping[int, Floats]] = field(default_factory=dict)
    latency_ms: Floats = field(default_factory=lambda: np.empty(0))
    first_ms: Floats = field(default_factory=lambda: np.empty(0))
    horizons: Mapping[str, Mapping[float, tuple[float | None, float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamTable:
    """The streams of a task, in the order of the entries of its board.

    `conditions` holds, by condition, the mean of the primary metric of each entry.
    """

    board: Board
    streams: tuple[Stream, ...]
    budget_ms: float
    conditions: Mapping[str, tuple[float | None, ...]]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that have a Dice; their mean, `all`, stands in the board."""
        return tuple(sorted({label for s in self.streams for label in s.dice} - {"all"}))


def is_stream(board: Board) -> bool:
    """Whether the cases of `board` are whole sequences."""
    return "latency_first" in board.metrics


def stream_tables(boards: Sequence[Board], rows: Iterable[Row], manifest: Mapping[str, Any]) -> list[StreamTable]:
    """One table per main board of sequences, from the rows as `reg_bench.results.read_rows` gives them."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        place = tuple(_text(row["key"].get(name)) for name in (*BOARD_KEY, "condition"))
        groups.setdefault(place, []).append(row)
    budgets = {
        str(task.get("name")): float((task.get("stream") or {}).get("budget_ms") or 200.0)
        for task in (manifest.get("suite") or {}).get("tasks") or []
    }
    made = []
    for board in boards:
        if board.main and is_stream(board):
            own = groups.get((*_head(board), board.condition), [])
            made.append(
                StreamTable(
                    board, tuple(_streams(board, own)), budgets.get(board.task, 200.0), _conditions(board, boards)
                )
            )
    return made


def _head(board: Board) -> tuple[str, ...]:
    return tuple(str(getattr(board, name)) for name in BOARD_KEY)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _conditions(board: Board, boards: Sequence[Board]) -> dict[str, tuple[float | None, ...]]:
    """Means of the primary metric under the other conditions."""
    found: dict[str, tuple[float | None, ...]] = {}
    for other in boards:
        if _head(other) != _head(board) or other.profile != board.profile or other.condition == board.condition:
            continue
        means = {
            tuple(e.key[k] for k in _METHOD_KEY): e.cells[board.primary].mean
            for e in other.entries
            if board.primary in e.cells
        }
        found[other.condition] = tuple(means.get(tuple(e.key[k] for k in _METHOD_KEY)) for e in board.entries)
    return found


def _streams(board: Board, rows: Sequence[Row]) -> list[Stream]:
    owed: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        for value in _frames(row):
            if value["metric"] == "dice" and value["value"] is not None:
                owed.setdefault(row["key"]["case"], set()).add((value["label"], value["frame"]))
    by_entry: dict[tuple[str, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda r: str(r["key"]["case"])):
        by_entry.setdefault(tuple(_text(row["key"].get(k)) for k in _METHOD_KEY), []).append(row)
    return [_stream(by_entry.get(tuple(e.key[k] for k in _METHOD_KEY), []), owed) for e in board.entries]


def _frames(row: Row) -> list[Mapping[str, Any]]:
    """The values of single frames as they came, in the profile that streams are scored in."""
    return [
        v
        for v in row.get("values") or ()
        if v["frame"] is not None and v["horizon_s"] is None and v["profile"] == "strict"
    ]


def _stream(rows: Sequence[Row], owed: Mapping[str, set[tuple[str, int]]]) -> Stream:
    course: dict[tuple[str, str], dict[int, list[float]]] = {}
    latency: list[float] = []
    first: list[float] = []
    for row in rows:
        if row["status"] == "failed":
            for label, frame in owed.get(row["key"]["case"], ()):
                course.setdefault(("dice", label), {}).setdefault(frame, []).append(0.0)
        for value in _frames(row):
            if value["value"] is not None and value["metric"] != "latency":
                place = (value["metric"], value["label"])
                course.setdefault(place, {}).setdefault(int(value["frame"]), []).append(float(value["value"]))
        if row.get("timing") == "exclusive":
            latency += [v["value"] for v in _frames(row) if v["metric"] == "latency"][1:]
            first += [v["value"] for v in row["values"] if v["metric"] == "latency_first"]
    arrays = {
        place: {frame: np.array(numbers) for frame, numbers in sorted(frames.items())}
        for place, frames in sorted(course.items())
    }
    dice = {
        label: np.concatenate(list(frames.values())) for (metric, label), frames in arrays.items() if metric == "dice"
    }
    return Stream(dice, arrays, np.array(latency), np.array(first), _horizons(rows))


def _horizons(rows: Sequence[Row]) -> dict[str, dict[float, tuple[float | None, float | None]]]:
    """Means over the cases that have them; null as soon as one of these is."""
    found: dict[str, dict[float, list[float | None]]] = {}
    for row in rows:
        for v in row.get("values") or ():
            if v["horizon_s"] is not None and v["label"] == "all":
                found.setdefault(v["metric"], {}).setdefault(float(v["horizon_s"]), []).append(v["value"])

    def mean(metric: str, horizon_s: float) -> float | None:
        numbers = found.get(metric, {}).get(horizon_s, [])
        known = [n for n in numbers if n is not None]
        return float(np.mean(known)) if numbers and len(known) == len(numbers) else None

    return {
        metric: {h: (mean(metric, h), mean(f"{metric}_hold", h)) for h in sorted(by_horizon)}
        for metric, by_horizon in sorted(found.items())
        if not metric.endswith("_hold")
    }


def columns(table: StreamTable) -> list[Column]:
    """The columns of the table of a task of sequences: Dice per label, dropped frames, latency."""
    latencies = [c for c in _latency_columns(table) if any(t != NONE for t in c.texts)]
    # A terminal shows the first few columns: how long it takes, how good it is.
    made = [*latencies[:2], *(_dice_column(table, label) for label in table.labels)]
    primary = table.board.primary
    for condition, means in table.conditions.items():
        title = f"{title_of(primary, table.board.metrics)}, {condition.replace('-', ' ')}"
        texts = tuple(number(m, primary) for m in means)
        hint = _hint(condition)
        source = f"{table.board.profile}/{primary}"
        made.append(Column(title, hint, texts, means, table.board.better.get(primary, ""), source=source))
    return made + latencies[2:]


def _hint(condition: str) -> str:
    """What was given under `condition`, and what is scored."""
    if condition.endswith("-hidden"):
        return "mean over the frames at the end, which were not given, then over cases"
    if condition == "smoothed":
        return "mean over cases where all frames were given at once"
    if condition.startswith("imputed-"):
        return "mean over cases where only these frames were given, all of them at once; all frames are scored"
    return "mean over cases where only these frames were given; all frames are scored"


def _dice_column(table: StreamTable, label: str) -> Column:
    values = [s.dice.get(label, np.empty(0)) for s in table.streams]
    means = tuple(float(v.mean()) if len(v) else None for v in values)
    texts = tuple(f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" if len(v) > 1 else NONE for v in values)
    count = max(map(len, values), default=0)
    hint = f"mean ± sd over all frames of all cases ({count}); a failed case counts as 0"
    return Column(f"Dice {label}", hint, texts, means, "higher", source=f"{table.board.profile}/dice#{label}")


def _latency_columns(table: StreamTable) -> list[Column]:
    def column(
        title: str, hint: str, value: Callable[[Stream], float | None], metric: str, better: str = "lower"
    ) -> Column:
        keys = tuple(value(s) for s in table.streams)
        texts = tuple(NONE if k is None else _short(k) for k in keys)
        return Column(title, hint, texts, keys, better, source=f"{table.board.profile}/{metric}")

    def at(share: float) -> Callable[[Stream], float | None]:
        return lambda s: float(np.quantile(s.latency_ms, share)) if len(s.latency_ms) else None

    budget, alone = table.budget_ms, "frames after the first, of cases timed exclusively"
    return [
        column("median [ms]", f"median latency over the {alone}", at(0.5), "latency_median"),
        column("p95 [ms]", f"95th percentile of the latency over the {alone}", at(0.95), "latency_p95"),
        column("p99 [ms]", f"99th percentile of the latency over the {alone}", at(0.99), "latency_p99"),
        column(
            "first [ms]",
            "until the first estimate is there, the start on the reference included; median over cases",
            lambda s: float(np.median(s.first_ms)) if len(s.first_ms) else None,
            "latency_first",
        ),
        column(
            f"within {budget:g} ms [%]",
            f"share of the {alone}, whose estimate was there within the budget",
            lambda s: 100 * float((s.latency_ms <= budget).mean()) if len(s.latency_ms) else None,
            "within_budget",
            "higher",
        ),
    ]


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
