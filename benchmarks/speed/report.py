"""How long `reg-bench report` takes on many rows, and how heavy its page is.

Targets: 10 s for 100,000 rows of about 20 values each; a page of 20 methods on 2,000 cases below 15 MB that a browser
opens from disk in 2 s. Writes synthetic rows into a temporary folder, then runs the command in a fresh process, imports
included. The page is opened in chromium where there is one, with a picture of 60 kB beside every row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def synthetic_row(method: int, case: int, rng: random.Random, labels: int = 4) -> dict[str, object]:
    """A result as the runner writes it: per-label Dice in both profiles and the usual case values."""
    subject, frame = divmod(case, 10)
    base = 0.6 + 0.03 * method + 0.05 * rng.gauss(0, 1)
    values: list[dict[str, object]] = []
    for profile in ("learn2reg", "strict"):
        per_label = [min(1.0, max(0.0, base + 0.02 * rng.gauss(0, 1))) for _ in range(labels)]
        lines = [("dice", str(i + 1), v, "1") for i, v in enumerate(per_label)]
        lines += [("dice", "all", sum(per_label) / labels, "1"), ("labels_counted", "all", float(labels), "1")]
        lines += [("hd95", "all", 4 * abs(1 - base), "mm"), ("sdlogj", "all", abs(rng.gauss(0.1, 0.02)), "1")]
        lines += [("tre_landmarks", "all", 10 * abs(1 - base), "mm")]
        lines += [("nonpositive_fraction", "all", max(0.0, rng.gauss(0, 1e-3)), "1")]
        values += [
            {"metric": m, "profile": profile, "label": k, "frame": frame, "horizon_s": None, "value": v, "unit": u}
            for m, k, v, u in lines
        ]
    name = "identity" if method == 0 else f"method-{method:02d}"
    key = {"suite": "speed", "suite_version": "1", "task": "synthetic", "dataset": "synthetic"}
    key |= {"dataset_checksum": "0" * 16, "method": name, "method_version": "1"}
    key |= {"config_hash": hashlib.sha256(name.encode()).hexdigest()[:16], "checkpoint": None, "seed": 0}
    key |= {"case": f"subject{subject:05d}/{frame:03d}", "condition": None}
    failed = rng.random() < 0.001
    outcome = {"status": "failed", "reason": "RuntimeError: diverged", "values": []} if failed else {}
    cost = {"wall_s": rng.random(), "cpu_s": rng.random(), "load_s": 0.01, "score_s": 0.1, "peak_mb": 100.0}
    rest = {"timing": "exclusive", "threads": 1, "device": "cpu", "panel": None, "time": f"2026-01-01T00:00:{case:08d}"}
    return {"event": "result", "key": key, "status": "ok", "reason": None, "values": values, **outcome, **cost, **rest}


def write_rows(folder: Path, rows: int, methods: int, labels: int = 4, pictures: bool = False) -> None:
    """`rows` results of `methods` methods over the same cases, and the `started` lines before them.

    With `pictures` a file of 60 kB stands beside each row.
    """
    rng = random.Random(0)
    with (folder / "rows.rank0.jsonl").open("w") as out:
        for index in range(rows):
            row = synthetic_row(index % methods, index // methods, rng, labels)
            if pictures:
                row["panel"] = _picture(folder, index)
            started = {"event": "started", "key": row["key"], "time": row["time"]}
            out.write(json.dumps(started, separators=(",", ":")) + "\n")
            out.write(json.dumps(row, separators=(",", ":")) + "\n")


def _picture(folder: Path, index: int) -> str:
    """One picture under many names, as noise that no format makes smaller."""
    first = folder / "panels" / f"{0:020x}.webp"
    if not first.is_file():
        import numpy as np
        from PIL import Image

        first.parent.mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (174, 1200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(first, "WEBP", quality=20)
    name = f"panels/{index:020x}.webp"
    if index:
        os.link(first, folder / name)
    return name


def page(folder: Path, labels: int) -> list[tuple[str, float, float]]:
    """What a page of 20 methods on 2,000 cases weighs and how long it takes to open: name, number, target."""
    write_rows(folder, 40_000, 20, labels, pictures=True)
    subprocess.run(
        [sys.executable, "-m", "reg_bench.cli", "report", str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    path = folder / "index.html"
    lines = [(f"page of {labels} labels [MB]", path.stat().st_size / 1e6, 15.0)]
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        print("no chromium with chromedriver: the page is not opened")
        return lines
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    for flag in (*flags.split(), "disable-component-update", f"user-data-dir={tempfile.mkdtemp(dir=folder)}"):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options=options, service=Service(driver)) as chrome:
        for what in ("first", "again"):
            chrome.get("about:blank")
            begin = time.perf_counter()
            chrome.get(path.as_uri())
            # Laid out and painted, the script has run.
            chrome.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            lines.append((f"opening it, {what} [s]", time.perf_counter() - begin, 2.0))
        begin = time.perf_counter()
        chrome.execute_script("location.hash = 'cases/0/3/strict/dice'")
        chrome.execute_async_script(
            "const f = () => document.querySelector('dialog[open] .case') ? arguments[0]() : setTimeout(f, 5); f()"
        )
        lines.append(("from a number to its cases [s]", time.perf_counter() - begin, 2.0))
    return lines


def main() -> int:
    """Generates, runs and prints; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--target-s", type=float, default=10.0, help="for wall and for CPU seconds")
    parser.add_argument("--labels", type=int, default=4, help="of the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, arguments.rows, arguments.methods)
        size = sum(p.stat().st_size for p in folder.glob("*.jsonl")) / 1e6
        code = "import sys; from reg_bench.report import build; build(sys.argv[1]); assert 'torch' not in sys.modules"
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, name], check=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{arguments.rows} rows, {arguments.methods} methods, {size:.0f} MB of JSON lines")
    print(f"{'':8}{'seconds':>10}{'target':>10}")
    for label, value in (("wall", wall), ("CPU", cpu)):
        print(f"{label:8}{value:10.2f}{arguments.target_s:10.2f}")
    print(f"peak memory {after.ru_maxrss / 1024:.0f} MB")
    with tempfile.TemporaryDirectory() as name:
        lines = page(Path(name), arguments.labels)
    for label, value, target in lines:
        print(f"{label:32}{value:8.2f}{target:8.1f}")
    return int(max(wall, cpu) > arguments.target_s or any(value > target for _, value, target in lines))


if __name__ == "__main__":
    sys.exit(main())
