"""The lean registration pyramid beside that of the paper after equally many steps on the same pairs of 32^3 voxels.

    python benchmarks/accuracy/pyramid_equal_steps.py [--steps 200] [--seed 0]

Random shapes, a fresh pair in every step, both images in one contrast; each network with the loss and the rate of its
own recipe, batches of one pair. Held-out pairs: Dice of labels warped by nearest neighbour, end-point error in voxels,
share of folded voxels. Times are CPU seconds of the training alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from reg_bench.field import jacobian_determinant, warp
from reg_bench.metrics.dice import dice
from reg_bench.registration_loss import RegistrationLoss
from reg_bench.registration_network import RegistrationNetwork
from reg_bench.synthesis_cases import case_seed
from reg_bench.synthesis_shapes import ShapesConfig, shapes_pair
from reg_bench.types import RegistrationPair

RECIPES = Path(__file__).resolve().parents[1] / "training"
SHAPES = ShapesConfig(size=(32, 32, 32), shapes=(4, 8), same_contrast=1.0)
HELD_OUT = 12


def pair_of(split: str, seed: int, index: int) -> RegistrationPair:
    return shapes_pair(SHAPES, case_seed(split, seed, index), case_id=f"{split} {index}")


def scores(pair: RegistrationPair, u: Tensor) -> tuple[float, float, float]:
    """Mean Dice, end-point error and share of folded voxels."""
    assert pair.fixed_labels is not None
    assert pair.true_displacement is not None
    warped = warp(pair.moving_labels, u, mode="nearest", padding="zeros")
    present = [int(label) for label in pair.fixed_labels.unique() if label]
    overlap = float(np.mean(list(dice(pair.fixed_labels, warped, present).values())))
    error = (u - pair.true_displacement).square().sum(1).sqrt()
    error = error[pair.mask[:, 0]] if pair.mask is not None else error
    return overlap, float(error.mean()), float((jacobian_determinant(u) <= 0).float().mean())


def shown(name: str, step: int, seconds: float, values: Sequence[tuple[float, float, float]]) -> None:
    overlap, error, folded = np.mean(values, axis=0)
    text = f"Dice {overlap:.3f}  end-point error {error:.3f}  folded {folded:.3%}"
    print(f"{name:14} step {step:5}  {seconds:6.0f} s  {text}", flush=True)


def built(name: str) -> tuple[RegistrationNetwork, RegistrationLoss, float]:
    """Network, loss and rate of a recipe."""
    settings: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["model"]["init_args"]
    parser: Any = ArgumentParser()
    parser.add_argument("--network", type=RegistrationNetwork)
    parser.add_argument("--loss", type=RegistrationLoss)
    torch.manual_seed(0)
    # Called `instantiate_classes` before jsonargparse 4.49.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    made = instantiate(parser.parse_object({key: settings[key] for key in ("network", "loss")}))
    return made.network, made.loss, float(settings["optimizer"]["rate"])


def train(name: str, steps: int, seed: int, held_out: Sequence[RegistrationPair]) -> None:
    network, loss, rate = built(name)
    optimizer, seconds = torch.optim.Adam(network.parameters(), rate), 0.0
    for step in range(1, steps + 1):
        pair = pair_of("train", seed, step)
        start = time.process_time()
        total, _ = loss(network(pair.fixed, pair.moving), pair)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seconds += time.process_time() - start
        if step % max(1, steps // 5) == 0:
            network.eval()
            with torch.no_grad():
                shown(name, step, seconds, [scores(p, network(p.fixed, p.moving).u) for p in held_out])
            network.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["pyramid-lean", "pyramid-paper"], help="recipes")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    held_out = [pair_of("val", given.seed, k) for k in range(HELD_OUT)]
    for name, field in (
        ("identity", lambda p: torch.zeros_like(p.true_displacement)),
        ("truth", lambda p: p.true_displacement),
    ):
        shown(name, 0, 0.0, [scores(p, field(p)) for p in held_out])
    for name in given.networks:
        train(name, given.steps, given.seed, held_out)


if __name__ == "__main__":
    main()
