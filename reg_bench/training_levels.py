"""Training level by level, from the coarsest."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from reg_bench.errors import ConfigError


class LevelByLevel(Callback):
    """Begins with the coarsest level of a network and adds the next finer one every few epochs.

    The network has `levels` and `active_levels`, as the registration pyramid has; levels that are not active yet are
    neither computed nor trained, and the field is interpolated from the finest one that is. On several devices give
    `--trainer.strategy ddp_find_unused_parameters_true`.

    Args:
        epochs: before each further level.
    """

    def __init__(self, epochs: int) -> None:
        if epochs < 1:
            raise ValueError(f"LevelByLevel: epochs must be at least 1, got {epochs}")
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a network without levels before the data is read."""
        network: Any = getattr(pl_module, "network", None)
        if not hasattr(network, "active_levels"):
            raise ConfigError(f"LevelByLevel: {type(network).__name__} has no levels that could be added one by one")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The number of levels follows from the epoch alone: a training that goes on does so with the right one."""
        network: Any = pl_module.network
        network.active_levels = min(len(network.levels), 1 + trainer.current_epoch // self.epochs)
