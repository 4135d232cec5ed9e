"""The registration pyramid: what a forward pass costs beside its multiply-adds, and what training holds in memory.

`python benchmarks/speed/pyramid.py count` prints the parameters per part and the multiply-adds; `forward` times the
networks beside products of matrices, in turn in one process, best of five; `memory` runs training steps, each in a
process of its own, and extrapolates.

The multiply-adds of a network are counted as the paper writes it, every layer for itself: an upsampling convolution
reads a map in which every voxel is repeated eight times. What is really done is less, because such a convolution is
computed on the coarse map (`lightning_modules/networks/pyramid_upsampling.py`), and is given beside it. The rate of the
machine is that of products of square matrices of 2048, the best of those between the passes.

Where the time goes (one thread, 64^3): nine tenths in the convolutions of oneDNN, which reach the rate of matrix
products where there are at least 64 output channels. Layers of 8 and 3 channels reach a fifth of it; they are computed
along with wider ones (`pyramid_estimator.py`). The rest is copies into one tensor, normalisation and the cost volume.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks.pyramid import RegistrationPyramid
from reg_bench.processes import memory_mb
from reg_bench.registration_loss import LevelAffine, LevelRegularity, LevelSimilarity, RegistrationLoss
from reg_bench.types import RegistrationPair

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("pyramid-paper", "pyramid-lean")
MATRIX = 2048
SIZES = (32, 48, 64)
EXTRAPOLATED = ((128, 128, 128), (192, 160, 192))


def network_of(recipe: str, **changes: Any) -> RegistrationPyramid:
    """The network of a recipe in `benchmarks/training`."""
    content = yaml.safe_load((ROOT / "benchmarks" / "training" / f"{recipe}.yaml").read_text())
    given = content["model"]["init_args"]["network"]
    torch.manual_seed(0)
    return RegistrationPyramid(**(given.get("init_args") or {}), **changes)


def pair_of(size: int) -> tuple[Tensor, Tensor]:
    fixed, moving = torch.rand(2, 1, 1, size, size, size, generator=torch.Generator().manual_seed(0))
    return fixed, moving


def written_multiply_adds(network: RegistrationPyramid, size: int) -> int:
    """Of all convolutions, as the paper writes them."""
    total = 0
    for k, stage in enumerate(network.features.stages, start=1):
        total += 2 * _kernels(stage) * (size >> k) ** 3
    for name, level in network.levels.items():
        voxels = (size >> int(name)) ** 3
        total += _kernels(level.estimator) * voxels
        total += 0 if level.context is None else _kernels(level.context) * voxels
        total += 0 if level.upsampling is None else _kernels(level.upsampling) * voxels * 8
    return total


def _kernels(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 5)


def done_multiply_adds(network: RegistrationPyramid, size: int) -> int:
    """Of all convolutions and products of matrices that one pass calls."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(*pair_of(size))
    return counter.get_total_flops() // 2


def count(size: int) -> None:
    for recipe in NETWORKS:
        network = network_of(recipe).eval()
        print(f"{recipe}")
        for name, part in network.parts().items():
            print(f"  {name:24}{sum(p.numel() for p in part.parameters()):>12,}")
        print(f"  {'parameters':24}{sum(p.numel() for p in network.parameters()):>12,}")
        written, done = written_multiply_adds(network, size) / 1e9, done_multiply_adds(network, size) / 1e9
        print(f"  multiply-adds at {size}^3: {written:.1f} G as written, {done:.1f} G done")


