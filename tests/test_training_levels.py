"""Level by level: what is trained when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_modules.learned import AdamSettings, LearnedRegistration
from lightning_modules.networks.pyramid import RegistrationPyramid
from reg_bench.errors import ConfigError
from reg_bench.registration_loss import LevelSimilarity, RegistrationLoss
from reg_bench.similarity import SSD
from reg_bench.training_levels import LevelByLevel
from reg_bench.types import RegistrationPair, collate_pairs


class Watch(Callback):
    """Which levels changed in every epoch."""

    def __init__(self) -> None:
        self.changed: list[list[str]] = []
        self.before: dict[str, torch.Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = {name: p.detach().clone() for name, p in pl_module.network.levels.named_parameters()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        after = dict(pl_module.network.levels.named_parameters())
        self.changed.append(sorted({n.split(".")[0] for n, p in after.items() if not torch.equal(p, self.before[n])}))


def trained(network: Any, callbacks: list[Callback], epochs: int) -> None:
    fixed, moving = torch.rand(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs = [RegistrationPair(("case",), fixed, moving)]
    loss = RegistrationLoss({"ssd": LevelSimilarity(SSD())})
    module = LearnedRegistration(network, loss, AdamSettings(rate=0.01), percentiles=None)
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, **options)
    trainer.fit(module, DataLoader(pairs, batch_size=1, collate_fn=collate_pairs))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_levels_are_added_from_the_coarsest() -> None:
    network = RegistrationPyramid(2, filters=(2, 2), blocks=1, growth=(2,), carried=2, radius=1, context=None)
    watch = Watch()
    trained(network, [LevelByLevel(2), watch], 6)
    assert watch.changed == [["2"], ["2"], ["1", "2"], ["1", "2"], ["0", "1", "2"], ["0", "1", "2"]]


@pytest.mark.filterwarnings("ignore")
def test_network_without_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="Identity has no levels"):
        trained(torch.nn.Identity(), [LevelByLevel(1)], 1)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        LevelByLevel(0)
