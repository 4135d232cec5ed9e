"""Distributions of a page as positions in pixels: over all cases, and over the cases of each label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import title_of
from reg_bench.plot_ticks import round_numbers
from reg_bench.statistics import Floats

#: Cases drawn one by one in the plot of all methods together; each method has its share, evenly by rank.
DOTS = 2400
WIDTH, LABEL_WIDTH = 760, 400
Ticks = tuple[tuple[float, str], ...]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One method in the plot: positions in pixels of the drawing, dots with the index of their case."""

    name: str
    role: str
    y: float
    dots: tuple[tuple[float, int], ...]
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
    ticks: Ticks
    lines: tuple[Line, ...]


def axis_title(board: Board, metric: str) -> str:
    """Title of a metric with its unit."""
    unit = board.units.get(metric, "")
    return title_of(metric, board.metrics) + (f" [{unit}]" if unit not in ("", "1") else "")


def linear_scale(low: float, high: float, left: float, right: float) -> tuple[Scale, Ticks]:
    """Positions between `left` and `right`, and ticks at round numbers that enclose the values."""
    known = round_numbers(low, high)
    low, high = min(known[0], low), max(known[-1], high)

    def x(value: float) -> float:
        return round(left + (right - left) * (value - low) / ((high - low) or 1.0), 1)

    return x, tuple((x(t), f"{t:g}") for t in known)


def distribution(board: Board) -> Plot | None:
    """The plot of `board`, None where nothing is ranked."""
    entries = [e for e in board.entries if e.complete and np.isfinite(e.values).any()] if board.primary else []
    if not entries:
        return None
    values = np.concatenate([e.values[np.isfinite(e.values)] for e in entries])
    left, right, row, top = 190.0, WIDTH - 20.0, 26, 8
    x, ticks = linear_scale(float(values.min()), float(values.max()), left, right)
    most = max(20, DOTS // len(entries))
    lines = tuple(_line(e, x, top + row * (i + 0.5), most) for i, e in enumerate(entries))
    return Plot(axis_title(board, board.primary), top + row * len(entries) + 34, left, right, ticks, lines)


def _line(entry: Entry, x: Scale, y: float, most: int) -> Line:
    known = np.flatnonzero(np.isfinite(entry.values))
    order = known[np.argsort(entry.values[known], kind="stable")]
    if len(order) > most:
        order = order[np.unique(np.linspace(0, len(order) - 1, most).round().astype(int))]
    values = entry.values[known]
    q1, q2, q3 = (x(float(q)) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return Line(
        name=entry.name,
        role=entry.role,
        y=y,
        dots=tuple((x(float(entry.values[c])), int(c)) for c in order),
        box=(q1, q2, q3),
        mean=x(float(values.mean())),
        interval=None if entry.interval is None else (x(entry.interval[0]), x(entry.interval[1])),
    )


# Labels --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """One method on one label: the path of box and whiskers, the median, and what lies beyond the whiskers."""

    name: str
    role: str
    y: float
    whiskers: tuple[float, float]
    box: tuple[float, float, float]
    outliers: tuple[tuple[float, int], ...]
    words: str


@dataclass(frozen=True)
class LabelPlot:
    """The boxes of all methods on one label; labels of a metric share their axis."""

    metric: str
    label: str
    title: str
    height: int
    left: float
    right: float
    ticks: Ticks
    boxes: tuple[Box, ...]


def label_plots(board: Board, metric: str, outliers: int = 8) -> list[LabelPlot]:
    """A plot per label of `metric`; at most `outliers` cases of each box are drawn, those farthest out."""
    entries = [e for e in board.entries if e.complete and metric in e.labelled]
    labels = sorted({label for e in entries for label in e.labelled[metric]}, key=label_order)
    known = [v[np.isfinite(v)] for e in entries for v in e.labelled[metric].values()]
    if not labels or not any(map(len, known)):
        return []
    values = np.concatenate(known)
    left, right, row, top = 132.0, LABEL_WIDTH - 14.0, 17, 4
    x, ticks = linear_scale(float(values.min()), float(values.max()), left, right)
    made = []
    for label in labels:
        boxes: list[Box] = []
        for entry in entries:
            column = entry.labelled[metric].get(label, np.empty(0))
            if np.isfinite(column).any():
                boxes.append(_box(entry, column, x, top + row * (len(boxes) + 0.5), outliers))
        title = f"{axis_title(board, metric)}, label {label}"
        height = top + row * len(boxes) + 24
        sparse = ticks[:: 2 if len(ticks) > 6 else 1]
        made.append(LabelPlot(metric, label, title, height, left, right, sparse, tuple(boxes)))
    return made


def label_order(label: str) -> tuple[int, float, str]:
    """Numbers by size, then names."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _box(entry: Entry, column: Floats, x: Scale, y: float, most: int) -> Box:
    """Tukey's: whiskers to the farthest value within one and a half times the height of the box."""
    cases = np.flatnonzero(np.isfinite(column))
    values = column[cases]
    q1, q2, q3 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    inside = (values >= q1 - 1.5 * (q3 - q1)) & (values <= q3 + 1.5 * (q3 - q1))
    ends = float(values[inside].min()), float(values[inside].max())
    out = cases[~inside]
    out = out[np.argsort(-np.abs(column[out] - q2), kind="stable")][:most]
    words = f"{entry.name}: median {q2:.4g}, quartiles {q1:.4g} and {q3:.4g}, {len(values)} cases"
    return Box(
        name=entry.name,
        role=entry.role,
        y=y,
        whiskers=(x(ends[0]), x(ends[1])),
        box=(x(q1), x(q2), x(q3)),
        outliers=tuple((x(float(column[c])), int(c)) for c in out),
        words=words,
    )
