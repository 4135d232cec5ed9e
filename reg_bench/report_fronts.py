"""Accuracy against what it costs, as positions in pixels, with the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import number
from reg_bench.ranking_tests import pareto_front
from reg_bench.report_plots import Scale, Ticks, axis_title, linear_scale
from reg_bench.statistics import Floats

WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, WIDTH - 16.0, 14.0, HEIGHT - 44.0
_CHARACTER, _BOLD, _LINE = 6.6, 7.4, 13.0


@dataclass(frozen=True)
class Mark:
    """One method: where it is, its interval, where its name stands, and whether no other is better in both."""

    name: str
    role: str
    x: float
    y: float
    interval: tuple[float, float] | None
    front: bool
    label: tuple[float, float, str] | None
    words: str


@dataclass(frozen=True)
class Front:
    """One drawing.

    `steps` is the line of the front, `levels` are heights of reference rows: place, role, name; `traces` join the
    methods of a sweep, `method@value`, in order of the value.
    """

    title: str
    metric: str
    x_title: str
    y_title: str
    x_ticks: Ticks
    y_ticks: Ticks
    marks: tuple[Mark, ...]
    steps: str
    levels: tuple[tuple[float, str, str], ...] = ()
    traces: tuple[tuple[str, str], ...] = ()


def fronts(board: Board) -> list[Front]:
    """Against time and against SDlogJ, where they are known of at least two methods."""
    if not board.primary:
        return []
    against_time = _front(board, "time", "wall_s", "time of a case [s]", lambda e: e.wall_s, logarithmic=True)
    rough = None
    if "sdlogj" in board.metrics and board.primary != "sdlogj":
        rough = _front(board, "SDlogJ", "sdlogj", "SDlogJ", lambda e: e.cells["sdlogj"].mean)
    return [f for f in (against_time, rough) if f is not None]


def _front(
    board: Board,
    name: str,
    metric: str,
    x_title: str,
    cost: Callable[[Entry], float | None],
    logarithmic: bool = False,
) -> Front | None:
    known = [(e, cost(e), e.cells[board.primary].mean) for e in board.entries if e.complete]
    shown = [(e, c, m) for e, c, m in known if c is not None and m is not None]
    # How long it takes to do nothing, or to look the truth up, says nothing: such rows are heights only.
    references = [(e, m) for e, _, m in shown if e.role] if logarithmic else []
    shown = [(e, c, m) for e, c, m in shown if not (logarithmic and e.role)]
    if len(shown) < 2:
        return None
    costs = np.array([c for _, c, _ in shown])
    means = np.array([m for _, _, m in shown])
    ranked = np.array([e.rank is not None for e, _, _ in shown])
    sign = 1.0 if board.better[board.primary] == "higher" else -1.0
    losses = np.stack([-sign * means, costs], axis=1)
    on_front = pareto_front(np.where(ranked[:, None], losses, np.nan))
    ends = [v for e, _, _ in shown for v in (e.interval or ())]
    heights = [*means, *ends, *(m for _, m in references)]
    y, y_ticks = linear_scale(float(min(heights)), float(max(heights)), _BOTTOM, _TOP)
    along = _log_scale if logarithmic else _scale_from_zero
    x, x_ticks = along(costs)
    places = [(x(float(c)), y(float(m))) for c, m in zip(costs, means, strict=True)]
    labels = place_labels(places, [e.name for e, _, _ in shown], [bool(f) for f in on_front])
    marks = []
    for (entry, c, m), place, label, front in zip(shown, places, labels, on_front, strict=True):
        words = f"{entry.name}: {axis_title(board, board.primary)} {number(m, board.primary)}, {x_title} {c:.3g}"
        interval = None if entry.interval is None else (y(entry.interval[0]), y(entry.interval[1]))
        marks.append(Mark(entry.name, entry.role, *place, interval, bool(front), label, words))
    best = sorted((p for p, f in zip(places, on_front, strict=True) if f))
    title = f"{axis_title(board, board.primary)} against {name}"
    y_title = axis_title(board, board.primary)
    # Two floors are often the same: one line with both names.
    together: dict[tuple[float, str], list[str]] = {}
    for entry, m in references:
        together.setdefault((y(m), entry.role), []).append(entry.name)
    levels = tuple((place, role, ", ".join(names)) for (place, role), names in together.items())
    return Front(title, metric, x_title, y_title, x_ticks, y_ticks, tuple(marks), _steps(best), levels, traces(marks))


def traces(marks: Sequence[Mark]) -> tuple[tuple[str, str], ...]:
    """Name and path of every sweep among the methods."""
    families: dict[str, list[tuple[float, Mark]]] = {}
    for mark in marks:
        stem, _, value = mark.name.partition("@")
        try:
            families.setdefault(stem, []).append((float(value), mark))
        except ValueError:
            continue
    return tuple(
        (stem, "M" + "L".join(f"{m.x},{m.y}" for _, m in sorted(members, key=lambda pair: pair[0])))
        for stem, members in families.items()
        if len(members) > 1
    )


def _scale_from_zero(values: Floats) -> tuple[Scale, Ticks]:
    return linear_scale(min(0.0, float(values.min())), float(values.max()), _LEFT, _RIGHT)


def _log_scale(values: Floats) -> tuple[Scale, Ticks]:
    """Decades that enclose the values; of a single decade also the numbers 2 and 5."""
    floor = max(float(values[values > 0].min(initial=np.inf)), 1e-6) if (values > 0).any() else 1e-3
    low, high = np.floor(np.log10(floor) + 1e-9), np.ceil(np.log10(max(values.max(), floor)) - 1e-9)
    high = max(high, low + 1)

    def x(value: float) -> float:
        place = (np.log10(max(value, 10.0**low)) - low) / (high - low)
        return round(float(_LEFT + (_RIGHT - _LEFT) * place), 1)

    steps = (1, 2, 5) if high - low < 2 else (1,)
    known = [s * 10.0**k for k in range(int(low), int(high) + 1) for s in steps if s * 10.0**k <= 10.0**high * 1.0001]
    return x, tuple((x(v), f"{v:g}") for v in known)


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """From each point of the front to the right, then to the height of the next: nothing above the line is reached."""
    if not points:
        return ""
    words = [f"M{points[0][0]},{points[0][1]}"]
    words += [f"H{x}V{y}" for x, y in points[1:]]
    return "".join(words) + f"H{_RIGHT}"


def place_labels(
    points: Sequence[tuple[float, float]], names: Sequence[str], first: Sequence[bool]
) -> list[tuple[float, float, str] | None]:
    """Where each name stands without touching another name or mark; None where there is no room.

    Those of `first` choose before the others. The third entry is the anchor of the text.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    made: list[tuple[float, float, str] | None] = [None] * len(points)
    for i in sorted(range(len(points)), key=lambda i: (not first[i], i)):
        x, y = points[i]
        width = (_BOLD if first[i] else _CHARACTER) * len(names[i])
        for left, base, at, anchor in (
            (x + 9, y + 4, x + 9, "start"),
            (x - 9 - width, y + 4, x - 9, "end"),
            (x - width / 2, y - 10, x, "middle"),
            (x - width / 2, y + 19, x, "middle"),
            (x + 7, y - 9, x + 7, "start"),
            (x + 7, y + 17, x + 7, "start"),
            (x - 7 - width, y - 9, x - 7, "end"),
            (x - 7 - width, y + 17, x - 7, "end"),
        ):
            box = (left, base - _LINE + 3, left + width, base + 2)
            inside = box[0] >= _LEFT and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= _BOTTOM
            others = (t for j, t in enumerate(taken) if j != i)
            if inside and not any(_touch(box, t) for t in others):
                made[i] = (round(at, 1), round(base, 1), anchor)
                taken.append(box)
                break
    return made


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
