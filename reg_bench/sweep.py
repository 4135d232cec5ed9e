"""Sweeps one number of a method, as a rule the weight of its regularization: a suite with a method for each value.

Every value is a method of its own in one run folder, so that rows, resuming and tables are those of `reg-bench run`.
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reg_bench.discovery import Spec, nearest
from reg_bench.errors import ConfigError
from reg_bench.leaderboard import Board

#: What methods call the strength of their regularization, in order of preference.
WEIGHTS = (
    "weight",
    "bending_weight",
    "regularization_weight",
    "alpha",
    "sigma_voxels",
    "warp_sigma_voxels",
    "smoothing_voxels",
    "total_sigma_variance",
    "grid_voxels",
)
#: Of the value that the method has, where no values are given.
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
REFERENCE = "identity"


@dataclass(frozen=True)
class Point:
    """One value of a curve: what the method with it scored on a task.

    Attributes:
        value: of the parameter.
        method: name of the method with it.
        primary, interval: mean of the primary metric, and its interval over subjects.
        sdlogj, folding: regularity: mean SDlogJ and share of folded voxels.
        seconds: median wall seconds of a case.
        ok, cases: how many cases finished, of how many.
    """

    value: float
    method: str
    primary: float | None
    interval: tuple[float, float] | None
    sdlogj: float | None
    folding: float | None
    seconds: float | None
    ok: int
    cases: int


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in the settings of a method by its path, such as `stages.0.weight`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # `init_args` says nothing: settings of an inner class are reached by its argument.
            step = path if key == "init_args" else f"{path}.{key}".lstrip(".")
            if key != "class_path":
                yield from numbers(inner, step)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{path}.{index}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def parameter_of(settings: Mapping[str, Any], wanted: str | None, method: str) -> tuple[str, float]:
    """Path and present value of the number to sweep: the one called `wanted`, or the method's regularization weight.

    Of several stages it is the last one's. Weights of 0 are those of stages without regularization.

    Raises:
        ConfigError: no such number; names those that there are.
    """
    known = dict(numbers(settings))
    if wanted is not None:
        path = wanted.removeprefix("init_args.").replace(".init_args.", ".")
        if path not in known:
            raise ConfigError(f"--parameter: {method} has no number {wanted!r}{nearest(path, known)}")
        return path, known[path]
    for name in WEIGHTS:
        found = [path for path, value in known.items() if path.rpartition(".")[2] == name and value > 0]
        if found:
            return found[-1], known[found[-1]]
    listed = ", ".join(known) or "none"
    raise ConfigError(f"{method}: no regularization weight among its numbers; give --parameter, one of: {listed}")


def with_value(settings: Mapping[str, Any], path: str, value: float) -> dict[str, Any]:
    """The settings with the number at `path` replaced; whole numbers stay whole where they were."""
    changed = copy.deepcopy(dict(settings))
    place: Any = changed
    *steps, last = path.split(".")
    for step in steps:
        place = _inner(place, step)
    while isinstance(place, dict) and last not in place and "init_args" in place:
        place = place["init_args"]
    key: Any = int(last) if isinstance(place, list) else last
    place[key] = round(value) if isinstance(place[key], int) and float(value).is_integer() else value
    return changed


def _inner(place: Any, step: str) -> Any:
    if isinstance(place, list | tuple):
        return place[int(step)]
    while step not in place and "init_args" in place:
        place = place["init_args"]
    return place[step]


def methods(spec: Spec, settings: Mapping[str, Any], path: str, values: Sequence[float]) -> list[Spec]:
    """A method for each value, named `method@value`."""
    settings = _plain(settings)
    return [replace(spec, name=f"{spec.name}@{v:g}", init_args=with_value(settings, path, v)) for v in values]


def _plain(value: Any) -> Any:
    """Settings whose sequences can be written into."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def checked_values(values: Sequence[float]) -> list[float]:
    """The values in rising order.

    Raises:
        ConfigError: fewer than two, one that is not finite, or one twice.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)) or len({f"{v:g}" for v in values}) < len(values):
        raise ConfigError(f"--values: expected at least two different numbers, got {', '.join(map(str, values))}")
    return sorted(values)


def curve(board: Board, method: str, values: Sequence[float]) -> list[Point]:
    """The points of the sweep on a board, in order of the value; values without a row are left out."""
    by_name = {entry.name: entry for entry in board.entries}
    points = []
    for value in values:
        entry = by_name.get(f"{method}@{value:g}")
        if entry is None:
            continue
        means = {m: entry.cells[m].mean if m in entry.cells else None for m in (*board.metrics, board.primary)}
        points.append(
            Point(
                value,
                entry.name,
                means.get(board.primary),
                entry.interval,
                means.get("sdlogj"),
                means.get("nonpositive_fraction"),
                entry.wall_s,
                entry.ok,
                len(board.cases),
            )
        )
    return points


_COLUMNS = ("task", "profile", "parameter", "value", "metric", "mean", "low", "high", "sdlogj", "folding", "seconds")


def to_csv(curves: Mapping[Board, Sequence[Point]] | Sequence[tuple[Board, Sequence[Point]]], path: str) -> str:
    """All curves as a table with a header; empty where something is not known."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*_COLUMNS, "ok", "cases"))
    for board, points in curves.items() if isinstance(curves, Mapping) else curves:
        for p in points:
            low, high = p.interval or (None, None)
            row = (board.task, board.profile, path, p.value, board.primary, p.primary, low, high)
            writer.writerow((*row, p.sdlogj, p.folding, p.seconds, p.ok, p.cases))
    return stream.getvalue()


def to_markdown(board: Board, points: Sequence[Point], path: str) -> str:
    """One curve as a table."""
    from reg_bench.metric_titles import number

    unit = board.units.get(board.primary, "")
    head = f"| {path} | {board.primary}{f' [{unit}]' if unit not in ('', '1') else ''} | SDlogJ | folding | time [s] |"
    lines = [f"{board.title}, {len(board.cases)} cases", "", head, "|---:|---:|---:|---:|---:|"]
    for p in points:
        cells = [f"{p.value:g}", number(p.primary, board.primary), number(p.sdlogj, "sdlogj")]
        cells += ["–" if p.folding is None else f"{p.folding:.3%}", "–" if p.seconds is None else f"{p.seconds:.3g}"]
        lines.append(f"| {' | '.join(cells)} |" + ("" if p.ok == p.cases else f" {p.ok} of {p.cases} cases"))
    return "\n".join(lines) + "\n"


def write(curves: Sequence[tuple[Board, Sequence[Point]]], path: str, folder: Path) -> list[Path]:
    """Writes `sweep.csv`, `sweep.md` and, of each task, `sweep-<task>.png`; returns where."""
    from reg_bench.sweep_plot import draw

    written = [folder / "sweep.csv", folder / "sweep.md"]
    written[0].write_text(to_csv(curves, path), encoding="utf-8")
    text = "\n".join(to_markdown(board, points, path) for board, points in curves)
    written[1].write_text(text, encoding="utf-8")
    for board, points in curves:
        if any(p.primary is not None for p in points):
            written.append(folder / f"sweep-{board.task}.png")
            draw(board, points, path, written[-1])
    return written
