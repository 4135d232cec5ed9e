"""Runs one task of a shipped suite in this process, without the processes around it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reg_bench import plan, results, runner, worker
from reg_bench.suite import load_suite, select_methods


def run_task(
    suite_name: str,
    task: str,
    out: Path,
    root: Path | None = None,
    methods: Sequence[str] = ("identity",),
    limit: int = 1,
) -> list[dict[str, Any]]:
    """The rows of the first cases of `task`."""
    worker._quiet()
    suite = select_methods(load_suite(suite_name), methods)
    suite = replace(suite, protocol=replace(suite.protocol, panels=False, warm_up="none"))
    made = plan.Plan(suite, 0, plan.plan_tasks(suite, root, limit, [task]), plan.plan_methods(suite, 0))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        runner.run(made, out, runner.make_trainer("cpu", 1, out), made.jobs, lambda event: None)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return results.read_rows(out)


def numbers(row: dict[str, Any], metric: str, label: str = "all") -> dict[int | None, float | None]:
    """Values of `metric` by frame, forecasts left out."""
    return {
        v["frame"]: v["value"]
        for v in row["values"]
        if (v["metric"], v["label"], v["horizon_s"]) == (metric, label, None)
    }
