"""What every training is watched by: reproducible draws, and numbers that are none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import IO, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from reg_bench.errors import TrainingError
from reg_bench.training_order import seed_step


class SeededSteps(Callback):
    """Seeds all random states before every step of a training from its seed, the process and the number of the step.

    What a step draws (dropout, samples of a distribution) is then the same after a restart, from whatever checkpoint.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        seed_step(seed, trainer.global_rank, trainer.fit_loop.total_batch_idx)


class StopOnNaN(Callback):
    """Ends a training whose loss or gradient is not a number, before it spoils the parameters; says whose and which."""

    def __init__(self) -> None:
        self._cases: tuple[str, ...] = ()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._cases = tuple(getattr(batch, "case_ids", ()))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if bool(torch.isfinite(loss.detach()).all()):
            return
        terms: Mapping[str, Tensor] = getattr(pl_module, "loss_terms", {})
        broken = [f"{name} {float(v.detach().mean())}" for name, v in terms.items() if not bool(v.isfinite().all())]
        which = f" (terms: {', '.join(broken)})" if broken else ""
        raise TrainingError(
            f"the loss is {float(loss.detach().mean())} {self._where(trainer)}{which}: look for values in the data "
            "that are not finite, or lower the rate; the last checkpoint is from before"
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            # Half precision expects gradients that overflow: such steps are skipped and the scale lowered.
            return
        given = [(n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None]
        if not given or bool(torch.isfinite(torch.nn.utils.get_total_norm([g for _, g in given]))):
            return
        broken = [name for name, gradient in given if not bool(gradient.isfinite().all())]
        raise TrainingError(
            f"the gradient of {', '.join(broken[:3]) or 'all parameters together'} is not finite "
            f"{self._where(trainer)}, though the loss is; the last checkpoint is from before"
        )

    def _where(self, trainer: Trainer) -> str:
        cases = f", case {', '.join(self._cases)}" if self._cases else ""
        return f"in step {trainer.global_step} (epoch {trainer.current_epoch}{cases})"


def say(trainer: Trainer, text: str, stream: IO[str] | None = None, start: str = "", end: str = "\n") -> None:
    """Prints to the standard error, or to `stream`, from the first process only."""
    if trainer.is_global_zero:
        print(start + text, file=stream or sys.stderr, end=end, flush=True)
