"""Boards as text: the columns that every rendering shares, names, ranks and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reg_bench.leaderboard import NO_CASES, Board, Entry, Trouble
from reg_bench.metric_titles import HINTS, NONE, number, percent, title_of
from reg_bench.ranking import ALPHA
from reg_bench.statistics import HARDEST_PERCENT

#: Facts about the scoring that are in the CSV only.
HIDDEN = frozenset({"labels_counted", "num_foldings"}) | {
    # Those of streams have a table of their own.
    *("latency", "latency_first", "latency_median", "latency_p95", "latency_p99", "within_budget")
}


@dataclass(frozen=True)
class Column:
    """One column of a board: its title with unit, an explanation, and per entry a text and a sort key.

    `source` says which value of the cases the numbers come from, as `profile/metric`, with `#label` for that of one
    label; `spans` are intervals with their middle, in percent of the range of all.
    """

    title: str
    hint: str
    texts: tuple[str, ...]
    keys: tuple[float | None, ...]
    better: str = ""
    primary: bool = False
    source: str = ""
    spans: tuple[tuple[float, float, float] | None, ...] = ()

    def best(self, board: Board) -> set[int]:
        """Lines of ranked methods that hold the best value, where the column has a better end."""
        known = {i: k for i, k in enumerate(self.keys) if k is not None and board.entries[i].rank is not None}
        if self.better not in ("higher", "lower") or len(known) < 2:
            return set()
        top = max(known.values()) if self.better == "higher" else min(known.values())
        return {i for i, k in known.items() if k == top}


def rank_text(entry: Entry) -> str:
    """The rank, or what the line is instead."""
    return entry.role or (str(entry.rank) if entry.rank is not None else NONE)


def name_text(entry: Entry) -> str:
    """The method's name, with what is missing."""
    attempted = entry.ok + entry.failed
    if entry.state == "skipped":
        return f"{entry.name} (skipped)"
    if entry.state == "incomplete":
        return f"{entry.name} (incomplete, {attempted} of {attempted + entry.missing + entry.skipped} cases)"
    return entry.name


def cases_text(entry: Entry) -> str:
    """`20`, or `18 ok, 2 failed`."""
    parts = [("ok", entry.ok), ("failed", entry.failed), ("skipped", entry.skipped), ("missing", entry.missing)]
    named = [f"{count} {word}" for word, count in parts if count]
    return str(entry.ok) if len(named) == 1 and entry.ok else ", ".join(named)


def columns(board: Board) -> list[Column]:
    """The columns of `board`: those metrics that any method has, the primary one first, then cost."""
    shown = [m for m in board.metrics if m not in HIDDEN and any(e.cells[m].n for e in board.entries)]
    shown.sort(key=lambda m: m != board.primary)
    made: list[Column] = []
    for metric in shown:
        made += _metric_columns(board, metric)
    made += [c for c in _cost_columns(board) if any(t != NONE for t in c.texts)]
    return made


def _metric_columns(board: Board, metric: str) -> list[Column]:
    entries, unit = board.entries, board.units.get(metric, "")
    cells = [e.cells[metric] for e in entries]
    title, hint = title_of(metric, board.metrics), HINTS.get(metric, "")
    better, means = board.better[metric], tuple(c.mean for c in cells)
    source = f"{board.profile}/{metric}"
    if metric == "nonpositive_fraction":
        texts = tuple(percent(c.mean) for c in cells)
        return [Column(f"{title} [%]", hint, texts, means, better, source=source)]
    suffix = "" if unit in ("", "1") else f" [{unit}]"
    texts = tuple(number(c.mean, metric) + (f" ± {number(c.sd, metric)}" if c.sd is not None else "") for c in cells)
    made = [
        Column(
            title + suffix,
            f"{hint}; mean ± sd over cases".strip("; "),
            texts,
            means,
            better,
            metric == board.primary,
            source,
        )
    ]
    if metric == board.primary:
        made += _primary_columns(board, metric)
    if any(c.hardest is not None for c in cells):
        tail = tuple(c.hardest for c in cells)
        short = title.replace("Dice", "DSC").replace("TRE", "TRE30", 1).replace("DSC", "DSC30")
        hint = f"mean over the hardest {HARDEST_PERCENT} % of the cases ({board.hardest_n}), by {board.hardest_by}"
        made.append(Column(short + suffix, hint, tuple(number(t, metric) for t in tail), tail, better, source=source))
    return made


def _primary_columns(board: Board, metric: str) -> list[Column]:
    intervals, source = [e.interval for e in board.entries], f"{board.profile}/{metric}"
    texts = tuple(NONE if i is None else f"{number(i[0], metric)}–{number(i[1], metric)}" for i in intervals)
    lows = tuple(None if i is None else i[0] for i in intervals)
    made = []
    if any(intervals):
        hint = f"95 % bootstrap interval of the mean over {board.subjects} subjects"
        made.append(Column("95 % CI", hint, texts, lows, source=source, spans=_spans(board)))
    p_values = tuple(e.p_value for e in board.entries)
    if any(p is not None for p in p_values):
        texts = tuple(NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in p_values)
        hint = "paired Wilcoxon signed-rank test against the best, over subjects, Holm-corrected"
        made.append(Column("p", hint, texts, p_values, source=source))
    made += _rank_columns(board, source)
    for profile, ranks in board.other_ranks.items():
        places = tuple(ranks.get(e.name) for e in board.entries)
        keys = tuple(None if r is None else float(r) for r in places)
        texts = tuple(NONE if r is None else str(r) for r in places)
        made.append(
            Column(f"rank {profile}", f"rank in the profile {profile}", texts, keys, source=f"{profile}/{metric}")
        )
    return made


