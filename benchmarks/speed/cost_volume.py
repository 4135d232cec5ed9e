"""Cost volumes beside a loop over shifted copies and `unfold`: CPU seconds, extra memory, and whether values agree.

Every row is one process of its own, so that the peak memory is that of the operation; one thread. Run as
`python benchmarks/speed/cost_volume.py`, or with `--only forward` for some rows.

What the time is spent on (64^3, 32 channels, 125 displacements: 1.05 G products): two thirds in `addcmul_` of one
channel of a block with all displacements at once. Its sums, 4 MB, stay in the last level of cache and are read and
written once per channel, which bounds it; blocks of half the size lose more to calls than they gain in cache. A quarter
is the copy out of the padded lines into fresh memory, the rest clears the sums and lays out the moving map. The loop of
shifts spends its time on the products, a tensor of the size of the map per displacement, and their page faults;
`unfold` on writing 125 copies of the map. The backward pass is two such passes, over displacements instead of channels:
a block of the upstream gradient is multiplied with all channels of either map. Autograd through the loop keeps 125
shifted maps.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.cost_volume import cost_volume, difference_volume
from reg_bench.processes import memory_mb

RADIUS = 2
Volume = Callable[[Tensor, Tensor], Tensor]


def shifts(fixed: Tensor, moving: Tensor, mode: str = "constant") -> list[tuple[Tensor, Tensor]]:
    """Both maps, once per displacement, the moving one shifted and outside its grid zero or repeated."""
    padded = F.pad(moving, (RADIUS,) * 2 * (fixed.ndim - 2), mode=mode)
    places = itertools.product(range(2 * RADIUS + 1), repeat=fixed.ndim - 2)
    windows = [tuple(slice(a, a + n) for a, n in zip(o, fixed.shape[2:], strict=True)) for o in places]
    return [(fixed, padded[(..., *window)]) for window in windows]


def loop_of_shifts(fixed: Tensor, moving: Tensor) -> Tensor:
    return torch.stack([(f * m).mean(1) for f, m in shifts(fixed, moving)], dim=1)


def loop_of_differences(fixed: Tensor, moving: Tensor) -> Tensor:
    return torch.stack([(f - m).square().mean(1) for f, m in shifts(fixed, moving, "replicate")], dim=1)


def by_unfold(fixed: Tensor, moving: Tensor) -> Tensor:
    windows = F.pad(moving, (RADIUS,) * 2 * (fixed.ndim - 2))
    for axis in range(2, fixed.ndim):
        windows = windows.unfold(axis, 2 * RADIUS + 1, 1)
    windows = windows.flatten(fixed.ndim).contiguous()
    return (fixed[..., None] * windows).mean(1).movedim(-1, 1)


# name: ours, peer, what the peer is, channels, size, whether the gradient is taken as well
ROWS: dict[str, tuple[Volume, Volume, str, int, tuple[int, ...], bool]] = {
    "forward": (cost_volume, loop_of_shifts, "loop of shifts", 32, (64, 64, 64), False),
    "backward": (cost_volume, loop_of_shifts, "loop of shifts, autograd", 32, (64, 64, 64), True),
    "unfold": (cost_volume, by_unfold, "unfold", 32, (32, 32, 32), False),
    "unfold-backward": (cost_volume, by_unfold, "unfold, autograd", 32, (32, 32, 32), True),
    "plane": (cost_volume, loop_of_shifts, "loop of shifts", 32, (256, 256), False),
    "plane-backward": (cost_volume, loop_of_shifts, "loop of shifts, autograd", 32, (256, 256), True),
    "difference": (
        lambda f, m: difference_volume(f, m, RADIUS),
        loop_of_differences,
        "loop of shifts",
        12,
        (64, 64, 64),
        False,
    ),
}


def inputs(channels: int, size: tuple[int, ...], gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps and the upstream gradient."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 1, channels, *size, generator=generator)
    count = (2 * RADIUS + 1) ** len(size)
    upstream = torch.randn(1, count, *size, generator=generator) if gradient else torch.empty(0)
    return maps[0].clone(), maps[1].clone(), upstream


def results(name: str, side: str) -> list[Tensor]:
    """The volume, or both gradients."""
    ours, peer, _, channels, size, gradient = ROWS[name]
    volume = ours if side == "ours" else peer
    fixed, moving, upstream = inputs(channels, size, gradient)
    if not gradient:
        return [volume(fixed, moving)]
    return list(torch.autograd.grad(volume(fixed.requires_grad_(), moving.requires_grad_()), (fixed, moving), upstream))


def measure(name: str, side: str, repeats: int) -> tuple[float, float]:
    """Median CPU seconds, and MB at the highest above what was resident with the inputs."""
    ours, peer, _, channels, size, gradient = ROWS[name]
    volume = ours if side == "ours" else peer
    fixed, moving, upstream = inputs(channels, size, gradient)
    volume(fixed[(..., *(slice(0, 8),) * len(size))], moving[(..., *(slice(0, 8),) * len(size))])
    before, seconds = memory_mb("VmRSS"), []
    for _ in range(repeats):
        start = time.process_time()
        if gradient:
            leaves = fixed.detach().requires_grad_(), moving.detach().requires_grad_()
            torch.autograd.grad(volume(*leaves), leaves, upstream)
        else:
            volume(fixed, moving)
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2], memory_mb("VmHWM") - before


def run_row(name: str, side: str, repeats: int) -> str:
    torch.set_num_threads(1)
    if side == "values":
        pairs = zip(results(name, "ours"), results(name, "peer"), strict=True)
        return f"{max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)}"
    seconds, extra = measure(name, side, repeats)
    return f"{seconds} {extra}"


def child(name: str, side: str, repeats: int) -> list[float]:
    command = [sys.executable, __file__, "--row", name, "--side", side, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise SystemExit(done.stderr or f"{name}, {side}: ended with status {done.returncode}")
    return [float(v) for v in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(run_row(arguments.row, arguments.side, arguments.repeats))
        return
    print(f"{'':32} {'ours':>17} {'peer':>17} {'ratio':>6}  largest difference relative to the largest value")
    for name in arguments.only:
        ours, peer = (child(name, side, arguments.repeats) for side in ("ours", "peer"))
        (difference,) = child(name, "values", 1)
        numbers = " ".join(f"{s:9.3f} s {m:5.0f} MB" for s, m in (ours, peer))
        _, _, about, channels, size, gradient = ROWS[name]
        title = f"{name}: {channels} channels, {'×'.join(map(str, size))}{', with gradients' if gradient else ''}"
        print(f"{title}\n{'':32} {numbers} {peer[0] / ours[0]:5.1f}x  {difference:.1e}  [{about}]", flush=True)


if __name__ == "__main__":
    main()
