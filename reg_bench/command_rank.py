"""`reg-bench rank`: the methods of a run ranked honestly, or as the Learn2Reg challenge ranks."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_bench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from reg_bench.leaderboard import Board
    from reg_bench.ranking_learn2reg import Quirks

SUMMARY = "Rank the methods of a run: with intervals and tests, or as the challenge does."

FILE = "ranking.json"
_QUIRKS = {
    "test": ("rank-sum", "signed-rank"),
    "correction": ("none", "holm"),
    "count": ("losses", "wins"),
    "hardest": ("hard", "easy"),
    "initial": ("penalised", "measured"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `reg-bench rank`."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="the --out folder of `reg-bench run`")
    parser.add_argument(
        "--as", dest="how", choices=("honest", "challenge"), default="honest", help="which ranking (default: honest)"
    )
    parser.add_argument("--task", metavar="NAME", help="only this task")
    parser.add_argument("--profile", choices=("learn2reg", "strict"), help="of the metrics (challenge: learn2reg)")
    parser.add_argument(
        "--weights", metavar="M=W,…", help="honest: metrics and their shares (default: the primary metric alone)"
    )
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="honest: bootstrap draws (default 1000)")
    parser.add_argument("--no-time", action="store_true", help="challenge: the runtime does not count")
    for name, values in _QUIRKS.items():
        parser.add_argument(f"--{name}", choices=values, help=f"challenge: default {values[0]}, as its code does")


def run(args: argparse.Namespace) -> int:
    """Prints the rankings and writes `ranking.json` into DIR; returns 0.

    Raises:
        ConfigError: an unknown task or metric.
        DataError: a folder without results.
    """
    from reg_bench import leaderboard_rows
    from reg_bench.leaderboard import tables
    from reg_bench.manifest import read

    if args.draws < 0:
        raise ConfigError(f"--draws must not be negative, got {args.draws}")
    results = leaderboard_rows.read(args.directory)
    if not results:
        raise DataError(f"{args.directory}: no results; expected the folder of a run")
    boards = tables(results, read(args.directory) or {})
    known = list(dict.fromkeys(b.task for b in boards))
    if args.task is not None and args.task not in known:
        raise ConfigError(f"--task: no task {args.task!r} in this run, expected one of {', '.join(known)}")
    profile = args.profile or ("learn2reg" if args.how == "challenge" else None)
    chosen = [b for b in boards if args.task in (None, b.task) and (b.profile == profile if profile else b.main)]
    found = [_challenge(b, args) if args.how == "challenge" else _honest(b, args) for b in chosen]
    content = [entry for entry in found if entry is not None]
    if not content:
        raise DataError(f"{args.directory}: nothing to rank in the profile {profile or 'of the suite'}")
    path = args.directory / FILE
    path.write_text(json.dumps({"how": args.how, "boards": content}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    return 0


def _weights(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        pairs = [part.partition("=")[::2] for part in text.split(",")]
        return {name.strip(): float(value or 1) for name, value in pairs}
    except ValueError as error:
        raise ConfigError(f"--weights: expected metric=share with commas between them, got {text!r}") from error


def _honest(board: Board, args: argparse.Namespace) -> dict[str, Any] | None:
    from reg_bench.ranking_board import rank_board

    try:
        ranking = rank_board(board, _weights(args.weights), draws=args.draws)
    except ValueError as error:
        raise ConfigError(f"--weights: {error}") from error
    if ranking is None:
        return None
    width = max(map(len, (*ranking.names, "method")))
    print(f"{board.title}, {len(board.cases)} cases of {board.subjects} subjects; {ranking.draws} draws of subjects")
    print(f" # {'method':<{width}}  score  95 %   first  better than no motion")
    order = sorted(range(len(ranking.names)), key=lambda i: (ranking.rank[i] == 0, ranking.rank[i]))
    for i in order:
        ranked = ranking.rank[i] > 0
        place = f"{ranking.rank[i]:2d}" if ranked else " –"
        span = f"{ranking.low[i]}–{ranking.high[i]}" if ranked else ""
        first = f"{ranking.first[i]:5.0%}" if ranked else ""
        gate = ("yes" if ranking.passed[i] else "no") if ranked else ""
        score = f"{ranking.score[i]:5.2f}" if ranked else ""
        print(f"{place} {ranking.names[i]:<{width}}  {score:>5}  {span:<5} {first:>6}  {gate}")
    print(f"stability (mean Kendall tau of the draws): {ranking.stability:.3f}\n")
    rows = {
        name: {
            "rank": int(ranking.rank[i]),
            "score": _finite(ranking.score[i]),
            "low": int(ranking.low[i]),
            "high": int(ranking.high[i]),
            "first": float(ranking.first[i]),
            "passed": bool(ranking.passed[i]),
        }
        for i, name in enumerate(ranking.names)
    }
    p = {metric: [[_finite(v) for v in row] for row in table] for metric, table in ranking.p.items()}
    head = {"task": board.task, "profile": board.profile, "stability": _finite(ranking.stability)}
    return {**head, "draws": ranking.draws, "methods": rows, "p": p}


def _challenge(board: Board, args: argparse.Namespace) -> dict[str, Any] | None:
    from reg_bench.ranking_challenge import rank_as_challenge, to_text
    from reg_bench.results import read_rows

    table = rank_as_challenge(board, _quirks(args), time=not args.no_time, rows=read_rows(args.directory))
    if table is None:
        return None
    print(f"{board.title}, {len(board.cases)} cases, as the challenge ranks")
    print(to_text(table) + "\n")
    rows = {
        name: {
            "rank": int(table.ranking.rank[i]),
            "score": float(table.ranking.score[i]),
            "scores": {metric: float(s[i]) for metric, s in table.ranking.scores.items()},
            "means": {metric: _finite(m[i]) for metric, m in table.means.items()},
        }
        for i, name in enumerate(table.names)
    }
    quirks = {key: value for key, value in dataclasses.asdict(table.quirks).items() if key != "missing"}
    return {"task": board.task, "profile": board.profile, "quirks": quirks, "methods": rows}


def _quirks(args: argparse.Namespace) -> Quirks:
    from reg_bench.ranking_learn2reg import CHALLENGE

    given = {name: value for name in _QUIRKS if (value := getattr(args, name)) is not None}
    return dataclasses.replace(CHALLENGE, **given)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if abs(number) < float("inf") else None