def behind_gate(board: Board) -> frozenset[str]:
    """Methods that are not significantly better than no motion; none where too few subjects could ever tell."""
    found = board.ranking
    if found is None:
        return frozenset()
    count = len(found.names)
    # What a signed-rank test of so many subjects gives at best, after Holm's correction.
    best = count * (count - 1) / 2.0**board.subjects
    lines = zip(found.names, found.rank, found.passed, strict=True)
    ranked = [name for name, rank, passed in lines if rank and not passed]
    return frozenset(ranked) if best < ALPHA else frozenset()


def _rank_columns(board: Board, source: str) -> list[Column]:
    """How firm the ranks are; none below two ranked methods or two subjects."""
    found = board.ranking
    if found is None or not found.draws or sum(r > 0 for r in found.rank) < 2:
        return []
    place = {name: i for i, name in enumerate(found.names)}
    lines = [place.get(e.name) for e in board.entries]
    lines = [i if i is not None and found.low[i] else None for i in lines]
    texts = [NONE if i is None else _range(int(found.low[i]), int(found.high[i])) for i in lines]
    behind = behind_gate(board)
    gate = [i is not None and found.names[i] in behind for i in lines]
    hint = (
        f"95 % of the ranks over {found.draws} bootstrap draws of the subjects; mean agreement (Kendall) of a draw "
        f"with the order shown: {found.stability:.2f}; a star: not significantly better than no motion"
    )
    keys = tuple(None if i is None else float(found.low[i] + found.high[i] / 1000) for i in lines)
    starred = tuple(f"{t} *" if g else t for t, g in zip(texts, gate, strict=True))
    return [Column("ranks 95 %", hint, starred, keys, source=source)]


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _spans(board: Board) -> tuple[tuple[float, float, float] | None, ...]:
    """Intervals of the primary metric around its mean, in percent of what all intervals span together."""
    known = [e.interval for e in board.entries if e.interval is not None]
    low, high = min(i[0] for i in known), max(i[1] for i in known)

    def place(value: float) -> float:
        return round(100 * (value - low) / ((high - low) or 1.0), 1)

    means = [e.cells[board.primary].mean for e in board.entries]
    return tuple(
        None if e.interval is None or m is None else (place(e.interval[0]), place(m), place(e.interval[1]))
        for e, m in zip(board.entries, means, strict=True)
    )


def _cost_columns(board: Board) -> list[Column]:
    entries = board.entries
    alone = "median over cases timed exclusively; only the registration itself"

    def column(title: str, hint: str, value: Callable[[Entry], float | None], source: str) -> Column:
        keys = tuple(value(e) for e in entries)
        return Column(title, hint, tuple(number(k) for k in keys), keys, source=source)

    return [
        column("time [s]", f"wall seconds, {alone}", lambda e: e.wall_s, "wall_s"),
        column("CPU [s]", f"CPU seconds, {alone}", lambda e: e.cpu_s, "cpu_s"),
        column("peak [MB]", "largest peak memory of a case", lambda e: e.peak_mb, "peak_mb"),
    ]


def heading(boards: Sequence[Board], manifest: Mapping[str, Any]) -> str:
    """`Suite NAME, version N` of everything shown."""
    suites = list(dict.fromkeys((b.suite, b.suite_version) for b in boards))
    return "; ".join(f"Suite {name}, version {version}" for name, version in suites)


def describe(board: Board) -> str:
    """One sentence: data, number of cases and what orders the table."""
    cases, subjects = len(board.cases), board.subjects
    of = f" of {subjects} subject{'s' * (subjects != 1)}" if subjects != cases else ""
    by = "no method has a value of the primary metric: not ranked"
    if board.primary:
        by = f"ordered by {title_of(board.primary, board.metrics)} ({board.better[board.primary]} is better)"
    return f"{board.dataset}, {cases} case{'s' * (cases != 1)}{of}; {by}."


def trouble_text(trouble: Trouble, most: int = 5) -> str:
    """`demons failed on 2 cases (a, b): reason`, naming at most `most` cases."""
    count, more = len(trouble.cases), len(trouble.cases) - most
    verb = {"failed": "failed on", "skipped": "skipped"}.get(trouble.status, trouble.status)
    if trouble.cases == (NO_CASES,):
        return f"{trouble.name}: the cases could not be listed: {trouble.reason}"
    names = ", ".join(trouble.cases[:most]) + (f" and {more} more" if more > 0 else "")
    return f"{trouble.name} {verb} {count} case{'s' * (count != 1)} ({names}): {trouble.reason}"
