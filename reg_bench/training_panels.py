"""Where a training tells of itself: metrics as CSV and, if asked for, W&B or TensorBoard; pictures of sample cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from reg_bench.errors import ConfigError, RegBenchError
from reg_bench.types import DisplacementField, RegistrationPair

LOGGERS = ("csv", "wandb", "tensorboard")
#: W&B takes tags of at most so many letters.
TAG_LENGTH = 64


def make_loggers(names: Sequence[str], folder: Path, group: str = "", tags: Sequence[str] = ()) -> list[Logger]:
    """The loggers of those names, which write below `folder`. W&B is offline unless WANDB_MODE says otherwise.

    Args:
        names: some of `LOGGERS`.
        folder: of the training.
        group: by which W&B puts runs together, unless WANDB_RUN_GROUP is set.
        tags: of the run in W&B, beside those of WANDB_TAGS.

    Raises:
        ConfigError: an unknown name.
        RegBenchError: a package that is not installed; names it.
    """
    return [_make_logger(name, folder, group, tags) for name in dict.fromkeys(names)]


def _make_logger(name: str, folder: Path, group: str, tags: Sequence[str]) -> Logger:
    if name == "csv":
        return CSVLogger(folder, name="log")
    if name not in LOGGERS:
        raise ConfigError(f"--log: unknown logger {name!r}: expected some of {', '.join(LOGGERS)}")
    try:
        if name == "tensorboard":
            return TensorBoardLogger(folder, name="tensorboard")
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        more = [t.strip() for t in os.environ.get("WANDB_TAGS", "").split(",") if t.strip()]
        return WandbLogger(
            name=folder.name,
            save_dir=folder,
            project=os.environ.get("WANDB_PROJECT", "reg-bench"),
            offline=mode == "offline",
            # Lightning says it through the environment alone, which W&B reads once in a process.
            mode=mode,
            group=os.environ.get("WANDB_RUN_GROUP") or group or None,
            tags=[t[:TAG_LENGTH] for t in dict.fromkeys([*tags, *more])],
            job_type="training",
        )
    except ModuleNotFoundError as error:
        raise RegBenchError(f"--log {name}: {name} is not installed: pip install {name}") from error


class SamplePanels(Callback):
    """Draws the first cases of the validation every few epochs: fixed, moving, warped, differences, grid, Jacobian.

    Pictures lie in `panels/` below the folder of the training as `<case>-epoch<number>.webp`, and go to W&B and
    TensorBoard where these listen.

    Args:
        every_n_epochs: how often.
        cases: how many.
    """

    def __init__(self, every_n_epochs: int = 5, cases: int = 2) -> None:
        if every_n_epochs < 1 or cases < 1:
            raise ValueError(f"SamplePanels: expected numbers of at least 1, got {every_n_epochs} and {cases}")
        self.every_n_epochs, self.cases = every_n_epochs, cases
        self._drawn = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or trainer.state.fn != TrainerFn.FITTING
        self._drawn = 0 if due and not trainer.sanity_checking and trainer.is_global_zero else self.cases

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if not isinstance(outputs, DisplacementField) or not isinstance(batch, RegistrationPair):
            return
        for index in range(batch.batch_size):
            if self._drawn >= self.cases:
                return
            self._drawn += 1
            field = DisplacementField.for_pair(outputs.u[index : index + 1], batch[index])
            self._draw(trainer, batch[index].to("cpu"), field.to("cpu"))

    @staticmethod
    def _draw(trainer: Trainer, pair: RegistrationPair, field: DisplacementField) -> None:
        from reg_bench.panels import draw_panel

        case = pair.case_ids[0].replace("/", "_")
        path = Path(trainer.default_root_dir) / "panels" / f"{case}-epoch{trainer.current_epoch:04d}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_panel(pair, field, path)
        for logger in trainer.loggers:
            show_picture(logger, f"panels/{case}", path, trainer.global_step)


def log_settings(loggers: Sequence[Logger], settings: str) -> None:
    """Gives the configuration of a training, as YAML, to W&B, where runs are chosen and compared by it."""
    import yaml

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams(yaml.safe_load(settings))


def show_picture(logger: Logger, name: str, path: Path, step: int) -> None:
    """Gives a picture to a logger that takes pictures."""
    import numpy as np
    from PIL import Image

    if isinstance(logger, WandbLogger):
        with Image.open(path) as picture:
            logger.log_image(name, [picture.convert("RGB")])
    elif isinstance(logger, TensorBoardLogger):
        with Image.open(path) as picture:
            logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
