"""Whether the registration pyramid can learn one pair by heart, and what a step of it is worth.

    python benchmarks/accuracy/pyramid_overfit.py [--network pyramid-lean] [--seconds 240] [--unsupervised]
    python benchmarks/accuracy/pyramid_overfit.py --network pyramid-paper pyramid-lean --steps 60

The pair: three bodies with texture, on 32^3 voxels, under a smooth motion of up to 5 voxels that is known in closed
form. Trained on nothing else by equation 1 of the paper; Dice of labels warped by nearest neighbour, folding as the
share of voxels whose Jacobian determinant is not positive. With `--steps` all networks make as many steps, with
`--seconds` as many as they can. Times are wall seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from lightning_modules.networks.pyramid import RegistrationPyramid
from reg_bench.field import jacobian_determinant, warp
from reg_bench.metrics.dice import dice
from reg_bench.registration_loss import LabelDice, LevelAffine, LevelRegularity, LevelSimilarity, RegistrationLoss
from reg_bench.types import RegistrationPair

RECIPES = Path(__file__).resolve().parents[1] / "training"
SIZE = 32
# Centre and half axes of the bodies, as shares of the side.
BODIES = (
    ((0.35, 0.40, 0.50), (0.22, 0.16, 0.26)),
    ((0.66, 0.62, 0.45), (0.15, 0.20, 0.20)),
    ((0.55, 0.28, 0.72), (0.13,) * 3),
)


def motion(x: Tensor) -> Tensor:
    """The displacement `(3, *S)` in voxels at points `x (3, *S)`."""
    waves = 2 * torch.pi * x / SIZE
    shift = x.new_tensor([2.0, -1.5, 1.0]).reshape(3, 1, 1, 1)
    return shift + torch.stack((1.8 * waves[1].sin(), 1.5 * waves[2].cos(), 1.8 * waves[0].sin()))


def drawn(points: Tensor) -> tuple[Tensor, Tensor]:
    """The moving image and its labels `(1, 1, *S)`, functions of the place `(3, *S)` in voxels."""
    labels, image = torch.zeros(points.shape[1:], dtype=torch.long), torch.full(points.shape[1:], 0.1)
    for number, (centre, axes) in enumerate(BODIES, start=1):
        offset = (points / (SIZE - 1) - points.new_tensor(centre).reshape(3, 1, 1, 1)) / points.new_tensor(
            axes
        ).reshape(3, 1, 1, 1)
        radius = offset.square().sum(0).sqrt()
        labels[radius < 1] = number
        image += (0.25 + 0.2 * number) * torch.sigmoid((1 - radius) * 12)
    texture = 0.06 * torch.stack([(0.6 * (k + 1) * p).sin() for k, p in enumerate(points)]).sum(0)
    return (image + texture)[None, None], labels[None, None]


def pair() -> tuple[RegistrationPair, Tensor]:
    """The pair and its true displacement `(1, 3, *S)`."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float32)] * 3, indexing="ij"))
    u = motion(grid)
    fixed, fixed_labels = drawn(grid + u)
    moving, moving_labels = drawn(grid)
    return RegistrationPair(
        ("three bodies",), fixed, moving, fixed_labels=fixed_labels, moving_labels=moving_labels
    ), u[None]


def scores(pair: RegistrationPair, u: Tensor) -> tuple[float, float]:
    """Mean Dice and the share of folded voxels."""
    warped = warp(pair.moving_labels, u, mode="nearest", padding="zeros")
    each = dice(pair.fixed_labels, warped, range(1, len(BODIES) + 1))
    return float(np.mean(list(each.values()))), float((jacobian_determinant(u) <= 0).float().mean())


def equation_1(supervised: bool) -> RegistrationLoss:
    terms = {"ncc": LevelSimilarity(weight=5.0), "affine": LevelAffine(), "gradient": LevelRegularity(weight=2 / 9)}
    return RegistrationLoss({"dice": LabelDice(5.0), **terms} if supervised else terms)


def overfit(name: str, rate: float, seconds: float, steps: int, supervised: bool) -> None:
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["model"]["init_args"]
    torch.manual_seed(0)
    network, (case, _) = RegistrationPyramid(**content["network"].get("init_args", {})), pair()
    optimizer, loss = (
        torch.optim.Adam(network.parameters(), rate or content["optimizer"]["rate"]),
        equation_1(supervised),
    )
    start, step, told = time.perf_counter(), 0, 0.0
    while (step < steps) if steps else (time.perf_counter() - start < seconds):
        output = network(case.fixed, case.moving)
        total, _ = loss(output, case)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        step += 1
        used = time.perf_counter() - start
        if used > told or step == steps:
            mean, folded = scores(case, output.u.detach())
            about = f"loss {float(total.detach()):7.3f}  Dice {mean:.3f}  folded {folded:.3%}"
            print(f"{name}: step {step:5}, {used:5.0f} s: {about}", flush=True)
            told = used + seconds / (30 if steps else 8)
    with torch.no_grad():
        mean, folded = scores(case, network(case.fixed, case.moving).u)
        evaluated, _ = scores(case, network.eval()(case.fixed, case.moving).u)
    about = f"Dice {mean:.3f} (in evaluation: {evaluated:.3f}), folded {folded:.3%}"
    print(f"{name}: {step} steps, {time.perf_counter() - start:.0f} s: {about}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["pyramid-lean"], help="recipes in benchmarks/training")
    parser.add_argument("--rate", type=float, default=0.0, help="of Adam; by default that of the recipe")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of a time")
    parser.add_argument("--unsupervised", action="store_true", help="without the labels")
    given = parser.parse_args()
    case, truth = pair()
    for what, u in (("identity", torch.zeros_like(truth)), ("truth", truth)):
        print(f"{what}: Dice {scores(case, u)[0]:.3f}")
    for name in given.network:
        overfit(name, given.rate, given.seconds, given.steps, not given.unsupervised)


if __name__ == "__main__":
    main()
