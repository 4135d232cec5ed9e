"""How fast cases come out of a dataset: first and later epochs, with and without cache, in one and in two processes.

Writes synthetic pairs (16-bit NIfTI with labels, compressed as they are distributed) into a temporary folder, then
reads them through `pairs` and a DataLoader. Every row is one process of its own. Loading keeps up with a method that
takes longer per pair than the figure in the table. Run as `python benchmarks/speed/loading.py`; a quick look is
`--pairs 4 --size 64 64 64`. The files are in the page cache of the system: a cold disk adds its own time to the first
epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

ROWS = (("none", 0), ("none", 2), ("memory", 0), ("disk", 0), ("disk", 2))


def write_pairs(folder: Path, count: int, size: tuple[int, ...]) -> Path:
    """The table of `count` pairs whose images have the noise of a scanner: it decides how well they compress."""
    import SimpleITK as sitk  # noqa: N813
    from scipy import ndimage

    rng = np.random.default_rng(0)
    coarse = ndimage.zoom(rng.standard_normal([max(2, n // 16) for n in size]), 16, order=1)
    anatomy = np.pad(coarse, [(0, max(0, n - m)) for n, m in zip(size, coarse.shape, strict=True)], mode="edge")
    anatomy = anatomy[tuple(slice(n) for n in size)]
    labels = np.digitize(anatomy, [-0.5, 0.0, 0.5, 1.0]).astype(np.uint8)
    lines = ["case_id,fixed,moving,fixed_labels,moving_labels,split"]
    for i in range(count):
        names = []
        for role in ("fixed", "moving"):
            image = (400 * anatomy + rng.normal(0, 20, size)).astype(np.int16)
            for kind, array in (("image", image), ("labels", np.roll(labels, i, axis=0))):
                name = f"{i:02d}_{role}_{kind}.nii.gz"
                sitk.WriteImage(sitk.GetImageFromArray(array.T), str(folder / name), useCompression=True)
                names.append(name)
        lines.append(f"pair{i:02d},{names[0]},{names[2]},{names[1]},{names[3]},train")
    table = folder / "pairs.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def epochs(table: str, cache: str, workers: int, cache_dir: str, count: int = 3) -> dict[str, float]:
    """Seconds of the first and of the fastest later epoch, and MB at the highest, of this process and its children."""
    import torch

    from datamodules.pairs import Pairs

    torch.set_num_threads(1)
    data = Pairs(table, percentile=99.5, num_workers=workers, cache=cache, cache_dir=cache_dir)  # type: ignore[arg-type]
    loader = data.train_dataloader()
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        for pair in loader:
            pair.fixed.sum()
        seconds.append(time.perf_counter() - begin)
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"first": seconds[0], "later": min(seconds[1:]), "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 160, 256))
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        table, cache, workers, cache_dir = arguments.row
        print(json.dumps(epochs(table, cache, int(workers), cache_dir)))
        return
    with tempfile.TemporaryDirectory() as name:
        table = write_pairs(Path(name), arguments.pairs, tuple(arguments.size))
        megabytes = sum(p.stat().st_size for p in Path(name).glob("*.nii.gz")) / 1e6
        shape = " x ".join(map(str, arguments.size))
        print(f"{arguments.pairs} pairs of {shape} with labels, {megabytes:.0f} MB on disk; seconds per pair")
        print(f"{'cache':8}{'workers':>8}{'first epoch':>13}{'later':>9}{'peak MB':>9}")
        for cache, workers in ROWS:
            cache_dir = Path(name) / f"cache-{workers}"
            row = [str(table), cache, str(workers), str(cache_dir)]
            command = [sys.executable, __file__, "--row", *row]
            result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if result.returncode != 0:
                raise SystemExit(result.stderr)
            made = json.loads(result.stdout.splitlines()[-1])
            first, later = made["first"] / arguments.pairs, made["later"] / arguments.pairs
            print(f"{cache:8}{workers:8d}{first:13.3f}{later:9.3f}{made['peak_mb']:9.0f}", flush=True)


if __name__ == "__main__":
    main()
