"""The picture of a sweep: accuracy over the parameter, and accuracy against regularity with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reg_bench.leaderboard import FLOORS, Board
from reg_bench.ranking_tests import pareto_front

if TYPE_CHECKING:
    from reg_bench.sweep import Point

_LINE, _FLOOR, _FRONT = "#2a6fbb", "#6b7280", "#d9772b"


def draw(board: Board, points: Sequence[Point], parameter: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        points: at least one with a value of the primary metric.
        parameter: what the horizontal axis is called.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [p for p in points if p.primary is not None]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    unit = board.units.get(board.primary, "")
    title = board.primary if unit in ("", "1") else f"{board.primary} [{unit}]"
    x, y = np.array([p.value for p in known]), np.array([p.primary for p in known], float)
    left.plot(x, y, "o-", color=_LINE)
    bounded = [p for p in known if p.interval is not None]
    if bounded:
        ends = np.array([p.interval for p in bounded], float)
        left.fill_between([p.value for p in bounded], ends[:, 0], ends[:, 1], color=_LINE, alpha=0.15, linewidth=0)
    low, high = left.get_ylim()
    for entry in (e for e in board.entries if e.method in FLOORS and board.primary in e.cells):
        mean = entry.cells[board.primary].mean
        if mean is None:
            continue
        # Far away it would press the curve flat: its number is enough then.
        near = low - (high - low) < mean < high + (high - low)
        line: dict[str, Any] = {"color": _FLOOR, "linestyle": "--", "linewidth": 1}
        if near:
            left.axhline(mean, **line, label=f"{entry.name} {mean:.3g}")
        else:
            left.plot([], [], **line, label=f"{entry.name} {mean:.3g}")
        left.legend(frameon=False)
    if (x > 0).all():
        left.set_xscale("log")
    left.set_xlabel(parameter)
    left.set_ylabel(f"{title}, {board.better[board.primary]} is better")
    rough = [p for p in known if p.sdlogj is not None]
    if rough:
        _trade(right, board, rough, title)
    else:
        right.set_axis_off()
    figure.suptitle(f"{known[0].method.rpartition('@')[0]}: {board.title}, {len(board.cases)} cases")
    figure.savefig(path, dpi=110)


def _trade(axes: object, board: Board, points: Sequence[Point], title: str) -> None:
    """Accuracy against SDlogJ; where folding is, in brackets."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    sign = -1.0 if board.better[board.primary] == "higher" else 1.0
    x, y = np.array([p.sdlogj for p in points], float), np.array([p.primary for p in points], float)
    front = pareto_front(np.stack([sign * y, x], axis=1))
    axes.plot(x, y, "-", color=_LINE, linewidth=1)
    axes.scatter(x[~front], y[~front], color=_LINE, zorder=3)
    axes.scatter(x[front], y[front], color=_FRONT, zorder=3, label="Pareto front")
    for p, a, b in zip(points, x, y, strict=True):
        folds = f" ({p.folding:.2%} folds)" if p.folding else ""
        axes.annotate(f"{p.value:g}{folds}", (a, b), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xlabel("SDlogJ")
    axes.set_ylabel(title)
    axes.legend(frameon=False)
