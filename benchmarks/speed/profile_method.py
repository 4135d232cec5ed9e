"""Where a method's time goes, by source file.

    python benchmarks/speed/profile_method.py [METHOD ...] [--dataset phantom-3d] [--size 64 64 64] [--lines 8]

Registers one generated pair with each method (`ffd-mse`, `lucas-kanade`, `svf-lncc`), once uncounted, and prints the
share of the time that each file of the package spent, the tensor operations that it called included.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from reg_bench.discovery import build_datamodule, build_method

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["ffd-mse", "lucas-kanade", "svf-lncc"])
    parser.add_argument("--dataset", default="phantom-3d")
    parser.add_argument("--size", type=int, nargs="+", default=[64, 64, 64])
    parser.add_argument("--lines", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = build_datamodule({"class_path": args.dataset, "init_args": {"size": args.size}})
    pair = data.load(data.records("test")[0])
    for name in args.methods:
        method = build_method(name)
        method(pair)
        profile = cProfile.Profile()
        profile.runcall(method, pair)
        seconds = by_file(pstats.Stats(profile))
        total = sum(seconds.values())
        print(f"\n{name}: {total:.2f} s with the profiler on")
        for file, spent in seconds.most_common(args.lines):
            print(f"  {spent / total:6.1%}  {file}")


def by_file(stats: pstats.Stats) -> Counter[str]:
    """Seconds per file; what lies outside the package counts for the files that called it, in proportion."""
    table: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]
    seconds: Counter[str] = Counter()
    for function, (_, _, own, _, callers) in table.items():
        if _ours(function) or not callers:
            seconds[_name(function)] += own
        else:
            for caller, share in callers.items():
                seconds[_name(caller)] += share[2]
    return seconds


def _ours(function: tuple[str, int, str]) -> bool:
    return any(Path(function[0]).is_relative_to(ROOT / folder) for folder in ("reg_bench", "lightning_modules"))


def _name(function: tuple[str, int, str]) -> str:
    return str(Path(function[0]).relative_to(ROOT)) if _ours(function) else "torch's own Python and the rest"


if __name__ == "__main__":
    main()
