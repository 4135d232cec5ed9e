"""Similarities beside MONAI's, or beside their formula in plain torch where MONAI has none.

CPU seconds, extra memory, and whether energies and gradients agree. Every row is one process of its own, so that the
peak memory is that of the operation; one thread. Ours is bound to the fixed image before, as a registration does;
rows called `loss` bind anew each time, as training does. Run as `python benchmarks/speed/similarity.py`, or with
`--only lncc-128-gradient` for some rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from fields import measure
from torch import Tensor
from torch.nn import functional as F

from reg_bench.similarity import LNCC, MIND, NGF, MutualInformation, Similarity, mind_descriptor

Loss = Callable[[Tensor, Tensor], Tensor]
SHAPES = {"256": (256, 256), "64": (64,) * 3, "128": (128,) * 3}


def lncc() -> tuple[Similarity, Loss]:
    """MONAI LocalNormalizedCrossCorrelationLoss, window 9."""
    from monai.losses import LocalNormalizedCrossCorrelationLoss

    return LNCC(9, border="zeros"), lambda f, w: 1 + LocalNormalizedCrossCorrelationLoss(f.ndim - 2, 9)(w, f)


def mutual_information() -> tuple[Similarity, Loss]:
    """MONAI GlobalMutualInformationLoss, Gaussian window, 32 bins."""
    from monai.losses import GlobalMutualInformationLoss

    ours = MutualInformation(32, window="gaussian", intensity_range=(0, 1))
    return ours, lambda f, w: GlobalMutualInformationLoss("gaussian", 32)(w, f)


def ngf() -> tuple[Similarity, Loss]:
    """the formula by torch.gradient and autograd."""

    def unit(image: Tensor) -> Tensor:
        gradient = torch.stack(torch.gradient(image[0, 0]))
        length = gradient.square().sum(dim=0).add(1e-20)
        return gradient / (length + length.sqrt().mean().square()).sqrt()

    return NGF(1.0), lambda f, w: (1 - (unit(f) * unit(w)).sum(dim=0).square()).mean()


def descriptors(image: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """Self-similarity descriptors by twelve shifts and a pooling each."""
    border = radius + dilation
    padded = F.pad(image, [border] * 6, mode="replicate")
    around = [padded.roll(sign * dilation, axis) for axis in (2, 3, 4) for sign in (1, -1)]
    pairs = [(p, q) for i, p in enumerate(around) for j, q in enumerate(around) if i // 2 < j // 2]
    distance = torch.cat([F.avg_pool3d((p - q) ** 2, 2 * radius + 1, stride=1) for p, q in pairs], dim=1)
    inside = slice(dilation, -dilation)
    distance = distance[:, :, inside, inside, inside]
    distance = distance - distance.amin(dim=1, keepdim=True)
    variance = distance.mean(dim=1, keepdim=True)
    mean = variance.mean().item()
    return torch.exp(-distance / variance.clamp(mean * 1e-3, mean * 1e3))


def mind() -> tuple[Similarity, Loss]:
    """shifts, poolings and autograd."""
    return MIND(), lambda f, w: (descriptors(f) - descriptors(w)).square().mean()


KINDS = {"lncc": lncc, "mi": mutual_information, "ngf": ngf, "mind": mind}
ROWS = [f"{kind}-{size}-{work}" for kind in KINDS for size in SHAPES for work in ("energy", "gradient")]
ROWS = [row for row in ROWS if not row.startswith("mind-256")]
ROWS += ["lncc-64-loss", "lncc-128-loss", "descriptor-64-energy", "descriptor-128-energy"]


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two smooth images with noise in [0, 1] that have much in common."""
    torch.manual_seed(0)
    pool = F.avg_pool2d if len(shape) == 2 else F.avg_pool3d
    fixed, warped = (pool(torch.rand(1, 1, *shape), 5, 1, padding=2) for _ in range(2))
    fixed, warped = (0.5 + (image - image.mean()) / (8 * image.std()) for image in (fixed, (fixed + warped) / 2))
    return fixed.clamp(0, 1), warped.clamp(0, 1)


def differentiated(loss: Loss, fixed: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
    leaf = warped.clone().requires_grad_()
    energy = loss(fixed, leaf)
    return energy.detach(), torch.autograd.grad(energy.sum(), leaf)[0]


def task(name: str) -> tuple[Callable[[], tuple[Tensor, ...]], Callable[[], tuple[Tensor, ...]]]:
    """Ours and the peer, each giving the energy and where asked for the gradient."""
    kind, size, work = name.split("-")
    fixed, warped = images(SHAPES[size])
    if kind == "descriptor":
        return lambda: (mind_descriptor(fixed).mean(),), lambda: (descriptors(fixed).mean(),)
    similarity, peer = KINDS[kind]()
    if work == "loss":
        return lambda: differentiated(similarity, fixed, warped), lambda: differentiated(peer, fixed, warped)
    bound = similarity.bind(fixed)
    if work == "energy":
        return lambda: (bound(warped),), lambda: (peer(fixed, warped),)
    return lambda: bound.value_and_gradient(warped), lambda: differentiated(peer, fixed, warped)


def about(name: str) -> str:
    return (KINDS.get(name.split("-")[0], descriptors).__doc__ or "").strip().rstrip(".")


def run_row(name: str, side: str, repeats: int, results: Path) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    ours, peer = task(name)
    work = ours if side == "ours" else peer
    seconds, extra = measure(work, repeats)
    torch.save((seconds, extra, *work()), results)


def child(name: str, side: str, repeats: int) -> list[Any]:
    """CPU seconds, MB, energy and gradient of one side, measured in a process of its own."""
    with TemporaryDirectory() as folder:
        results = Path(folder) / "results.pt"
        command = [sys.executable, __file__, "--row", name, "--side", side, "--repeats", str(repeats)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run([*command, "--results", str(results)], capture_output=True, text=True, env=environment)
        if result.returncode != 0:
            raise SystemExit(result.stderr)
        return list(torch.load(results))


def compare(ours: list[Tensor], peer: list[Tensor]) -> str:
    (energy, *gradients), (peer_energy, *peer_gradients) = ours, peer
    shown = [f"energy {energy.item():.4f}, {(energy - peer_energy).abs().item():.0e} apart"]
    for a, b in zip(gradients, peer_gradients, strict=True):
        shown.append(f"gradient {((a - b).norm() / b.norm()).item():.0e} apart")
    return ", ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=ROWS, choices=ROWS, help="rows to run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        run_row(arguments.row, arguments.side, arguments.repeats, arguments.results)
        return
    print(f"{'':24} {'ours':>19} {'peer':>19} {'ratio':>6}")
    for name in arguments.only:
        ours, peer = (child(name, side, arguments.repeats) for side in ("ours", "peer"))
        numbers = " ".join(f"{s * 1000:9.2f} ms {m:4.0f} MB" for s, m in (ours[:2], peer[:2]))
        print(
            f"{name:24} {numbers} {peer[0] / ours[0]:5.1f}x  {compare(ours[2:], peer[2:])}  [{about(name)}]", flush=True
        )


if __name__ == "__main__":
    main()
