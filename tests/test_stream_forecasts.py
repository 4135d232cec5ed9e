"""The table of forecasts: by horizon, against the estimate held and against the naive forecasters."""

from __future__ import annotations

from typing import Any

from reg_bench import leaderboard_rows
from reg_bench.leaderboard import tables
from reg_bench.leaderboard_files import markdown
from reg_bench.stream_forecasts import forecast_columns
from reg_bench.stream_tables import StreamTable, columns, stream_tables
from tests.report_rows import row, value
from tests.test_stream_tables import MANIFEST


def told(method: str, case: str, error: float | None, held: float, **covered: float) -> dict[str, Any]:
    """A row with forecasts 0.1 s and 0.2 s ahead, where everything is twice as wrong."""
    values = [value("dice", 0.8, frame=1, label="all"), value("latency_first", 5.0, unit="ms")]
    for factor, horizon in ((1, 0.1), (2, 0.2)):
        worse = None if error is None else factor * error
        values.append(value("end_point_error", worse, unit="mm", horizon_s=horizon))
        values.append(value("end_point_error_hold", factor * held, unit="mm", horizon_s=horizon))
        values.append(value("dice", 0.8 - horizon, horizon_s=horizon))
        values += [value(name, share, horizon_s=horizon) for name, share in covered.items()]
    return row(method, case, values)


def table_of(rows: list[dict[str, Any]]) -> StreamTable:
    boards = tables(leaderboard_rows.from_rows(rows), MANIFEST)
    return stream_tables(boards, rows, MANIFEST)[0]


def texts(table: StreamTable, title: str) -> dict[str, str]:
    (column,) = [c for c in forecast_columns(table) if c.title == title]
    return {entry.name: shown for entry, shown in zip(table.board.entries, column.texts, strict=True)}


def test_errors_stand_beside_their_ratios_at_every_horizon() -> None:
    rows = [told("good", "p0", 0.5, 1.0), told("good", "p1", 0.7, 2.0), told("hold-last", "p0", 1.5, 1.5)]
    rows += [told("hold-last", "p1", 2.5, 2.5), told("ar-pca", "p0", 0.5, 1.0), told("ar-pca", "p1", 0.5, 1.0)]
    table = table_of(rows)
    assert texts(table, "EPE, 100 ms")["good"] == "0.600"
    assert texts(table, "EPE, 200 ms")["good"] == "1.200"
    assert texts(table, "100 ms, to held") == {"good": "0.400", "hold-last": "1.000", "ar-pca": "0.500"}
    assert texts(table, "200 ms, to hold-last")["good"] == "0.300"
    assert texts(table, "100 ms, to ar-pca")["good"] == "1.200"
    assert texts(table, "Dice, 200 ms")["good"] == "0.600"
    assert not any("in 50" in c.title for c in forecast_columns(table))


def test_what_intervals_cover_has_no_better_end() -> None:
    rows = [told("sure", "p0", 0.5, 1.0, coverage_50=0.4, coverage_95=0.9), told("plain", "p0", 0.5, 1.0)]
    table = table_of(rows)
    assert texts(table, "in 50 %, 100 ms") == {"sure": "0.40", "plain": "–"}
    assert texts(table, "in 95 %, 200 ms")["sure"] == "0.90"
    assert {c.better for c in forecast_columns(table) if "in 50 %" in c.title} == {""}
    assert not any("hold-last" in c.title for c in forecast_columns(table))


def test_a_forecast_that_failed_once_has_no_mean() -> None:
    rows = [told("a", "p0", 0.5, 1.0), told("a", "p1", None, 1.0), told("b", "p0", 0.5, 1.0), told("b", "p1", 0.5, 1.0)]
    table = table_of(rows)
    assert texts(table, "EPE, 100 ms") == {"a": "–", "b": "0.500"}
    assert texts(table, "100 ms, to held")["a"] == "–"


def test_the_tables_are_part_of_the_text() -> None:
    table = table_of([told("a", "p0", 0.5, 1.0), told("hold-last", "p0", 1.0, 1.0)])
    board = table.board
    found = markdown([board], MANIFEST, {0: columns(table)}, {0: forecast_columns(table)})
    assert "Forecasts:\n\n| # | method | cases | EPE, 100 ms | 100 ms, to held |" in found
    assert "Forecasts:" not in markdown([board], MANIFEST, {0: columns(table)})
    rows = [row("a", "p0", [value("dice", 0.8, frame=1, label="all"), value("latency_first", 5.0, unit="ms")])]
    assert forecast_columns(table_of(rows)) == []
