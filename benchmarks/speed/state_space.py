"""Kalman filter and smoother beside filterpy, looped over the batch: CPU seconds, and whether the targets are met.

    python benchmarks/speed/state_space.py

32 states, 16 observations, 50 frames; filterpy is in the `dev` extra. It works in float64; ours in float32, as networks
do, and in float64 with `--dtype float64`. Both filter, smooth and end with means and covariances; ours with the
likelihood of every frame too. With `missing` the same 60 % of the frames are missing in all sequences; with `missing,
own` in every sequence its own, so that hardly anything can be shared. The last table shows from where on scans pay.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from reg_bench.state_space import LinearGaussianModel, kalman_filter, rts_smoother, sample_prior

STATES, OBSERVATIONS, FRAMES = 32, 16, 50
MISSING = 0.6


def random_model(dtype: torch.dtype, states: int = STATES, observations: int = OBSERVATIONS) -> LinearGaussianModel:
    """Stable, with spectral radius 0.95 and full covariances of the noises."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def positive(size: int) -> Tensor:
        root = normal(size, size)
        return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)

    A = normal(states, states)
    A = 0.95 * A / torch.linalg.eigvals(A).abs().max()
    C = normal(observations, states)
    parts = (A, C, 0.3 * positive(states), 0.2 * positive(observations), normal(states), positive(states))
    return LinearGaussianModel(*(x.to(dtype) for x in parts))


def pattern(kind: str, batch: int) -> Tensor | None:
    g = torch.Generator().manual_seed(1)
    if kind == "all observed":
        return None
    if kind == "missing":
        return (torch.rand(1, FRAMES, generator=g) >= MISSING).expand(batch, -1)
    return torch.rand(batch, FRAMES, generator=g) >= MISSING


def ours(model: LinearGaussianModel, y: Tensor, observed: Tensor | None, parallel: bool = False) -> tuple[Tensor, ...]:
    with torch.no_grad():
        filtered = kalman_filter(model, y, observed, parallel=parallel)
        smoothed = rts_smoother(model, filtered, parallel=parallel)
        return filtered.mean, filtered.covariance, smoothed.mean, smoothed.covariance


def theirs(model: LinearGaussianModel, y: Tensor, observed: Tensor | None) -> tuple[Tensor, ...]:
    """The same by filterpy's own loop over time, one sequence after the other."""
    from filterpy.kalman import KalmanFilter

    F, H, Q, R, mean, covariance = (getattr(model, f.name).double().numpy() for f in fields(model))
    results: list[list[np.ndarray]] = [[], [], [], []]
    for b, values in enumerate(y.double().numpy()):
        other = KalmanFilter(dim_x=model.states, dim_z=model.observations)
        other.F, other.H, other.Q, other.R = F, H, Q, R
        other.x, other.P = mean[:, None].copy(), covariance.copy()
        frames = [v[:, None] if observed is None or observed[b, t] else None for t, v in enumerate(values)]
        means, covariances, _, _ = other.batch_filter(frames, update_first=True)
        smooth, smooth_covariances, _, _ = other.rts_smoother(means, covariances)
        for column, value in zip(results, (means, covariances, smooth, smooth_covariances), strict=True):
            column.append(value)
    means, covariances, smooth, smooth_covariances = (torch.from_numpy(np.stack(r)) for r in results)
    return means[..., 0], covariances, smooth[..., 0], smooth_covariances


def forward_and_backward(model: LinearGaussianModel, y: Tensor) -> None:
    parts = [getattr(model, f.name).clone().requires_grad_() for f in fields(model)]
    current, values = LinearGaussianModel(*parts), y.clone().requires_grad_()
    filtered = kalman_filter(current, values)
    smoothed = rts_smoother(current, filtered)
    total = filtered.log_likelihood.sum() + smoothed.mean.square().sum() + smoothed.covariance.sum()
    torch.autograd.grad(total, [*parts, values])


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of several runs after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        seconds.append(time.process_time() - before)
    return float(np.median(seconds))


def compare(batch: int, kind: str, target: float | None, dtype: torch.dtype, repeats: int) -> bool:
    model = random_model(dtype)
    y, observed = sample_prior(model, batch, FRAMES)[1], pattern(kind, batch)
    mine = cpu_seconds(lambda: ours(model, y, observed), repeats)
    other = cpu_seconds(lambda: theirs(model, y, observed), max(repeats // 4, 1))
    pairs = zip(ours(model, y, observed), theirs(model, y, observed), strict=True)
    apart = max(float((a.double() - b).abs().max()) for a, b in pairs)
    met = target is None or other / mine >= target
    verdict = "" if target is None else f"  target {target:.0f}x: {'met' if met else 'MISSED'}"
    print(
        f"B {batch:3}, {kind:14} ours {mine * 1000:8.2f} ms   filterpy {other * 1000:8.2f} ms {other / mine:6.1f}x   "
        f"{apart:.0e} apart{verdict}",
        flush=True,
    )
    return met


def scans(dtype: torch.dtype, repeats: int) -> None:
    print("steps and scans, filter and smoother with nothing settled (60 % missing), B 4, ms CPU")
    for states in (2, 4, 8, 32):
        shown = []
        for length in (50, 200, 1000):
            model = random_model(dtype, states, max(states // 2, 1))
            y = sample_prior(model, 4, length)[1]
            observed = (torch.rand(1, length, generator=torch.Generator().manual_seed(1)) >= MISSING).expand(4, -1)
            steps, scan = (cpu_seconds(partial(ours, model, y, observed, p), repeats) for p in (False, True))
            shown.append(f"T {length}: {steps * 1000:7.1f} and {scan * 1000:7.1f}")
        print(f"{states:3} states   " + "   ".join(shown), flush=True)


def main() -> int:
    """Measures and prints; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--scans", action="store_true", help="the table of scans too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    print(
        f"{OBSERVATIONS} observations, {STATES} states, {FRAMES} frames, {arguments.dtype}, {arguments.threads} threads"
    )
    met = []
    for batch, target in ((4, 4.0), (64, 10.0)):
        met.append(compare(batch, "all observed", target, dtype, arguments.repeats))
        met.append(compare(batch, "missing", None, dtype, arguments.repeats))
        compare(batch, "missing, own", None, dtype, arguments.repeats)
    model = random_model(dtype)
    y = sample_prior(model, 4, FRAMES)[1]
    both = cpu_seconds(lambda: forward_and_backward(model, y), arguments.repeats)
    met.append(both < 0.15)
    verdict = "met" if met[-1] else "MISSED"
    print(f"B   4, forward and backward, every gradient: {both * 1000:.1f} ms   target 150 ms: {verdict}")
    if arguments.scans:
        scans(dtype, max(arguments.repeats // 4, 1))
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
