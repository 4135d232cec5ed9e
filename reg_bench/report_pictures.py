"""Which cases of a method the page shows: its median and its worst five."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from reg_bench import statistics as st
from reg_bench.leaderboard import Board, Entry
from reg_bench.metric_titles import number, title_of

WORST = 5
#: Bytes of pictures inside a page that stands alone; of more, fewer cases of each method are shown.
MOST_BYTES = 6_500_000


@dataclass(frozen=True)
class Chosen:
    """One case: why it is shown, its value, and its picture or, where it has none, the reason."""

    what: str
    case: int
    name: str
    value: str
    source: str
    reason: str


class Pictures:
    """The panel pictures that a run folder holds; no other file is ever linked: rows may come from anyone."""

    def __init__(self, folder: Path, standalone: bool = False) -> None:
        self.folder, self.standalone = folder, standalone
        panels = folder / "panels"
        self._known = {f"panels/{name}" for name in os.listdir(panels)} if panels.is_dir() else set()

    def holds(self, path: str) -> bool:
        """Whether `path`, as rows give it, is a picture inside the folder."""
        if path in self._known:
            return True
        pure = PurePosixPath(path)
        inside = bool(path) and not pure.is_absolute() and ".." not in pure.parts and ":" not in path
        return inside and "\\" not in path and (self.folder / pure).is_file()

    def source(self, path: str) -> str:
        """What an `img` element needs: the relative path, or the picture itself where the page stands alone."""
        if not self.standalone:
            return path
        return "data:image/webp;base64," + base64.b64encode((self.folder / path).read_bytes()).decode()


def worst_shown(boards: Sequence[Board], folder: Path) -> int:
    """How many of the worst cases fit into a page that stands alone: five, three or one of each method."""
    beside = Pictures(folder)
    for worst in (WORST, 3):
        paths = [c.source for b in boards for _, cases in chosen_cases(b, beside, worst) for c in cases if c.source]
        if sum((folder / path).stat().st_size for path in paths) <= MOST_BYTES:
            return worst
    return 1


def chosen_cases(board: Board, pictures: Pictures, worst: int = WORST) -> list[tuple[Entry, list[Chosen]]]:
    """For each method with pictures its median case and its worst ones, by the primary metric."""
    made = []
    for entry in sorted(board.entries, key=lambda e: bool(e.role)):
        shown = {case: path for case, path in entry.panels.items() if pictures.holds(path)}
        if shown:
            made.append((entry, _chosen(board, entry, shown, pictures)[: worst + 1]))
    return made


def _chosen(board: Board, entry: Entry, shown: Mapping[str, str], pictures: Pictures) -> list[Chosen]:
    known = np.flatnonzero(np.isfinite(entry.values)) if board.primary else np.empty(0, dtype=int)
    drawn = np.array([board.cases[i] in shown for i in known], dtype=bool)
    if not drawn.any():
        first = min(board.cases.index(case) for case in shown)
        return [_made(board, entry, "first case", first, shown, pictures)]
    sign = 1.0 if board.better[board.primary] == "higher" else -1.0
    # What failed has the value of the worst and comes before those that earned it.
    failed = entry.status[known] == st.FAILED
    order = np.lexsort((known, sign * entry.values[known], ~failed))
    ordered = known[order]
    # The median is one with a picture, the nearest to the middle.
    places = np.flatnonzero(drawn[order])
    middle = int(ordered[places[np.argmin(np.abs(places - len(ordered) // 2))]])
    worst = [int(i) for i in ordered[:WORST] if int(i) != middle or len(ordered) > WORST]
    picks = [("median case", middle)]
    picks += [(f"{_ordinal(k + 1)} case", i) for k, i in enumerate(worst) if i != middle]
    if len(ordered) == 1:
        picks = [("only case", middle)]
    return [_made(board, entry, what, i, shown, pictures) for what, i in picks]


def _ordinal(number: int) -> str:
    return "worst" if number == 1 else {2: "2nd", 3: "3rd"}.get(number, f"{number}th") + " worst"


def _made(board: Board, entry: Entry, what: str, index: int, shown: Mapping[str, str], pictures: Pictures) -> Chosen:
    case, value = board.cases[index], ""
    if board.primary and np.isfinite(entry.values[index]):
        title = title_of(board.primary, board.metrics)
        value = f"{title} {number(float(entry.values[index]), board.primary)}"
    path = shown.get(case, "")
    reason = entry.reasons.get(case, "" if path else "no picture was drawn")
    return Chosen(what, index, case, value, pictures.source(path) if path else "", reason)
