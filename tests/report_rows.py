"""Synthetic rows for the tests of leaderboard and report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def value(
    metric: str, number: float | None, *, profile: str = "strict", unit: str = "1", **more: Any
) -> dict[str, Any]:
    """One entry of a row's values, of the whole case unless a label is given."""
    base = {"metric": metric, "profile": profile, "label": "all", "frame": None, "horizon_s": None}
    return {**base, "value": number, "unit": unit, **more}


def row(method: str, case: str, values: Iterable[Mapping[str, Any]] = (), **changes: Any) -> dict[str, Any]:
    """A result row as the runner writes it; `changes` replace entries of the key or of the row."""
    key: dict[str, Any] = {"suite": "s", "suite_version": "1", "task": "t", "dataset": "d", "dataset_checksum": "c0"}
    key |= {"method": method, "method_version": "1", "config_hash": f"hash-of-{method}", "checkpoint": None}
    key |= {"seed": 0, "case": case, "condition": None}
    content: dict[str, Any] = {"event": "result", "key": key, "status": "ok", "reason": None, "values": list(values)}
    content |= {"wall_s": 1.0, "cpu_s": 2.0, "load_s": 0.1, "score_s": 0.1, "peak_mb": 10.0, "timing": "exclusive"}
    content |= {"threads": 1, "device": "cpu", "panel": None, "time": "2026-01-01T00:00:00"}
    for name, change in changes.items():
        (key if name in key else content)[name] = change
    return content


def dice_rows(method: str, scores: Mapping[str, float | None], **changes: Any) -> list[dict[str, Any]]:
    """One row per case with its Dice; None is a failed case."""
    failed = {"status": "failed", "reason": "RuntimeError: diverged"}
    rows = []
    for case, score in scores.items():
        outcome = failed if score is None else {}
        rows.append(row(method, case, [] if score is None else [value("dice", score)], **{**outcome, **changes}))
    return rows


def write(folder: Path, rows: Iterable[Mapping[str, Any]], name: str = "rows.rank0.jsonl") -> None:
    """Appends `rows` to a file of the run folder, each after its `started` line."""
    with (folder / name).open("a") as out:
        for r in rows:
            out.write(json.dumps({"event": "started", "key": r["key"], "time": r["time"]}) + "\n")
            out.write(json.dumps(r) + "\n")
