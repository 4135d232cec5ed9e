"""Who is better than whom: one-sided tests of every method against every other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reg_bench import statistics as st
from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import number

#: Upper ends of the classes of p that the map tells apart.
LEVELS = (0.001, 0.01, 0.05)


@dataclass(frozen=True)
class Cell:
    """The row against the column: `kind` is the class of the drawing, `words` what it says."""

    kind: str
    text: str
    words: str


@dataclass(frozen=True)
class HeatMap:
    """A square of cells, None on the diagonal."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    tests: int


def heat_map(board: Board) -> HeatMap | None:
    """The map of all complete methods in the order of the table; None below two methods or subjects."""
    found = compared(board)
    if found is None:
        return None
    entries, p = found
    better = board.better[board.primary]
    rows = []
    for i, row in enumerate(entries):
        cells: list[Cell | None] = []
        for j, column in enumerate(entries):
            if i == j:
                cells.append(None)
                continue
            gap = (row.cells[board.primary].mean or 0.0) - (column.cells[board.primary].mean or 0.0)
            cells.append(_cell(row.name, column.name, p[i, j], p[j, i], number(abs(gap), board.primary), gap, better))
        rows.append(tuple(cells))
    names = tuple(e.name for e in entries)
    return HeatMap(names, tuple(e.role for e in entries), tuple(rows), int(np.isfinite(p).sum()))


def compared(board: Board) -> tuple[list[Entry], st.Floats] | None:
    """The complete methods in the order of the table, and p of each being better than each other `(M, M)`."""
    ranking = board.ranking
    if ranking is None or board.primary not in ranking.p or not np.isfinite(ranking.p[board.primary]).any():
        return None
    entries = {e.name: e for e in board.entries}
    return [entries[name] for name in ranking.names], ranking.p[board.primary]


def _cell(row: str, column: str, p: float, back: float, gap: str, difference: float, better: str) -> Cell:
    ahead = "better" if (difference > 0) == (better == "higher") else "worse"
    words = f"{row} against {column}: " + (f"mean {ahead} by {gap}" if difference else "equal means")
    if np.isfinite(p) and p < LEVELS[-1]:
        return Cell(f"win{_level(p)}", _short(p), f"{words}; better with p {_p_text(p)}")
    if np.isfinite(back) and back < LEVELS[-1]:
        return Cell(f"loss{_level(back)}", _short(back), f"{words}; worse with p {_p_text(back)}")
    told = f"p {_p_text(p)}" if np.isfinite(p) else "too few subjects to test"
    return Cell("even", "·", f"{words}; not significant, {told}")


def _level(p: float) -> int:
    return 3 - sum(p >= level for level in LEVELS)


def _short(p: float) -> str:
    return "***" if p < LEVELS[0] else "**" if p < LEVELS[1] else "*"


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
