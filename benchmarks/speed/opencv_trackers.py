"""OpenCV's KCF or CSRT, one tracker per point, timed frame by frame; run by `tracking.py`, needs NumPy and OpenCV only.

    python benchmarks/speed/opencv_trackers.py KCF input.npz output.npz

`input.npz` holds `frames (T, H, W)` in 0..255 as uint8 and `points (N, 2)`, row and column; `output.npz` gets
`positions (T, N, 2)` and `seconds (T - 1,)`. A tracker that reports failure keeps its place.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import cv2
import numpy as np

# Edge of the box around a point, as in Paper I.
BOX = 10


def box(point: Any) -> tuple[int, int, int, int]:
    """Column, row and edges of the box nearest to `point`; boxes of OpenCV are whole pixels."""
    row, column = (round(float(p) - (BOX - 1) / 2) for p in point)
    return column, row, BOX, BOX


def main() -> None:
    kind, source, target = sys.argv[1:]
    data = np.load(source)
    frames, points = np.repeat(data["frames"][..., None], 3, axis=3), data["points"]
    cv2.setNumThreads(1)
    trackers = []
    for point in points:
        tracker = getattr(cv2, f"Tracker{kind}_create")()
        tracker.init(frames[0], box(point))
        trackers.append(tracker)
    # Motion is counted from the rounded box, so that rounding the start costs nothing.
    starts = np.array([box(p)[1::-1] for p in points], dtype=float)
    positions, seconds = [points.astype(float)], []
    for frame in frames[1:]:
        begin = time.perf_counter()
        found = [tracker.update(frame) for tracker in trackers]
        seconds.append(time.perf_counter() - begin)
        moved = [np.array(b[1::-1], dtype=float) - s if ok else None for (ok, b), s in zip(found, starts, strict=True)]
        last = positions[-1]
        positions.append(np.stack([last[i] if m is None else points[i] + m for i, m in enumerate(moved)]))
    np.savez(target, positions=np.stack(positions), seconds=np.array(seconds))


if __name__ == "__main__":
    main()
