"""A tiny recipe of a learned registration, for tests of whatever surrounds one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from reg_bench.field import warp
from reg_bench.registration_loss import LossTerm
from reg_bench.registration_network import NetworkOutput
from reg_bench.types import RegistrationPair

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "deterministic": True}
NETWORK = {
    "class_path": "lightning_modules.networks.voxelmorph.VoxelMorph",
    "init_args": {"dimension": 2, "channels": [4, 4], "final_channels": [4]},
}


class Squares(LossTerm):
    """Mean squared difference; with the true displacement's error where it is asked for."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor:
        return self.weight * (warp(pair.moving, output.u) - pair.fixed).square().mean()


class Spread(LossTerm):
    """Keeps the variance of a probabilistic network where it is."""

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        return None if output.log_variance is None else 1e-3 * output.log_variance.exp().mean()


class Broken(LossTerm):
    """Not a number for the case that it is told."""

    def __init__(self, case: str = "") -> None:
        super().__init__()
        self.case = case

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor:
        bad = any(self.case in case for case in pair.case_ids)
        return output.u.sum() * (torch.nan if bad else 0.0)


def content(
    trainer: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The recipe with changes to each of its parts."""
    own = {**NETWORK, "init_args": {**NETWORK["init_args"], **(network or {})}}  # type: ignore[dict-item]
    terms = {"squares": {"class_path": f"{__name__}.Squares"}, "spread": {"class_path": f"{__name__}.Spread"}}
    loss = {"class_path": "reg_bench.registration_loss.RegistrationLoss", "init_args": {"terms": terms}}
    settings = {"network": own, "loss": loss, "optimizer": {"rate": 0.01}, **(model or {})}
    shapes = {"size": [16, 16], "shapes": [2, 4], "landmarks": 5}
    cases = {"shapes": shapes, "cases": 2, "epoch_pairs": 4, "batch_size": 2, **(data or {})}
    return {
        "name": "tiny",
        "summary": "A tiny network on tiny shapes.",
        "trainer": {**QUIET, "max_epochs": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **(trainer or {})},
        "model": {"class_path": "learned", "init_args": settings},
        "data": {"class_path": "random-shapes", "init_args": cases},
    }


def recipe(folder: Path, **changes: Any) -> Path:
    """The recipe as a file; see `content`."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content(**changes)))
    return path
