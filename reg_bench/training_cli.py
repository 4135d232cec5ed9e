"""Lightning's command line as `reg-bench fit` uses it: where results go, what stops a run, and how errors read."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError
from reg_bench.training_alarms import Alarms
from reg_bench.training_callbacks import SeededSteps, StopOnNaN
from reg_bench.training_panels import LOGGERS, SamplePanels, log_settings, make_loggers
from reg_bench.training_progress import TimeLeft

# Of work that is lost at most when a process dies.
CHECKPOINT_MINUTES = 5


class SavedConfig(SaveConfigCallback):
    """Writes the whole configuration of a training into `--out` and into each of its checkpoints, under `config`."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once by Lightning, on the first process."""
        if stage == "fit":
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / "config.yaml", skip_none=False, overwrite=True, multifile=False)
            log_settings(trainer.loggers, self._text)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self._text

    @functools.cached_property
    def _text(self) -> str:
        return str(self.parser.dump(self.config, skip_none=False))


class TrainingCLI(LightningCLI):
    """LightningCLI for any model and any data, by class path, with everything that it writes in one folder, `--out`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, help="folder of checkpoints, log and configuration")
        loggers = f"where metrics go: some of {', '.join(LOGGERS)}, joined by commas"
        parser.add_argument("--log", type=str, default="csv", help=loggers)

    def before_instantiate_classes(self) -> None:
        """Puts log and checkpoints below `--out`, unless the recipe has its own."""
        config = self.config[self.subcommand]
        out = Path(config.out or f"runs/{self.subcommand}")
        config.trainer.default_root_dir = str(out)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer; what the recipe leaves open is a log in CSV, the checkpoint `last`, and a line of progress."""
        asked = self.config_init[self.subcommand].trainer
        callbacks = list(asked.callbacks if isinstance(asked.callbacks, list) else filter(None, [asked.callbacks]))
        if asked.enable_checkpointing is not False:
            folder = Path(asked.default_root_dir) / "checkpoints"
            callbacks += _checkpoints(callbacks, folder, self.config_init[self.subcommand].get("data"))
        if asked.logger is None:
            names = [name.strip() for name in str(self.config[self.subcommand].log).split(",")]
            group, tags = _named_after(self.config[self.subcommand])
            kwargs["logger"] = make_loggers(names, Path(asked.default_root_dir), group, tags)
            callbacks += _watched(names, callbacks)
        if asked.enable_progress_bar is None:
            # Lightning's own bar knows the time left of an epoch only, and fills logs with its steps.
            kwargs["enable_progress_bar"] = False
            callbacks.append(TimeLeft())
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


def _watched(names: Sequence[str], callbacks: Sequence[Any]) -> list[Callback]:
    """What logs the rates, and sample registrations where a logger takes pictures, unless the recipe does."""
    found: list[Callback] = []
    if not any(isinstance(c, LearningRateMonitor) for c in callbacks):
        found.append(LearningRateMonitor(logging_interval="step"))
    if set(names) & {"wandb", "tensorboard"} and not any(isinstance(c, SamplePanels) for c in callbacks):
        found.append(SamplePanels())
    return found


def _named_after(config: Any) -> tuple[str, list[str]]:
    """The group of a training, by its data, and tags by its classes, as reports have them by suite and methods."""
    model, data = (config.get(part) or {} for part in ("model", "data"))
    network = (model.get("init_args") or {}).get("network") or {}
    named = {"model": model, "network": network if hasattr(network, "get") else {}, "data": data}
    classes = {what: str(part.get("class_path") or "").rpartition(".")[2] for what, part in named.items()}
    tags = ["training", *(f"{what}:{name}" for what, name in classes.items() if name)]
    return f"training {classes['data']}".strip(), tags


def _checkpoints(callbacks: Sequence[Any], folder: Path, data: Any) -> list[ModelCheckpoint]:
    """What saves `last`, unless the recipe does; those of the recipe that name no folder save there as well."""
    own = [c for c in callbacks if isinstance(c, ModelCheckpoint)]
    for checkpoint in own:
        checkpoint.dirpath = checkpoint.dirpath or str(folder)
    if any(c.filename == "last" or c.save_last for c in own):
        return []
    # After every epoch, whether it was validated or not: whatever ends a run, it can go on from there.
    last = [ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)]
    if isinstance(data, RegistrationDataModule):
        # Its loaders go on in the middle of an epoch.
        often = timedelta(minutes=CHECKPOINT_MINUTES)
        last.append(ModelCheckpoint(folder, "last", train_time_interval=often, enable_version_counter=False))
    return last


def run_training(command: str, words: Sequence[str]) -> None:
    """Runs one of Lightning's commands.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        words: the arguments after it, as of LightningCLI.

    Raises:
        ConfigError: arguments that do not fit.
        TrainingError: see `StopOnNaN`.
    """
    parser = {name: {"exit_on_error": False} for name in ("fit", "validate", "test", "predict")}
    arguments: ArgsType = [command, *words]
    with warnings.catch_warnings():
        # What a user of a recipe can do nothing about.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*intended to run from within Python.*")
        try:
            TrainingCLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SavedConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                trainer_defaults={"callbacks": [SeededSteps(), StopOnNaN(), Alarms()]},
                parser_kwargs={"exit_on_error": False, **parser},
                args=arguments,
            )
        except Exception as error:
            raise _readable(error) from error


def _readable(error: Exception) -> Exception:
    """What is said to the user as an error of ours; what fails inside a model or data as it is."""
    import argparse

    from jsonargparse import ArgumentError
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    if isinstance(error, ArgumentError | argparse.ArgumentError | MisconfigurationException):
        return ConfigError(" ".join(str(error).split()))
    return error
