"""A run folder with everything that a report can show: labels, failures, skips, pictures, several profiles."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from tests.report_rows import row, value, write

METHODS = {"identity": 0.55, "demons": 0.74, "bspline": 0.70, "affine+demons": 0.78, "weird <name>": 0.60}


def rows(cases: int = 12, tasks: tuple[str, ...] = ("one", "two"), labels: int = 3) -> list[dict[str, Any]]:
    """Results of five methods; `bspline` fails on its third case, `peer` is skipped."""
    rng = random.Random(3)
    made = []
    for task in tasks:
        hard = [0.04 * rng.gauss(0, 1) for _ in range(cases)]
        for method, base in METHODS.items():
            for i in range(cases):
                case = f"p{i:02d}/f{i % 2}"
                panel = f"panels/{method[:3]}{i}.webp" if task == "one" else None
                changes: dict[str, Any] = {"task": task, "panel": panel, "wall_s": 0.5 + base + 0.1 * rng.random()}
                if method == "bspline" and i == 2:
                    made.append(row(method, case, task=task, status="failed", reason="RuntimeError: <b>diverged</b>"))
                    continue
                dice = [min(0.99, base + hard[i] + 0.03 * rng.gauss(0, 1)) for _ in range(labels)]
                values = [value("dice", d, label=str(k + 1), profile=p) for p in PROFILES for k, d in enumerate(dice)]
                for profile in PROFILES:
                    values.append(value("dice", sum(dice) / labels, profile=profile))
                    values.append(value("hd95", 9 * (1 - dice[0]), profile=profile, unit="mm"))
                    values.append(value("labels_counted", float(labels), profile=profile))
                    values.append(value("sdlogj", 0.0 if method == "identity" else base / 4, profile=profile))
                made.append(row(method, case, values, **changes))
        for i in range(cases):
            reason = "pip install 'x[peer]'"
            made.append(row("peer", f"p{i:02d}/f{i % 2}", task=task, status="skipped", reason=reason))
    return made


PROFILES = ("strict", "learn2reg")


def run_folder(folder: Path, **options: Any) -> Path:
    """Rows, manifest and pictures in `folder`."""
    folder.mkdir(exist_ok=True)
    made = rows(**options)
    write(folder, made)
    (folder / "panels").mkdir(exist_ok=True)
    for name in {r["panel"] for r in made if r["panel"]}:
        Image.new("RGB", (70, 20), (40, 90, 90)).save(folder / name, "WEBP")
    suite = {"name": "s", "version": "1", "summary": "Words about <it>.", "published": ["paper-2-learn2reg-2020"]}
    suite["tasks"] = [{"name": t, "dataset": "d", "primary": "dice"} for t in ("one", "two")]
    suite["methods"] = [{"name": m, "class_path": "a.B", "init_args": {}} for m in METHODS]
    manifest = {"suite": suite, "suite_name": "s", "suite_version": "1", "threads": 1, "device": "cpu"}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"versions": {"torch": "2.0"}, "seed": 0}))
    return folder
