"""The challenge's ranking of a board: its instances, DSC30 and TRE30, time, and the score of the task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reg_bench.leaderboard import ENTRY_KEY, Board, Entry
from reg_bench.ranking_learn2reg import CHALLENGE, Instances, Quirks, TaskRanking, hardest_instances, hardest_points
from reg_bench.ranking_learn2reg import rank_task as rank_metrics
from reg_bench.statistics import Floats


@dataclass(frozen=True)
class ChallengeTable:
    """A board as the challenge ranks it.

    Attributes:
        names: of the complete methods, in the order of the table; the row of no motion is among them, as there.
        means: per metric the mean over the instances that it is ranked by, stand-ins for missing ones included.
        ranking: scores and ranks.
        quirks: how it was ranked.
    """

    names: tuple[str, ...]
    means: dict[str, Floats]
    ranking: TaskRanking
    quirks: Quirks


def rank_as_challenge(
    board: Board, quirks: Quirks = CHALLENGE, *, time: bool = True, rows: Iterable[Mapping[str, Any]] = ()
) -> ChallengeTable | None:
    """Ranks the complete methods of a board as the challenge does.

    Tasks with labels: DSC, DSC30, HD95, SDlogJ, time. Tasks with points: TRE twice, TRE30, SDlogJ, time. DSC30 and
    TRE30 look at the instances that are hardest without registration; without such a row they are left out.

    Args:
        time: whether the runtime counts.
        rows: those of the run, see `results.read_rows`: boards do not hold the errors of single points. Without them
            TRE is ranked over cases, and TRE30 looks at the hardest cases.

    Returns:
        `None` where a board has neither labels nor points, or no complete method.
    """
    entries = [e for e in board.entries if e.complete and e.role != "ceiling"]
    if not entries:
        return None
    floor = next((i for i, e in enumerate(entries) if e.role == "floor"), None)
    metrics: dict[str, Instances] = {}
    if "dice" in board.metrics:
        dice = _flat(entries, "dice", board)
        metrics["DSC"] = Instances("dice", dice)
        if floor is not None:
            metrics["DSC30"] = Instances("dice", dice[:, hardest_instances(dice[floor], "dice", quirks)])
        if "hd95" in board.metrics:
            metrics["HD95"] = Instances("hd95", _flat(entries, "hd95", board))
    for name in ("tre_landmarks", "tre_keypoints"):
        if name in board.metrics and not metrics:
            points = _points(entries, name, board, rows)
            tre = _flat(entries, name, board) if points is None else points.reshape(len(entries), -1)
            metrics["TRE"] = Instances("tre", tre, power=2)
            if floor is not None and points is not None:
                chosen = hardest_points(points[floor], quirks)
            elif floor is not None:
                chosen = hardest_instances(tre[floor], "tre", quirks)
            if floor is not None:
                metrics["TRE30"] = Instances("tre", tre[:, chosen])
    if not metrics:
        return None
    penalised = [floor] if floor is not None and quirks.initial == "penalised" else []
    if "sdlogj" in board.metrics:
        roughness = np.stack([_scores(e, "sdlogj", board) for e in entries])
        roughness[penalised] = np.nan
        metrics["SDlogJ"] = Instances("sdlogj", roughness)
    if time:
        missing = np.full(len(board.cases), np.nan)
        seconds = np.stack([e.costs.get("wall_s", missing) for e in entries])
        seconds[penalised] = np.nan
        metrics["time"] = Instances("time", seconds)
    ranking = rank_metrics(metrics, quirks)
    means = {
        name: np.where(np.isfinite(m.values), m.values, quirks.missing[m.kind]).mean(axis=1)
        for name, m in metrics.items()
    }
    return ChallengeTable(tuple(e.name for e in entries), means, ranking, quirks)


def _scores(entry: Entry, metric: str, board: Board) -> Floats:
    return np.asarray(entry.scores.get(metric, np.full(len(board.cases), np.nan)), float)


def _flat(entries: list[Entry], metric: str, board: Board) -> Floats:
    """`(M, cases * labels)`, cases outermost; where single labels or points are not at hand, the cases.

    Failures and what is null are not numbers here: the challenge has stand-ins of its own for them.
    """
    labels = sorted({label for e in entries for label in e.labelled.get(metric, {})}, key=lambda k: (len(k), k))
    if not labels:
        return np.stack([_scores(e, metric, board) for e in entries])
    nothing = np.full(len(board.cases), np.nan)
    rows = [np.stack([e.labelled.get(metric, {}).get(label, nothing) for label in labels], axis=1) for e in entries]
    return np.stack([row.ravel() for row in rows])


def _points(entries: list[Entry], metric: str, board: Board, rows: Iterable[Mapping[str, Any]]) -> Floats | None:
    """Errors `(M, cases, points)` of single points, NaN where a method has none; `None` without any in the rows."""
    lines = {tuple(str(e.key[name]) for name in ENTRY_KEY): i for i, e in enumerate(entries)}
    columns = {case: i for i, case in enumerate(board.cases)}
    found: dict[tuple[int, int, int], float] = {}
    for row in rows:
        key = row["key"]
        line = lines.get(tuple("" if key.get(name) is None else str(key[name]) for name in ENTRY_KEY))
        if line is None or key["task"] != board.task or key["case"] not in columns:
            continue
        for value in row.get("values") or ():
            own = value["metric"] == metric and value["profile"] == board.profile and value["label"] != "all"
            if own and value["value"] is not None and str(value["label"]).isdecimal():
                found[line, columns[key["case"]], int(value["label"])] = float(value["value"])
    if not found:
        return None
    errors = np.full((len(entries), len(board.cases), 1 + max(point for _, _, point in found)), np.nan)
    for at, error in found.items():
        errors[at] = error
    return errors


def to_text(table: ChallengeTable) -> str:
    """The table, best first."""
    order = np.lexsort((np.arange(len(table.names)), table.ranking.rank))
    names = list(table.means)
    width = max(len(name) for name in (*table.names, "method"))
    lines = [f" # {'method':<{width}} " + " ".join(f"{n:>9}" for n in names) + "     score"]
    for i in order:
        means = " ".join(f"{table.means[n][i]:9.4g}" for n in names)
        lines.append(f"{table.ranking.rank[i]:2d} {table.names[i]:<{width}} {means} {table.ranking.score[i]:9.3f}")
    return "\n".join(lines)
