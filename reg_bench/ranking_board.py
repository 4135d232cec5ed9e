"""The honest ranking of a board of the leaderboard, by its primary metric or by several with weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reg_bench import statistics as st
from reg_bench.leaderboard import Board, Entry
from reg_bench.ranking import DRAWS, Column, Ranking, rank


def rank_board(board: Board, weights: Mapping[str, float] | None = None, *, draws: int = DRAWS) -> Ranking | None:
    """Ranks the complete methods of a board, in the order of its table.

    By the primary metric alone the ranks are those of the table, but for methods that are not better than no motion,
    which the gate puts behind.

    Args:
        weights: metric to its share; the first is that of the gate. By default the primary metric.
        draws: bootstrap samples of the subjects.

    Returns:
        `None` where there is nothing to rank by, or nobody to be ranked.

    Raises:
        ValueError: a metric that the board lacks or that has no better direction.
    """
    chosen = {board.primary: 1.0} if weights is None else dict(weights)
    entries = [e for e in board.entries if e.complete and board.primary and e.cells[board.primary].mean is not None]
    if not entries or not any(not e.role for e in entries):
        return None
    columns = {}
    for metric, weight in chosen.items():
        if metric not in board.metrics:
            raise ValueError(f"{board.title}: no metric {metric!r}, expected one of {', '.join(board.metrics)}")
        columns[metric] = Column(_values(board, entries, metric), board.better[metric], weight)
    floors = [i for i, e in enumerate(entries) if e.role == "floor"]
    return rank(
        [e.name for e in entries],
        columns,
        st.subjects_of(board.cases),
        floor=floors[0] if floors else None,
        unranked=[i for i, e in enumerate(entries) if e.role],
        draws=draws,
    )


def _values(board: Board, entries: list[Entry], metric: str) -> st.Floats:
    """`(M, N)`; a value that is null where another method has one counts as the worst."""
    if metric == board.primary:
        return np.stack([e.values for e in entries])
    nothing = np.full(len(board.cases), np.nan)
    values = np.stack([np.asarray(e.scores.get(metric, nothing), float) for e in entries])
    exists = np.isfinite(values).any(axis=0)
    worst = st.worst_values(values, metric, board.better[metric])
    return np.where(exists[None] & ~np.isfinite(values), worst[None], values)
