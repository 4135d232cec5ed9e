"""Trackers as one batch beside the same one by one, the latency of whole methods, and OpenCV's KCF and CSRT.

    python benchmarks/speed/tracking.py

A beating heart of 256 x 256 pixels with known motion, 150 points, ten channels. OpenCV needs `pip install
opencv-contrib-python-headless`, here or in another environment whose interpreter `REG_BENCH_OPENCV_PYTHON` names;
without it its rows are left out. Errors are distances from the true places of the points within 15 pixels of the
heart, in pixels, over all frames; OpenCV is given frames of 8 bit and boxes of whole pixels.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from reg_bench.discovery import build_module
from reg_bench.field import sample
from reg_bench.method import SequenceModule
from reg_bench.synthesis_heart import HeartConfig, heart_sequence
from reg_bench.tracking import (
    CorrelationFilterTracker,
    EcoTracker,
    Features,
    GradientFeatures,
    MaskDensity,
    PointTracker,
    mask_distance,
)
from reg_bench.types import ImageSequence

PIP = "pip install opencv-contrib-python-headless"
METHODS = ("dcf-nconv", "dcf-tps", "eco-nconv", "eco-tps")
NEAR = 15.0


class Shared(Features):
    """Feature maps that are computed once per image, so that trackers one by one do not pay for them again."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = GradientFeatures()
        self.groups = self.inner.groups
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor:
        if self.last is None or self.last[0] is not image:
            self.last = (image, self.inner(image))
        return self.last[1]


def true_places(sequence: ImageSequence, points: Tensor) -> Tensor:
    """Where `points (1, N, 2)` of the reference are in every frame, `(T, N, 2)`: `p + u(p) = p0` by iteration."""
    assert sequence.true_displacement is not None
    places = []
    for t in range(sequence.length):
        p = points
        for _ in range(60):
            p = points - sample(sequence.true_displacement[:, t], p)
        places.append(p[0])
    return torch.stack(places)


def report(name: str, seconds: list[float], positions: Tensor, truth: Tensor, near: Tensor) -> None:
    error = (positions - truth)[1:, near].norm(dim=-1)
    ms = 1000 * np.array(seconds)
    median, p95, p99 = np.median(ms), np.percentile(ms, 95), np.percentile(ms, 99)
    print(
        f"{name:22} median {median:8.1f} ms, p95 {p95:8.1f}, p99 {p99:8.1f}; "
        f"error mean {error.mean():.2f} px, median {error.median():.2f}, above 3 px {(error > 3).float().mean():.1%}",
        flush=True,
    )


def tracked(trackers: list[tuple[PointTracker, Tensor]], frames: Tensor) -> tuple[list[float], Tensor]:
    """Seconds per frame and positions `(T, N, 2)` of trackers that each follow their points."""
    states = [tracker.start(frames[:1], points) for tracker, points in trackers]
    positions, seconds = [torch.cat([points[0] for _, points in trackers])], []
    for frame in frames[1:].split(1):
        begin = time.perf_counter()
        found = []
        for k, (tracker, _) in enumerate(trackers):
            states[k], tracks = tracker.step(states[k], frame)
            found.append(tracks.positions[0])
        seconds.append(time.perf_counter() - begin)
        positions.append(torch.cat(found))
    return seconds, torch.stack(positions)


def streamed(method: SequenceModule, sequence: ImageSequence, points: Tensor) -> tuple[list[float], Tensor]:
    """Seconds per frame, dense interpolation included, and positions `(T, N, 2)` of a whole method."""
    step = sequence.seconds_per_frame
    state = method.start(sequence.frames[:, 0], seconds_per_frame=step, points=points)
    positions, seconds = [points[0]], []
    for t in range(1, sequence.length):
        begin = time.perf_counter()
        state, _ = method.step(state, sequence.frames[:, t], step * t)
        seconds.append(time.perf_counter() - begin)
        positions.append(state.positions[0])
    return seconds, torch.stack(positions)


def opencv(kind: str, frames: Tensor, points: Tensor) -> tuple[list[float], Tensor] | str:
    """The same of OpenCV's trackers, or why there is nothing."""
    python = os.environ.get("REG_BENCH_OPENCV_PYTHON", sys.executable)
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "input.npz", Path(folder) / "output.npz"
        grey = (frames[:, 0] * 255 / 1.2).clamp(0, 255).round().byte().numpy()
        np.savez(source, frames=grey, points=points[0].numpy())
        script = Path(__file__).with_name("opencv_trackers.py")
        done = subprocess.run([python, str(script), kind, str(source), str(target)], capture_output=True, text=True)
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        found = np.load(target)
        return found["seconds"].tolist(), torch.from_numpy(found["positions"]).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--seed", type=int, default=101, help="of the heart")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--frames", type=int, default=5, help="that trackers follow one by one")
    parser.add_argument("--only", nargs="*", default=["batch", "methods", "opencv"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sequence = heart_sequence(HeartConfig(), seed=arguments.seed, case_id="heart")
    assert sequence.labels is not None
    mask, frames = sequence.labels[:, 0] > 0, sequence.frames[0]
    points = MaskDensity(arguments.points).select(frames[:1], mask)
    truth = true_places(sequence, points)
    near = sample(mask_distance(mask).float(), points)[0, :, 0] < NEAR
    print(f"{arguments.points} points, {arguments.threads} threads")
    with torch.inference_mode():
        if "batch" in arguments.only:
            for name, kind in (("dcf", CorrelationFilterTracker), ("eco", EcoTracker)):
                batched = tracked([(kind(augmentations=[]), points)], frames)
                shared = Shared()
                single = [(kind(features=shared, augmentations=[]), p) for p in points.split(1, dim=1)]
                # One by one takes so long that a few frames have to do.
                few = tracked(single, frames[: arguments.frames + 1])
                report(f"{name}, one batch", *batched, truth, near)
                report(f"{name}, one by one", *few, truth[: arguments.frames + 1], near)
                print(f"{name}: the batch takes {np.median(batched[0]) / np.median(few[0]):.2f} of the time")
        for name in METHODS if "methods" in arguments.only else ():
            method = build_module(name).eval()
            assert isinstance(method, SequenceModule)
            report(name, *streamed(method, sequence, points), truth, near)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:.0f} MB")
    for kind in ("KCF", "CSRT") if "opencv" in arguments.only else ():
        result = opencv(kind, frames, points)
        if isinstance(result, str):
            print(f"OpenCV {kind}: left out ({result}); {PIP}")
        else:
            report(f"OpenCV {kind}", *result, truth, near)


if __name__ == "__main__":
    main()