def forward(size: int, repeats: int) -> None:
    """Times every network in turn with products of matrices; CPU seconds beside, for a machine that is not idle."""
    networks = {recipe: network_of(recipe).eval() for recipe in NETWORKS}
    images, a = pair_of(size), torch.rand(MATRIX, MATRIX)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in (*networks, "matrices")}
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, network in networks.items():
                for what, work in (("matrices", lambda: a @ a), (name, lambda: network(*images))):  # noqa: B023
                    start, cpu = time.perf_counter(), time.process_time()
                    work()
                    # The first round warms up.
                    if repeat:
                        seconds[what].append((time.perf_counter() - start, time.process_time() - cpu))
    best = {name: tuple(min(column) for column in zip(*rows, strict=True)) for name, rows in seconds.items()}
    rates = [MATRIX**3 / value / 1e9 for value in best["matrices"]]
    print(f"{torch.get_num_threads()} threads; matrix products: {rates[0]:.1f} G multiply-adds per second, best")
    print("ratio: to the multiply-adds as written, at that rate")
    print(f"{'':16}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'G as written':>14}{'G done':>8}")
    for name, network in networks.items():
        written, done = written_multiply_adds(network, size) / 1e9, done_multiply_adds(network, size) / 1e9
        times = "".join(f"{t:8.2f}{t * rate / written:7.2f}" for t, rate in zip(best[name], rates, strict=True))
        print(f"{name:16}{times}{written:14.1f}{done:8.1f}")
    ratio = written_multiply_adds(networks["pyramid-paper"], size) / done_multiply_adds(networks["pyramid-lean"], size)
    print(f"pyramid-lean takes 1/{ratio:.0f} of the multiply-adds of pyramid-paper")


def training_step(recipe: str, size: int, checkpointing: bool) -> str:
    """MB at the highest above what was resident before the step, MB that the graph holds after forward, and seconds."""
    network = network_of(recipe, checkpointing=checkpointing)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    loss = RegistrationLoss(
        {"ncc": LevelSimilarity(weight=5.0), "affine": LevelAffine(), "gradient": LevelRegularity(weight=2 / 9)}
    )
    small = RegistrationPair(("small",), *pair_of(32))
    value, _ = loss(network(small.fixed, small.moving), small)
    value.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    pair = RegistrationPair(("pair",), *pair_of(size))
    before, start = memory_mb("VmRSS"), time.perf_counter()
    output = network(pair.fixed, pair.moving)
    held = memory_mb("VmRSS") - before
    value, _ = loss(output, pair)
    value.backward()
    optimizer.step()
    return f"{memory_mb('VmHWM') - before} {held} {time.perf_counter() - start}"


def child(*arguments: object) -> list[float]:
    command = [sys.executable, __file__, "step", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr or f"{command}: ended with status {done.returncode}")
    return [float(v) for v in done.stdout.split()]


def memory(sizes: Sequence[int], recipes: Sequence[str]) -> None:
    """Measured at `sizes`; beyond, in proportion to the voxels, as everything large is."""
    print(
        "training step, batch 1, float32: MB beyond what was there before (weights, gradients and Adam's moments are)"
    )
    print(f"{'':16}{'recomputing':>12}" + "".join(f"{f'{n}^3 peak':>11}{'held':>7}{'s':>6}" for n in sizes), end="")
    print("".join(f"{'x'.join(map(str, shape)) + ' (GB)':>19}" for shape in EXTRAPOLATED))
    for recipe in recipes:
        for checkpointing in (False, True):
            rows = [child(recipe, n, int(checkpointing)) for n in sizes]
            print(f"{recipe:16}{'yes' if checkpointing else 'no':>12}", end="")
            print("".join(f"{peak:11.0f}{held:7.0f}{seconds:6.1f}" for peak, held, seconds in rows), end="")
            largest = rows[-1][0] / sizes[-1] ** 3 / 1024
            print("".join(f"{largest * a * b * c:19.1f}" for a, b, c in EXTRAPOLATED), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("count", "forward"):
        command = commands.add_parser(name)
        command.add_argument("--size", type=int, default=64)
        if name == "forward":
            command.add_argument("--repeats", type=int, default=5)
    command = commands.add_parser("memory")
    command.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    command.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    command = commands.add_parser("step")
    command.add_argument("network")
    command.add_argument("size", type=int)
    command.add_argument("checkpointing", type=int)
    given = parser.parse_args()
    if given.command == "count":
        count(given.size)
    elif given.command == "forward":
        forward(given.size, given.repeats)
    elif given.command == "memory":
        memory(given.sizes, given.networks)
    else:
        print(training_step(given.network, given.size, bool(given.checkpointing)))


if __name__ == "__main__":
    main()
