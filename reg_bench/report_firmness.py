"""How firm the ranks of a board are, as positions in pixels: what they would be with other subjects."""

from __future__ import annotations

from dataclasses import dataclass

from reg_bench.leaderboard import Board
from reg_bench.leaderboard_text import behind_gate
from reg_bench.report_plots import Ticks

WIDTH = 560
_LEFT, _RIGHT, _ROW, _TOP = 170.0, WIDTH - 92.0, 22, 6


@dataclass(frozen=True)
class Rank:
    """One method: its rank, the interval of its ranks, how often it led, and whether it passed the gate."""

    name: str
    y: float
    place: float
    interval: tuple[float, float]
    first: str
    passed: bool
    words: str


@dataclass(frozen=True)
class Firmness:
    """The drawing; `stability` is the mean Kendall correlation of a draw with the order shown."""

    height: int
    ticks: Ticks
    ranks: tuple[Rank, ...]
    draws: int
    stability: str
    gated: bool


def firmness(board: Board) -> Firmness | None:
    """The drawing of `board`; None below two ranked methods or two subjects."""
    found = board.ranking
    ranked = [] if found is None else [i for i, low in enumerate(found.low) if low > 0]
    if found is None or not found.draws or len(ranked) < 2:
        return None
    ranked.sort(key=lambda i: (found.rank[i], found.low[i], found.names[i]))
    last = int(max(found.high[i] for i in ranked))

    def x(rank: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (rank - 1) / max(last - 1, 1), 1)

    step = max(1, round(last / 10))
    ticks = tuple((x(k), str(k)) for k in range(1, last + 1) if k == 1 or k % step == 0)
    ranks, behind = [], behind_gate(board)
    for line, i in enumerate(ranked):
        low, high, share = int(found.low[i]), int(found.high[i]), float(found.first[i])
        words = f"{found.names[i]}: rank {int(found.rank[i])}, in 95 % of the draws {low} to {high}"
        if found.names[i] in behind:
            words += "; not significantly better than no motion"
        ranks.append(
            Rank(
                name=found.names[i],
                y=_TOP + _ROW * (line + 0.5),
                place=x(float(found.rank[i])),
                interval=(x(low), x(high)),
                first=f"{100 * share:.0f} %" if share >= 0.005 else "",
                passed=found.names[i] not in behind,
                words=words,
            )
        )
    gated = not all(r.passed for r in ranks)
    return Firmness(_TOP + _ROW * len(ranks) + 34, ticks, tuple(ranks), found.draws, f"{found.stability:.2f}", gated)
