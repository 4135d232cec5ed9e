"""What a run was made with: written beside the rows, so that tables can be derived from the two alone."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reg_bench.protocol import versions
from reg_bench.results import CaseKey

NAME = "manifest.json"
SPLITS_NAME = "splits.json"

# What must agree before methods of an earlier run into the same folder stay listed beside the present ones.
_SAME_RUN = ("suite_name", "suite_version", "seed", "protocol")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators of this machine."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    try:
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        found["memory_gb"] = None
    import torch

    if torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def git_revision() -> str | None:
    """Revision of the source tree that this package runs from, with `+` where files were changed since."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        revision = _git(here, "rev-parse", "HEAD")
        return revision + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def make(
    suite: Mapping[str, Any],
    *,
    tasks: Sequence[Mapping[str, Any]],
    methods: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    seed: int,
    device: str,
    devices: int,
) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        suite: as run, see `Suite.as_dict`.
        tasks: dicts of `name, dataset, dataset_checksum, split, cases, conditions`.
        methods: dicts of `name, version, class_path, init_args, config_hash, licence`.
        metrics: per metric name what its class says (`better`, …).
        seed: of the run.
        device: `cpu` or the name of the accelerator.
        devices: number of processes.
    """
    return {
        "format": 1,
        "suite_name": suite["name"],
        "suite_version": suite["version"],
        "suite": dict(suite),
        "protocol": suite["protocol"],
        "seed": seed,
        "threads": suite["protocol"]["threads"],
        "device": device,
        "devices": devices,
        "tasks": [dict(t) for t in tasks],
        "methods": [dict(m) for m in methods],
        "metrics": {k: dict(v) for k, v in metrics.items()},
        "versions": versions(),
        "git_revision": git_revision(),
        "hardware": hardware(),
    }


def write(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest at once or not at all; returns it as written.

    Methods and tasks of an earlier run of the same suite into the same folder, whose rows are still there, stay
    listed.
    """
    merged = dict(manifest)
    earlier = read(folder)
    if earlier and all(earlier.get(k) == manifest[k] for k in _SAME_RUN):
        present = {m["name"] for m in manifest["methods"]}
        merged["methods"] = [*manifest["methods"], *(m for m in earlier["methods"] if m["name"] not in present)]
        chosen = {t["name"] for t in manifest["tasks"]}
        joined = [_joined(t, earlier["tasks"]) for t in manifest["tasks"]]
        merged["tasks"] = [*joined, *(t for t in earlier["tasks"] if t["name"] not in chosen)]
    _write_whole(folder / NAME, merged)
    return merged


def write_splits(folder: Path, subjects: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Writes `splits.json`: who is in train, val and test of each task, so that a run can be traced to its people."""
    _write_whole(folder / SPLITS_NAME, subjects)


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file at once or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _joined(task: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`task` with the cases of an earlier run on the same data, which may have had another `--limit`."""
    for other in earlier:
        same = all(other.get(k) == task[k] for k in ("name", "dataset", "dataset_checksum", "split"))
        if same and len(other["cases"]) > len(task["cases"]):
            return {**task, "cases": other["cases"]}
    return dict(task)


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest in a run folder, or `None` where there is none that can be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == 1 else None


def expected_keys(manifest: Mapping[str, Any]) -> list[CaseKey]:
    """The keys of all results that the run of this manifest is to have; rows with other keys are not its own."""
    return [
        CaseKey(
            suite=manifest["suite_name"],
            suite_version=manifest["suite_version"],
            task=task["name"],
            dataset=task["dataset"],
            dataset_checksum=task["dataset_checksum"],
            method=method["name"],
            method_version=method["version"],
            config_hash=method["config_hash"],
            checkpoint=method.get("checkpoint"),
            seed=manifest["seed"],
            case=case,
            condition=condition,
        )
        for task in manifest["tasks"]
        for case in task["cases"]
        for condition in task.get("conditions") or [None]
        for method in manifest["methods"]
    ]
