"""Tables and drawings of streams from rows: pooled values, conditions, budgets, curves."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_bench import leaderboard_rows, report
from reg_bench.leaderboard import Board, tables
from reg_bench.leaderboard_files import markdown
from reg_bench.stream_plots import charts, latency_plot
from reg_bench.stream_tables import StreamTable, columns, stream_tables
from tests.report_rows import row, value, write

MANIFEST: dict[str, Any] = {
    "suite": {
        "name": "s",
        "tasks": [
            {"name": "t", "kind": "sequence", "primary": "dice", "stream": {"budget_ms": 30, "labels": "linear"}}
        ],
    }
}


def stream_row(method: str, case: str, base: float, *, latency: float = 20.0, **changes: Any) -> dict[str, Any]:
    """Three frames of two labels whose Dice falls by 0.1 a frame; `wall` lies 0.2 below `cavity`."""
    values = []
    for frame in (1, 2, 3):
        cavity = base - 0.1 * (frame - 1)
        for label, number in (("cavity", cavity), ("wall", cavity - 0.2), ("all", cavity - 0.1)):
            values.append(value("dice", number, frame=frame, label=label))
        values.append(value("latency", latency * (10 if frame == 1 else frame - 1), unit="ms", frame=frame))
    values += [value("latency_first", 50.0, unit="ms"), value("within_budget", 1.0)]
    for horizon in (0.2, 0.4):
        values.append(value("dice", base - horizon, horizon_s=horizon))
        values.append(value("dice_hold", base - 2 * horizon, horizon_s=horizon))
    return row(method, case, values, **changes)


def example() -> list[dict[str, Any]]:
    rows = [stream_row("a", "p0", 0.9), stream_row("a", "p1", 0.7), stream_row("no-motion", "p0", 0.5, latency=1.0)]
    rows += [stream_row("no-motion", "p1", 0.5, latency=1.0), stream_row("b", "p0", 0.95)]
    rows += [row("b", "p1", status="failed", reason="RuntimeError: lost")]
    rows += [stream_row("a", c, 0.6, condition="every-2nd") for c in ("p0", "p1")]
    rows += [stream_row("b", c, 0.4, condition="every-2nd") for c in ("p0", "p1")]
    return rows


def made(rows: list[dict[str, Any]], manifest: dict[str, Any] | None = None) -> tuple[list[Board], StreamTable]:
    boards = tables(leaderboard_rows.from_rows(rows), manifest or MANIFEST)
    (table,) = stream_tables(boards, rows, manifest or MANIFEST)
    return boards, table


def cell(table: StreamTable, title: str, method: str) -> str:
    names = [e.name for e in table.board.entries]
    (column,) = [c for c in columns(table) if c.title == title]
    return column.texts[names.index(method)]


def test_dice_is_pooled_over_frames_and_cases_and_a_failed_case_counts_as_0() -> None:
    _, table = made(example())
    cavity = [0.9, 0.8, 0.7, 0.7, 0.6, 0.5]
    assert cell(table, "Dice cavity", "a") == f"{np.mean(cavity):.3f} ± {np.std(cavity, ddof=1):.3f}"
    failed = [0.95, 0.85, 0.75, 0, 0, 0]
    assert cell(table, "Dice cavity", "b") == f"{np.mean(failed):.3f} ± {np.std(failed, ddof=1):.3f}"
    assert table.labels == ("cavity", "wall"), "their mean stands in the board"


def test_latency_leaves_the_first_frame_out_and_shared_timings() -> None:
    rows = example()
    rows[1] = {**rows[1], "timing": "shared"}
    _, table = made(rows)
    assert cell(table, "median [ms]", "a") == "30"
    assert cell(table, "p99 [ms]", "a") == "39.8"
    assert cell(table, "first [ms]", "a") == "50"
    assert cell(table, "within 30 ms [%]", "a") == "50"
    (column,) = [c for c in columns(table) if c.title == "median [ms]"]
    assert column.texts[[e.name for e in table.board.entries].index("b")] == "30"
    assert cell(table, "within 30 ms [%]", "no-motion") == "100"


def test_the_budget_is_that_of_the_last_run() -> None:
    wide = {"suite": {"tasks": [{**MANIFEST["suite"]["tasks"][0], "stream": {"budget_ms": 40}}]}}
    assert cell(made(example(), wide)[1], "within 40 ms [%]", "a") == "100"


def test_conditions_have_boards_of_their_own_and_a_column_beside_the_plain_one() -> None:
    boards, table = made(example())
    assert [(b.condition, b.main, b.title) for b in boards] == [
        ("", True, "t, profile strict"),
        ("every-2nd", False, "t, every-2nd, profile strict"),
    ]
    assert [e.name for e in boards[0].entries] == ["a", "b", "no-motion"], "one line per method"
    assert boards[0].hardest_by == "the value of `no-motion`"
    assert [(e.name, e.role) for e in boards[1].entries] == [("a", ""), ("b", "")]
    assert cell(table, "Dice, every 2nd", "a") == "0.400"
    assert cell(table, "Dice, every 2nd", "no-motion") == "–"


def test_known_motion_is_no_ceiling_where_frames_are_missing() -> None:
    rows = [stream_row("truth", "p0", 0.9), stream_row("truth", "p0", 0.8, condition="every-2nd")]
    boards, _ = made(rows)
    assert [b.entries[0].role for b in boards] == ["ceiling", ""]


def test_a_condition_alone_is_the_main_board() -> None:
    rows = [r for r in example() if r["key"]["condition"]]
    boards, table = made(rows)
    assert [b.main for b in boards] == [True]
    assert table.conditions == {}
    assert cell(table, "Dice cavity", "a").startswith("0.500")


def test_missing_conditions_of_the_manifest_are_told() -> None:
    manifest = {
        "suite_name": "s",
        "suite_version": "1",
        "seed": 0,
        "tasks": [{"name": "t", "dataset_checksum": "c0", "cases": ["p0", "p1"], "conditions": [None, "every-2nd"]}],
        "methods": [{"name": m, "version": "1", "config_hash": f"hash-of-{m}"} for m in ("a", "no-motion")],
    }
    boards = tables(leaderboard_rows.from_rows([r for r in example() if r["key"]["method"] != "b"]), manifest)
    states = {(b.condition, e.name): e.state for b in boards for e in b.entries}
    assert states["", "no-motion"] == "complete"
    assert states["every-2nd", "no-motion"] == "incomplete"


def points(text_of: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in (pair.split(",") for pair in text_of.split())]


def test_curves_are_means_over_cases_with_a_band_of_a_deviation() -> None:
    _, table = made(example())
    by_title = {c.title: c for c in charts(table)}
    assert list(by_title) == ["Dice cavity over time", "Dice wall over time", "Dice of forecasts"]
    chart = by_title["Dice cavity over time"]
    (curve,) = [c for c in chart.curves if c.name == "a"]
    ticks = {label: y for y, label in chart.y_ticks}
    low, high = min(ticks, key=float), max(ticks, key=float)

    def y(number: float) -> float:
        share = (number - float(low)) / (float(high) - float(low))
        return ticks[low] + share * (ticks[high] - ticks[low])

    assert [p[1] for p in points(curve.points)] == pytest.approx([y(0.8), y(0.7), y(0.6)], abs=0.11)
    band = points(curve.band)
    assert band[0][1] == pytest.approx(y(0.9), abs=0.11)
    assert band[-1][1] == pytest.approx(y(0.7), abs=0.11)
    assert [p[0] for p in points(curve.points)] == pytest.approx([56, 401, 746])
    assert {c.name: c.role for c in chart.curves}["no-motion"] == "floor"


def test_forecasts_stand_beside_the_field_held() -> None:
    _, table = made(example())
    chart = charts(table)[-1]
    assert chart.axis == "horizon [s]"
    told = {(c.name, c.dashed): [y for _, y in points(c.points)] for c in chart.curves}
    assert set(told) == {(n, d) for n in ("a", "b", "no-motion") for d in (False, True)}
    assert told["a", False][1] < told["a", True][1], "higher up is better: y runs downwards"
    assert [c.name for c in chart.legend] == ["a", "b", "no-motion"]


def test_latencies_are_drawn_on_a_logarithmic_axis_with_the_budget() -> None:
    _, table = made(example())
    plot = latency_plot(table)
    assert plot is not None
    ticks = {label: x for x, label in plot.ticks}
    assert plot.budget_text == "30 ms"
    expected = ticks["10"] + np.log10(3) * (ticks["100"] - ticks["10"])
    assert plot.budget == pytest.approx(expected, abs=0.1)
    (line,) = [x for x in plot.lines if x.name == "a"]
    assert line.marks[0] == pytest.approx(expected, abs=0.1), "the median is 30 ms"
    assert len(line.dots) == 4
    untimed = tuple(replace(s, latency_ms=np.empty(0)) for s in table.streams)
    assert latency_plot(replace(table, streams=untimed)) is None


def test_page_and_tables_are_functions_of_the_rows_alone(tmp_path: Path) -> None:
    import json

    rows = example()
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, rows)
        (folder / "manifest.json").write_text(json.dumps(MANIFEST))
        terminal = report.build(folder)
        found.append([(folder / f).read_bytes() for f in ("leaderboard.md", "index.html")] + [terminal.encode()])
        random.Random(3).shuffle(rows)
    assert found[0] == found[1]
    markdown, page, terminal = (part.decode() for part in found[0])
    assert "Frame by frame:" in markdown
    assert "Dice cavity" in markdown
    assert "streams of t: labels warped as masks, linear, above one half; budget 30 ms" in markdown
    assert page.count('class="plot chart"') == 3
    assert "Frames given: <b>every 2nd</b>" in page
    assert "within 30 ms" in page
    assert "median [ms]" in terminal
    # Latencies of single frames and their summaries stand in the table of streams alone.
    assert "latency median" not in page


def test_boards_of_pairs_have_no_streams() -> None:
    rows = [row("a", "p0", [value("dice", 0.5)])]
    boards = tables(leaderboard_rows.from_rows(rows), {})
    assert stream_tables(boards, rows, {}) == []
    assert "Frame by frame" not in markdown(boards, {}, {})
