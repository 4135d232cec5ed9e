"""The drawings of streams as positions in pixels: accuracy over time with bands, forecasts, latencies.

As Figure 3 of Paper I: the mean over the cases at every frame, one band of a standard deviation to either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reg_bench.metric_titles import title_of
from reg_bench.plot_ticks import round_numbers
from reg_bench.statistics import Floats
from reg_bench.stream_tables import StreamTable

WIDTH, HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, WIDTH - 14.0, 10.0, HEIGHT - 40.0
COLOURS = 8


@dataclass(frozen=True)
class Curve:
    """One line: `colour` is the number of its class, `points` and `band` are SVG coordinates."""

    name: str
    role: str
    colour: int
    points: str
    band: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over a horizontal axis."""

    title: str
    axis: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    note: str = ""

    @property
    def legend(self) -> tuple[Curve, ...]:
        """The curves that are named, each once."""
        return tuple(c for c in self.curves if not c.dashed)


@dataclass(frozen=True)
class LatencyLine:
    """One method on the logarithmic axis of milliseconds."""

    name: str
    role: str
    y: float
    dots: tuple[float, ...]
    marks: tuple[float, float, float]


@dataclass(frozen=True)
class LatencyPlot:
    """Latencies of all frames, a line per method, with the budget as an upright line."""

    height: int
    ticks: tuple[tuple[float, str], ...]
    budget: float
    budget_text: str
    lines: tuple[LatencyLine, ...]


def charts(table: StreamTable) -> list[Chart]:
    """All charts of a task: a chart over time per label (or of the primary metric), then one per foretold metric."""
    found = [_over_time(table, "dice", label, f"Dice {label}") for label in table.labels]
    primary = table.board.primary
    if primary != "dice":
        unit = table.board.units.get(primary, "")
        title = title_of(primary, table.board.metrics) + (f" [{unit}]" if unit not in ("", "1") else "")
        found.append(_over_time(table, primary, "all", title))
    metrics = dict.fromkeys(m for m in (primary, "dice", "end_point_error") if m)
    found += [_forecasts(table, metric) for metric in metrics]
    return [chart for chart in found if chart is not None]


def _over_time(table: StreamTable, metric: str, label: str, title: str) -> Chart | None:
    drawn: list[tuple[int, Floats, Floats, Floats]] = []
    for i, stream in enumerate(table.streams):
        frames = stream.course.get((metric, label), {})
        if len(frames) > 1:
            at = np.array(sorted(frames), dtype=float)
            means = np.array([frames[int(t)].mean() for t in at])
            spread = np.array([frames[int(t)].std() for t in at])
            drawn.append((i, at, means, spread))
    if not drawn:
        return None
    ceiling = 1.0 if metric == "dice" else np.inf
    low = max(0.0, min(float((m - s).min()) for _, _, m, s in drawn))
    high = min(ceiling, max(float((m + s).max()) for _, _, m, s in drawn))
    x, y, x_ticks, y_ticks = _scales(drawn[0][1], low, high)
    curves = []
    for i, at, means, spread in drawn:
        upper, lower = np.clip(means + spread, low, high), np.clip(means - spread, low, high)
        around = [*zip(at, upper, strict=True), *reversed(list(zip(at, lower, strict=True)))]
        curves.append(_curve(table, i, _path(zip(at, means, strict=True), x, y), _path(around, x, y)))
    note = "Mean over the cases; the band is a standard deviation to either side."
    return Chart(f"{title} over time", "frame", x_ticks, y_ticks, tuple(curves), note)


def _forecasts(table: StreamTable, metric: str) -> Chart | None:
    told: list[tuple[int, Sequence[tuple[float, float]], bool]] = []
    for i, stream in enumerate(table.streams):
        by_horizon = stream.horizons.get(metric, {})
        for which, dashed in ((0, False), (1, True)):
            known = [(h, v) for h, both in by_horizon.items() if (v := both[which]) is not None]
            if len(known) > 1:
                told.append((i, known, dashed))
    if not told:
        return None
    values = [v for _, known, _ in told for _, v in known]
    horizons = np.array(sorted({h for _, known, _ in told for h, _ in known}))
    # Errors are seen from zero, scores from the lowest of them.
    low = min(values) if table.board.better.get(metric) == "higher" else min(0.0, *values)
    x, y, x_ticks, y_ticks = _scales(horizons, low, max(values))
    curves = tuple(_curve(table, i, _path(known, x, y), dashed=dashed) for i, known, dashed in told)
    unit = table.board.units.get(metric, "")
    title = title_of(metric, table.board.metrics) + (f" [{unit}]" if unit not in ("", "1") else "")
    note = "Dashed: the estimate that was there, held. The floor stands for no motion."
    return Chart(f"{title} of forecasts", "horizon [s]", x_ticks, y_ticks, curves, note)


def _curve(table: StreamTable, index: int, points: str, band: str = "", dashed: bool = False) -> Curve:
    entry = table.board.entries[index]
    colours = [e.name for e in table.board.entries if not e.role]
    colour = colours.index(entry.name) % COLOURS if entry.name in colours else 0
    return Curve(entry.name, entry.role, colour, points, band, dashed)


Scale = Callable[[float], float]
Ticks = tuple[tuple[float, str], ...]


def _scales(at: Floats, low: float, high: float) -> tuple[Scale, Scale, Ticks, Ticks]:
    """Positions of both axes and their ticks."""
    upright = round_numbers(low, high)
    bottom, top = min(upright[0], low), max(upright[-1], high)
    first, last = float(at.min()), float(at.max())

    def x(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - first) / ((last - first) or 1.0), 1)

    def y(value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (value - bottom) / ((top - bottom) or 1.0), 1)

    along = [t for t in round_numbers(first, last) if first <= t <= last]
    return x, y, tuple((x(t), f"{t:g}") for t in along), tuple((y(t), f"{t:g}") for t in upright)


def _path(points: Iterable[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(float(a))},{y(float(b))}" for a, b in points)


def latency_plot(table: StreamTable, most: int = 150) -> LatencyPlot | None:
    """The latencies of all methods; of many frames that many quantiles."""
    shown = [(e, s.latency_ms) for e, s in zip(table.board.entries, table.streams, strict=True) if len(s.latency_ms)]
    if not shown:
        return None
    values = np.concatenate([v for _, v in shown])
    low = float(np.floor(np.log10(max(values.min(), 1e-3))))
    high = float(np.ceil(np.log10(max(values.max(), table.budget_ms))))
    left, row, top = 190.0, 24, 8

    def x(value: float) -> float:
        place = (np.log10(max(value, 1e-3)) - low) / ((high - low) or 1.0)
        return round(left + (_RIGHT - left) * float(place), 1)

    lines = []
    for i, (entry, latencies) in enumerate(shown):
        dots = np.sort(latencies)
        dots = dots if len(dots) <= most else np.quantile(dots, np.linspace(0, 1, most))
        median, p95, p99 = (x(float(q)) for q in np.quantile(latencies, (0.5, 0.95, 0.99)))
        y = top + row * (i + 0.5)
        lines.append(LatencyLine(entry.name, entry.role, y, tuple(x(float(d)) for d in dots), (median, p95, p99)))
    powers = range(int(low), int(high) + 1)
    marks = tuple((x(10.0**k), f"{10.0**k:g}") for k in powers)
    budget = f"{table.budget_ms:g} ms"
    return LatencyPlot(top + row * len(lines) + 34, marks, x(table.budget_ms), budget, tuple(lines))
