"""Our registration methods beside those of others on the same cases: accuracy, folding and CPU seconds.

    python benchmarks/speed/peers.py [--suite peers] [--out runs/peers] [--methods A,B] [--tasks A,B] [--rows DIR]
        [--edges-mm heart2d=1.4 organs64=2 organs128=2]

Runs a suite (`peers`, `peers-real`, `multimodal`, `large-motion`) with one thread and prints the table of the README
from its rows: mean of the task's measure over the cases (lengths in millimetres, or in voxels of the tasks whose voxel
edge is given), CPU seconds per case, and voxels that fold where there are any. With `--rows` nothing is run and the
table is made from a folder of rows, such as `leaderboards/peers`. Peers that are not installed are left out;
`docs/peers.md` tells how to get them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from reg_bench.results import read_rows
from reg_bench.suite import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="peers")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--methods", help="only these, with commas between them")
    parser.add_argument("--tasks", help="only these, with commas between them")
    parser.add_argument("--rows", type=Path, help="make the table of these rows and run nothing")
    parser.add_argument("--edges-mm", nargs="*", default=[], metavar="TASK=MM", help="voxel edges: lengths in voxels")
    args = parser.parse_args()
    edges = {task: float(mm) for task, mm in (item.split("=") for item in args.edges_mm)}
    folder = args.rows
    if folder is None:
        folder = args.out
        chosen = [f"--{name}={value}" for name, value in (("methods", args.methods), ("tasks", args.tasks)) if value]
        command = [sys.executable, "-m", "reg_bench.cli", "run", args.suite, f"--out={folder}", "--no-panels", *chosen]
        subprocess.run(command, check=False)
    primary = {task.name: task.primary for task in load_suite(args.suite).tasks}
    print(table(read_rows(folder), primary, edges))


def table(rows: Iterable[Mapping[str, Any]], primary: Mapping[str, str | None], edges: Mapping[str, float]) -> str:
    """Markdown with a line per method and a column per task of `primary`, in the order in which rows came.

    Of a method whose settings changed between rows, those of its last settings.
    """
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    rows = list(rows)
    latest = {row["key"]["method"]: row["key"]["config_hash"] for row in rows}
    for row in rows:
        if row["status"] == "ok" and row["key"]["config_hash"] == latest[row["key"]["method"]]:
            found[row["key"]["method"]][row["key"]["task"]].append(row)
    tasks = [t for t in primary if any(t in by_task for by_task in found.values())]
    lines = ["| method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method, by_task in found.items():
        cells = (
            _cell(by_task[task], primary[task] or "dice", edges.get(task, 1.0)) if by_task.get(task) else ""
            for task in tasks
        )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: list[Mapping[str, Any]], metric: str, edge_mm: float) -> str:
    text = f"{fmean(_value(row, metric) for row in rows) / edge_mm:.3f}; {fmean(row['cpu_s'] for row in rows):.2g} s"
    consistency = [_value(row, "inverse_consistency", None) for row in rows]
    if None not in consistency:
        text += f"; back {fmean(c for c in consistency if c is not None) / edge_mm:.3f}"
    folding = fmean(_value(row, "nonpositive_fraction") for row in rows)
    return text + (f"; {folding:.2%} folds" if folding else "") + f" ({len(rows)})"


def _value(row: Mapping[str, Any], metric: str, default: float | None = 0.0) -> Any:
    """The value over all labels in the strict profile, in millimetres where it is a length."""
    values = [
        v["value"]
        for v in row["values"]
        if (v["metric"], v["profile"], v["label"]) == (metric, "strict", "all") and v["value"] is not None
    ]
    return values[0] if values else default


if __name__ == "__main__":
    main()
