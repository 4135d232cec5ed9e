"""The table of forecasts: errors by horizon, how they stand to holding the last field, and what their intervals cover.

Pure functions of a `StreamTable`. Imports neither torch nor polars.
"""

from __future__ import annotations

from collections.abc import Callable

from reg_bench.leaderboard_text import Column
from reg_bench.metric_titles import NONE, forecast_source, number, title_of
from reg_bench.stream_tables import Stream, StreamTable

#: Methods that others are measured against, where they are in the table.
REFERENCES = ("hold-last", "ar-pca", "ar-pca-echo")
_ERROR = "end_point_error"
_COVERED = {"coverage_50": "in 50 %", "coverage_95": "in 95 %"}


def forecast_columns(table: StreamTable) -> list[Column]:
    """Columns by horizon; none where nothing was foretold.

    Of the end-point error, where it is known, its value, its ratio to that of the method's own estimate held, and to
    that of the methods of `REFERENCES`; of Dice, or else the primary metric, its value; of methods that say how sure
    they are, shares of the contour within their intervals.
    """
    metrics = dict.fromkeys(("dice", table.board.primary))
    shown = next((m for m in metrics if m != _ERROR and any(m in s.horizons for s in table.streams)), None)
    horizons = sorted({h for s in table.streams for m in s.horizons.values() for h in m})
    made: list[Column] = []
    for metric, kind in ((_ERROR, _error_columns), (shown, _value_columns)):
        if metric is not None:
            made += [c for h in horizons for c in kind(table, metric, h)]
    for metric, title in _COVERED.items():
        made += [_coverage_column(table, metric, title, h) for h in horizons]
    return [c for c in made if any(k is not None for k in c.keys)]


def _told(stream: Stream, metric: str, horizon_s: float) -> float | None:
    return stream.horizons.get(metric, {}).get(horizon_s, (None, None))[0]


def _held(stream: Stream, metric: str, horizon_s: float) -> float | None:
    return stream.horizons.get(metric, {}).get(horizon_s, (None, None))[1]


def _error_columns(table: StreamTable, metric: str, horizon_s: float) -> list[Column]:
    errors = [_told(s, metric, horizon_s) for s in table.streams]
    held = [_held(s, metric, horizon_s) for s in table.streams]
    ahead = f"{1e3 * horizon_s:.0f} ms"
    own = [_share(error, still) for error, still in zip(errors, held, strict=True)]
    made = [
        *_value_columns(table, metric, horizon_s),
        _column(
            table,
            f"{ahead}, to held",
            f"error of the forecasts {ahead} ahead as a share of that of the estimate that was there, held",
            own.__getitem__,
            metric,
            horizon_s=horizon_s,
        ),
    ]
    for name in REFERENCES:
        lines = [i for i, entry in enumerate(table.board.entries) if entry.method == name]
        if lines:
            reference = errors[lines[0]]
            hint = f"error of the forecasts {ahead} ahead as a share of that of {name}"
            shares = [_share(error, reference) for error in errors]
            made.append(_column(table, f"{ahead}, to {name}", hint, shares.__getitem__, metric, horizon_s=horizon_s))
    return made


def _value_columns(table: StreamTable, metric: str, horizon_s: float) -> list[Column]:
    values = [_told(s, metric, horizon_s) for s in table.streams]
    unit = table.board.units.get(metric, "")
    title = title_of(metric, table.board.metrics) + f", {1e3 * horizon_s:.0f} ms"
    title += f" [{unit}]" if unit not in ("", "1") else ""
    hint = f"of the forecasts {1e3 * horizon_s:.0f} ms ahead; mean over frames, then cases"
    better = table.board.better.get(metric, "")
    return [_column(table, title, hint, values.__getitem__, metric, better, horizon_s)]


def _coverage_column(table: StreamTable, metric: str, title: str, horizon_s: float) -> Column:
    ahead = f"{1e3 * horizon_s:.0f} ms"
    hint = f"share of the contour within the interval of that probability, of forecasts {ahead} ahead; mean over cases"
    shares = [_told(s, metric, horizon_s) for s in table.streams]
    return _column(table, f"{title}, {ahead}", hint, shares.__getitem__, metric, "", horizon_s)


def _column(
    table: StreamTable,
    title: str,
    hint: str,
    value: Callable[[int], float | None],
    metric: str,
    better: str = "lower",
    horizon_s: float = 0.0,
) -> Column:
    keys = tuple(value(i) for i in range(len(table.streams)))
    texts = tuple(NONE if k is None else number(k, "dice" if metric == _ERROR else metric) for k in keys)
    return Column(title, hint, texts, keys, better, source=forecast_source(table.board.profile, metric, horizon_s))


def _share(error: float | None, of: float | None) -> float | None:
    return None if error is None or not of else error / of
