"""The Kalman VAE: what a sequence costs beside its multiply-adds and beside Demons, and how long a frame takes.

    python benchmarks/speed/kalman_vae.py [--threads 2] [--frames 50] [--repeats 5]

In turn in one process, best of the repeats: the whole sequence at once (encoder, filter, decoder; no warping), the
same frame by frame, SimpleITK's Demons with 40 iterations on every frame as Paper III ran it, and products of square
matrices of 2048, whose rate is what the multiply-adds of the network are held against. Weights do not matter to the
time, so those of the paper's size are drawn. Images are smooth noise; Demons does not stop early.

Measured on 2 cores: the paper's size 0.29 s for 50 frames, 0.9 times its 17.7 G multiply-adds at the rate of matrix
products, and 6.6 times faster than Demons (1.92 s); the small one 0.08 s, 25 times. A step takes 7 and 3 ms (median).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import SimpleITK as sitk  # noqa: N813
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.kalman_vae import KalmanVAE
from lightning_modules.networks.kalman_vae_model import KalmanVAENetwork
from reg_bench.discovery import build_method
from reg_bench.field import gaussian
from reg_bench.types import RegistrationPair

MATRIX, SIZE = 2048, 112
NAMES = ("kalman-vae", "kalman-vae-small")
DEMONS = "demons-40"


def methods() -> dict[str, KalmanVAE]:
    found: dict[str, KalmanVAE] = {}
    for name in NAMES:
        torch.manual_seed(0)
        built: Any = build_method(name)
        found[name] = built.stream.eval()
    return found


def sequence(frames: int) -> Tensor:
    """`(1, T, 1, 112, 112)`, smooth noise that changes a little from frame to frame."""
    noise = torch.randn(frames + 20, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    still = gaussian(noise[:1], 2.0) * 4
    return (0.5 + 0.2 * still + 0.05 * gaussian(noise[20:], 1.0)).clamp(0, 1)[None]


@torch.inference_mode()
def whole(method: KalmanVAE, frames: Tensor) -> None:
    """All fields of the sequence, filtered."""
    state = method.start(frames[:, 0], seconds_per_frame=0.02)
    course = method.latent_course(frames)
    method.fields(state, course.mean["filtered"])


@torch.inference_mode()
def streamed(method: KalmanVAE, frames: Tensor) -> list[float]:
    """Seconds of every step."""
    state, seconds = method.start(frames[:, 0], seconds_per_frame=0.02), []
    for t in range(1, frames.shape[1]):
        begin = time.perf_counter()
        state, _ = method.step(state, frames[:, t], 0.02 * t)
        seconds.append(time.perf_counter() - begin)
    return seconds


def demons(method: Any, frames: Tensor) -> None:
    """The reference to every frame."""
    for t in range(1, frames.shape[1]):
        method(RegistrationPair((f"frame{t}",), fixed=frames[:, t], moving=frames[:, 0]))


def multiply_adds(network: KalmanVAENetwork, frames: Tensor) -> float:
    """Of all convolutions and products of matrices of encoder and decoder, in thousands of millions."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        mean, _ = network.encode(frames, frames[:, 0])
        network.decode(mean, network.prepared(frames[:, 0]))
    return counter.get_total_flops() / 2e9


def seconds_of(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(args.threads)
    frames, networks, baseline = sequence(args.frames), methods(), build_method(DEMONS)
    a = torch.rand(MATRIX, MATRIX)
    work: dict[str, Callable[[], object]] = {"matrices": lambda: a @ a, DEMONS: lambda: demons(baseline, frames)}
    for name, method in networks.items():
        work[name] = lambda method=method: whole(method, frames)
    times: dict[str, list[float]] = {name: [] for name in work}
    steps: dict[str, list[float]] = {name: [] for name in networks}
    for repeat in range(args.repeats + 1):
        for name, one in work.items():
            seconds = seconds_of(one)
            # The first round warms up.
            if repeat:
                times[name].append(seconds)
        for name, method in networks.items():
            found = streamed(method, frames)
            if repeat:
                steps[name] += found
    best = {name: min(values) for name, values in times.items()}
    rate = MATRIX**3 / best["matrices"] / 1e9
    print(f"{args.threads} threads, {args.frames} frames of {SIZE} x {SIZE}; best of {args.repeats}")
    print(f"matrix products: {rate:.1f} G multiply-adds per second; {DEMONS}: {best[DEMONS]:.2f} s")
    print(f"{'':20}{'s':>8}{'G':>8}{'ratio':>8}{'x Demons':>10}{'step ms':>9}{'95 %':>7}")
    for name, method in networks.items():
        products = multiply_adds(method.network, frames)
        median, late = statistics.median(steps[name]), statistics.quantiles(steps[name], n=20)[-1]
        ratio = best[name] * rate / products
        row = f"{best[name]:8.3f}{products:8.1f}{ratio:8.2f}{best[DEMONS] / best[name]:10.1f}"
        print(f"{name:20}{row}{1e3 * median:9.1f}{1e3 * late:7.1f}")
    print("ratio: to the multiply-adds at the rate of matrix products; x Demons: how many times faster")


if __name__ == "__main__":
    main()
