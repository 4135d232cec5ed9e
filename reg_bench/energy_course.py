"""The course of the energy that a method minimised: gathered from its parts, as CSV and as a picture.

A part keeps its course in an attribute `course`, a list of `{stage, level, case, iteration, energy, seconds}`.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch.nn import Module

COLUMNS = ("part", "method", "stage", "level", "case", "iteration", "energy", "seconds")

Row = Mapping[str, Any]

_COLOURS = ("#2a6fbb", "#d9772b", "#3a8f5c", "#8a55a8", "#b23a48", "#6b7280")
_PANEL_INCHES, _PANELS_IN_A_ROW = 4.6, 3


def course_of(method: Module) -> list[dict[str, Any]]:
    """The rows of all parts of `method` that kept a course of their last call, in order.

    Each row has the `COLUMNS`; `part` counts the methods from 1, `method` is their name or class.
    """
    kept = ((m, getattr(m, "course", None)) for m in method.modules())
    parts = [(m, course) for m, course in kept if isinstance(course, list) and course]
    return [
        {"part": number, "method": getattr(part, "name", "") or type(part).__name__, **row}
        for number, (part, course) in enumerate(parts, start=1)
        for row in course
    ]


def write_course(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """The rows as CSV with a header."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def draw_course(rows: Sequence[Row], path: str | os.PathLike[str], title: str = "") -> None:
    """Writes a PNG: a panel per part and stage, in it a line per level and case, levels one after another.

    Energies of different stages measure different things, and so do those of different levels, whose images differ:
    what counts is how each line falls and where it becomes flat.

    Args:
        rows: as from `course_of`, at least one.
        path: of the PNG.
        title: above the panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [list(group) for _, group in itertools.groupby(rows, key=lambda r: (r["part"], r["stage"]))]
    columns = min(len(panels), _PANELS_IN_A_ROW)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(_PANEL_INCHES * max(columns, 1.4), 3.5 * lines + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel)
        axes.set_title(_heading(panel, rows), fontsize=10, loc="left")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=12, weight="bold", x=0.012, ha="left")
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _heading(panel: Sequence[Row], rows: Sequence[Row]) -> str:
    """The method, and the stage where it has several."""
    first = panel[0]
    stages = {r["stage"] for r in rows if r["part"] == first["part"]}
    return f"{first['method']}, stage {first['stage'] + 1}" if len(stages) > 1 else str(first["method"])


def _draw_panel(axes: Axes, panel: Sequence[Row]) -> None:
    start, values = 0, []
    levels = [(level, list(group)) for level, group in itertools.groupby(panel, key=lambda r: r["level"])]
    for number, (level, rows) in enumerate(levels):
        colour = _COLOURS[number % len(_COLOURS)]
        cases = [list(group) for _, group in itertools.groupby(rows, key=lambda r: r["case"])]
        for k, case in enumerate(cases):
            energies = [float(r["energy"]) for r in case]
            values += energies
            steps = [start + int(r["iteration"]) for r in case]
            label = _label(level, case) if k == 0 else None
            axes.plot(steps, energies, color=colour, lw=1.8, label=label, solid_capstyle="round")
            axes.plot(steps[-1], energies[-1], "o", color=colour, ms=4)
        start += max(int(r["iteration"]) for r in rows)
        if number + 1 < len(levels):
            axes.axvline(start, color="#cccccc", lw=0.8, zorder=0)
    _style(axes, values)


def _label(level: int, case: Sequence[Row]) -> str:
    first, last = case[0], case[-1]
    energies = f"{first['energy']:.3g} to {last['energy']:.3g}"
    return f"level {level + 1}: {energies}, {last['iteration']} iterations, {last['seconds']:.2g} s"


def _style(axes: Axes, values: Sequence[float]) -> None:
    finite = [v for v in values if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 5 * min(finite):
        axes.set_yscale("log")
    axes.set_xlabel("iteration, level after level", fontsize=9)
    axes.set_ylabel("energy", fontsize=9)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(axis="y", color="#e8e8e8", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="best")
