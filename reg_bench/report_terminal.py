"""The boards as text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from reg_bench import leaderboard_text as text
from reg_bench.leaderboard import Board


def terminal(
    boards: Sequence[Board],
    manifest: Mapping[str, Any],
    *,
    colour: bool = False,
    width: int = 110,
    streams: Mapping[int, Sequence[text.Column]] | None = None,
) -> str:
    """The main board of every task as text tables, with what failed below each; at most `width` characters.

    `streams` holds further columns, by the place of their board in `boards`.
    """
    from rich.console import Console
    from rich.markup import escape

    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False, legacy_windows=False
    )
    console.print(f"[bold]{escape(text.heading(boards, manifest))}[/]")
    for place, board in enumerate(boards):
        if not board.main:
            continue
        console.print()
        console.print(f"[bold]{escape(board.title)}[/]: {escape(text.describe(board))}")
        console.print(_terminal_table(board, width, text.columns(board)))
        if streams and place in streams:
            console.print(_terminal_table(board, width, streams[place]))
        for trouble in board.troubles:
            style = "red" if trouble.status == "failed" else "yellow"
            console.print(f"[{style}]{escape(text.trouble_text(trouble, 2))}[/]")
    for warning in dict.fromkeys(w for b in boards for w in b.warnings):
        console.print(f"[yellow]warning: {escape(warning)}[/]")
    # Padding up to the width would only show when the text is pasted somewhere.
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _terminal_table(board: Board, width: int, known: Sequence[text.Column]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("method", min_width=min(34, max(len(text.name_text(e)) for e in board.entries)))
    table.add_column("cases", justify="right", no_wrap=True)
    # Rank, number of cases and time take some 32 characters beside the names.
    shown = _terminal_columns(known, width - 32 - min(34, max(len(text.name_text(e)) for e in board.entries)))
    for column in shown:
        table.add_column(Text(column.title), justify="right", no_wrap=True)
    best = [c.best(board) for c in shown]
    for i, entry in enumerate(board.entries):
        cells = [Text(c.texts[i], style="bold green" if i in best[j] else "") for j, c in enumerate(shown)]
        style = "dim" if entry.role or not entry.complete else ""
        cases = f"{entry.ok}/{len(board.cases)}"
        table.add_row(text.rank_text(entry), Text(text.name_text(entry)), cases, *cells, style=style)
    return table


def _terminal_columns(columns: Sequence[text.Column], room: int) -> list[text.Column]:
    """The means that fit into `room` characters, and the time; the page has everything."""
    known = [c for c in columns if c.title not in ("95 % CI", "p") and not c.title.startswith("rank ")]
    costs = [c for c in known if c.title == "time [s]"]
    chosen: list[text.Column] = []
    for column in (c for c in known if c.title not in ("time [s]", "CPU [s]", "peak [MB]")):
        room -= max(map(len, (column.title, *column.texts))) + 2
        if room < 0 and chosen:
            break
        chosen.append(column)
    return chosen + costs
