"""Who is better than whom: one-sided tests of every method against every other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reg_bench import statistics as st
from reg_bench.leaderboard import Board, Entry
from reg_bench.leaderboard_text import number

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
    entries = [e for e in board.entries if e.complete and board.primary and e.cells[board.primary].mean is not None]
    if len(entries) < 2:
        return None
    means = st.subject_means(np.stack([e.values for e in entries]), st.subjects_of(board.cases))
    p = pairwise_p(means, board.better[board.primary])
    return (entries, p) if np.isfinite(p).any() else None


def pairwise_p(means: st.Floats, better: str) -> st.Floats:
    """One-sided paired Wilcoxon signed-rank p of "row is better than column", Holm over all pairs; `(M, M)`.

    `means` is `(M, S)`, a value per subject. NaN on the diagonal and where fewer than two subjects are shared.
    """
    count = len(means)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    sign = 1.0 if better == "higher" else -1.0
    raw = [_greater(sign * means[i], sign * means[j]) for i, j in pairs]
    p = np.full((count, count), np.nan)
    for (i, j), value in zip(pairs, st.holm(raw), strict=True):
        p[i, j] = np.nan if value is None else value
    return p


def _greater(a: st.Floats, b: st.Floats) -> float | None:
    difference = np.round(a - b, 12)
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return None
    if not difference.any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference, alternative="greater").pvalue)


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
