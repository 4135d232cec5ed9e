"""Normalised convolution with one confidence for all channels beside the plain way, and the network on a field.

    python benchmarks/speed/normalized_convolution.py

CPU milliseconds on one thread, least of the repetitions. The plain way expands the confidence to all channels and
convolves both; the results are compared. The network's rows show what rows that become channels are worth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench import narrow_convolution
from reg_bench.normalized_convolution import normalized_convolution
from reg_bench.sparse_to_dense import NormalizedConvolution


def plain(values: Tensor, confidence: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """As it is usually written."""
    pad = kernel.shape[2] // 2
    c = confidence.expand_as(values)
    reach = F.conv2d(c, kernel, padding=pad)
    return F.conv2d(values * c, kernel, padding=pad) / (reach + 1e-20), reach / kernel.sum(dim=(1, 2, 3))[:, None, None]


def milliseconds(*works: Callable[[], object], repetitions: int = 30) -> list[float]:
    """Of each, the least; they take turns, so that what else the machine does hits all of them."""
    least = [float("inf")] * len(works)
    for repetition in range(repetitions + 1):
        for k, work in enumerate(works):
            start = time.process_time()
            work()
            if repetition:
                least[k] = min(least[k], time.process_time() - start)
    return [1000 * seconds for seconds in least]


def layer(channels: int, size: int, length: int) -> None:
    """One row: a layer of `channels` to `channels`."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, channels, length, length, generator=generator)
    confidence = (torch.rand(1, 1, length, length, generator=generator) < 0.3).float()
    kernel = torch.rand(channels, channels, size, size, generator=generator)
    ours, theirs = (f(values, confidence, kernel) for f in (normalized_convolution, plain))
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    one, all_ = milliseconds(
        lambda: normalized_convolution(values, confidence, kernel), lambda: plain(values, confidence, kernel)
    )
    print(
        f"{channels} channels, kernel {size}, {length}^2: one confidence {one:.1f}, expanded {all_:.1f}: "
        f"{all_ / one:.2f} times; values differ by {apart:.0e}"
    )


def network(count: int = 150) -> None:
    """The network on a field of 256 x 256, with rows as channels and without, and with its trend."""
    generator = torch.Generator().manual_seed(0)
    points, values = torch.rand(1, count, 2, generator=generator) * 255, torch.randn(1, count, 2, generator=generator)
    rows = narrow_convolution._NARROW
    for name, trend, narrow in (
        ("alone", None, rows),
        ("alone, plain convolutions", None, 0),
        ("with trend", 40.0, rows),
    ):
        narrow_convolution._NARROW = narrow
        net = NormalizedConvolution(None, trend=trend)
        print(f"network {name}: {milliseconds(lambda net=net: net(points, values, None, (256, 256)))[0]:.1f}")


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    layer(16, 5, 256)
    layer(32, 7, 64)
    layer(32, 7, 256)
    network()


if __name__ == "__main__":
    main()
