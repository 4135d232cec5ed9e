"""Boards as files: Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from reg_bench.leaderboard import Board
from reg_bench.leaderboard_protocol import protocol
from reg_bench.leaderboard_text import (
    Column,
    cases_text,
    columns,
    describe,
    heading,
    name_text,
    rank_text,
    trouble_text,
)

CSV_HEAD = (
    *("suite", "suite_version", "task", "dataset", "dataset_checksum", "profile", "rank", "method", "role", "state"),
    *("method_version", "config_hash", "checkpoint", "seed", "condition", "ok", "failed", "skipped", "missing"),
    *("primary", "primary_ci_low", "primary_ci_high", "p_holm", "wall_s_median", "cpu_s_median", "peak_mb_max"),
    *("timed", "threads", "device"),
)


def markdown(
    boards: Sequence[Board],
    manifest: Mapping[str, Any],
    streams: Mapping[int, Sequence[Column]] | None = None,
    forecasts: Mapping[int, Sequence[Column]] | None = None,
) -> str:
    """All boards as GitHub-flavoured Markdown with the protocol below them.

    `streams` and `forecasts` hold the columns of a second and a third table, by the place of their board.
    """
    lines = [f"# {heading(boards, manifest)}", ""]
    for place, board in enumerate(boards):
        lines += [f"## {board.title}", "", _md(describe(board)), "", *_markdown_table(board, columns(board)), ""]
        if streams and place in streams:
            lines += ["Frame by frame:", "", *_markdown_table(board, streams[place]), ""]
        if forecasts and place in forecasts:
            lines += ["Forecasts:", "", *_markdown_table(board, forecasts[place]), ""]
        lines += [f"- warning: {_md(w)}" for w in board.warnings] + [""] * bool(board.warnings)
        lines += [f"- {_md(trouble_text(t))}" for t in board.troubles] + [""] * bool(board.troubles)
    lines += ["## Protocol", "", *(f"- {name}: {_md(text)}" for name, text in protocol(boards, manifest)), ""]
    return "\n".join(lines)


def _markdown_table(board: Board, shown: Sequence[Column]) -> list[str]:
    head = ["#", "method", "cases", *(c.title for c in shown)]
    lines = [" | ".join(head), " | ".join(["---:", "---", "---", *["---:"] * len(shown)])]
    best = [c.best(board) for c in shown]
    for i, entry in enumerate(board.entries):
        cells = [f"**{c.texts[i]}**" if i in best[j] else c.texts[i] for j, c in enumerate(shown)]
        lines.append(" | ".join([rank_text(entry), _md(name_text(entry)), cases_text(entry), *cells]))
    return [f"| {line} |" for line in lines]


def _md(text: str) -> str:
    """`text` on one line, without what Markdown would take for a table cell or a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def to_csv(boards: Sequence[Board]) -> str:
    """Every entry of every board as one line, with all statistics unrounded (9 digits)."""
    metrics = list(dict.fromkeys(m for b in boards for m in b.metrics))
    fields = ["mean", "sd", "median", "hardest30", "n", "substituted"]
    head = [*CSV_HEAD]
    head += [f"{m}_{f}" for m in metrics for f in fields]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for board in boards:
        for e in board.entries:
            low, high = e.interval or (None, None)
            line: list[Any] = [board.suite, board.suite_version, board.task, board.dataset, board.dataset_checksum]
            line += [board.profile, e.rank, e.name, e.role, e.state]
            line += [e.key[k] for k in ("method_version", "config_hash", "checkpoint", "seed", "condition")]
            line += [e.ok, e.failed, e.skipped, e.missing, board.primary, low, high, e.p_value]
            line += [e.wall_s, e.cpu_s, e.peak_mb, e.timed, " ".join(e.threads), " ".join(e.devices)]
            for m in metrics:
                c = e.cells.get(m)
                line += [c.mean, c.sd, c.median, c.hardest, c.n, c.substituted] if c else [None] * len(fields)
            writer.writerow([_csv(v) for v in line])
    return out.getvalue()


def _csv(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
