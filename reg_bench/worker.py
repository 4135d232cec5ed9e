"""One process of a run, started by the supervisor: plans, runs its share, and tells what it does on a pipe."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reg_bench.errors import RegBenchError

EXIT_BAD_INPUT = 2
_PR_SET_PDEATHSIG = 1


def main(settings: Mapping[str, Any]) -> int:
    """Runs the worker described by `settings` (see `supervisor.Settings`); returns its exit status."""
    _die_with(int(settings["parent"]))
    report = _reporter(int(settings["channel"]))
    try:
        _work(settings, report)
    except RegBenchError as error:
        report({"event": "error", "bad_input": True, "message": str(error)})
        return EXIT_BAD_INPUT
    except Exception as error:
        traceback.print_exc()
        report({"event": "error", "bad_input": False, "message": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when `parent` dies, however it dies (Linux; elsewhere the pipe tells)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _reporter(descriptor: int) -> Callable[[Mapping[str, Any]], None]:
    os.set_inheritable(descriptor, False)
    channel = os.fdopen(descriptor, "w", buffering=1)

    def report(event: Mapping[str, Any]) -> None:
        try:
            channel.write(json.dumps(event) + "\n")
        except OSError:
            # Nobody listens: the supervisor has died.
            os._exit(1)

    return report


def _quiet() -> None:
    """Lightning's banners and hints say nothing about a benchmark."""
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|monai|torch")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _work(settings: Mapping[str, Any], report: Callable[[Mapping[str, Any]], None]) -> None:
    _quiet()
    import torch

    from reg_bench import plan as planning
    from reg_bench import runner
    from reg_bench.protocol import set_threads
    from reg_bench.submission_write import from_settings
    from reg_bench.suite import load_suite, select_methods, with_budget
    from reg_bench.weights_files import with_checkpoints

    suite = load_suite(settings["suite"])
    if settings["methods"]:
        suite = select_methods(suite, settings["methods"])
    suite = with_checkpoints(suite, settings["checkpoints"])
    if settings["budget_ms"] is not None:
        suite = with_budget(suite, float(settings["budget_ms"]))
    if not settings["panels"]:
        suite = replace(suite, protocol=replace(suite.protocol, panels=False))
    seed = suite.protocol.seed if settings["seed"] is None else int(settings["seed"])
    set_threads(suite.protocol.threads)
    methods = planning.plan_methods(suite, seed)
    tasks = planning.plan_tasks(suite, settings["root"], settings["limit"], settings["tasks"], settings["cases"])
    plan = planning.Plan(suite, seed, tasks, methods)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    folder = Path(settings["out"])
    trainer = runner.make_trainer(device, int(settings["devices"]), folder)
    files = from_settings(settings["submission"])
    keep = None if files is None else files.write
    runner.run(plan, folder, trainer, lambda: _list_jobs(plan, settings, device, report, files), report, keep)


def _list_jobs(
    plan: Any,
    settings: Mapping[str, Any],
    device: str,
    report: Callable[[Mapping[str, Any]], None],
    files: Any = None,
) -> list[Any]:
    """Writes the manifest, gives up on what has killed its process twice, tells the totals; rank 0 only."""
    from reg_bench import manifest, results
    from reg_bench.plan import killed_jobs, missing_jobs, spread, with_lost_files

    folder = Path(settings["out"])
    made = describe(plan, device, int(settings["devices"]))
    merged = manifest.write(folder, made)
    manifest.write_splits(folder, {t.task.name: t.data.subjects() for t in plan.tasks if t.data is not None})
    state = results.state(folder)
    jobs = missing_jobs(plan, state, settings["mode"], settings["since"])
    if files is not None:
        jobs = with_lost_files(plan, jobs, state, settings["since"], files)
    killed = set(killed_jobs(plan, jobs, state))
    writer = results.RowWriter(folder / "rows.rank0.jsonl")
    for job in killed:
        reason = "killed: the process died twice while it was at this case"
        writer.result(results.CaseResult(plan.key(job), "failed", reason))
    writer.close()
    jobs = [job for job in jobs if job not in killed]
    counts = Counter((plan.tasks[j.task].task.name, plan.methods[j.method].spec.name) for j in jobs)
    report(
        {
            "event": "plan",
            "manifest": made,
            "done": len(plan.jobs()) - len(jobs),
            "missing": [[task, method, n] for (task, method), n in counts.items()],
            "foreign": len(set(state.results) - set(manifest.expected_keys(merged))),
        }
    )
    return spread(jobs, int(settings["devices"]))


def describe(plan: Any, device: str, devices: int) -> dict[str, Any]:
    """The manifest of `plan`."""
    from reg_bench import manifest
    from reg_bench.discovery import members

    tasks = [
        {
            "name": t.task.name,
            "dataset": t.task.dataset,
            "dataset_checksum": t.checksum,
            "split": t.task.split,
            "cases": list(t.cases),
            "conditions": list(t.task.conditions),
            "licence": str(getattr(t.data, "licence", "")),
            "missing": t.missing,
        }
        for t in plan.tasks
    ]
    methods = [
        {
            "name": m.spec.name,
            "version": m.version,
            "licence": m.licence,
            "class_path": m.spec.class_path,
            "init_args": m.init_args,
            "config_hash": m.config_hash,
            "checkpoint": m.checkpoint,
            "software": {} if m.module is None else m.module.software(),
        }
        for m in plan.methods
    ]
    metrics = {m.name: {"better": m.accepts.get("better"), "summary": m.summary} for m in members("metrics")}
    return manifest.make(
        plan.suite.as_dict(),
        tasks=tasks,
        methods=methods,
        metrics=metrics,
        seed=plan.seed,
        device=device,
        devices=devices,
    )


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
