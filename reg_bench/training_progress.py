"""How far a training is, and how long it still takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from reg_bench.progress import clock_text
from reg_bench.training_callbacks import say


class TimeLeft(Callback):
    """Tells how far a training is and when it ends: a line that changes on a terminal, one now and then elsewhere.

    Args:
        every_s: seconds between lines elsewhere.
    """

    def __init__(self, every_s: float = 30.0, stream: IO[str] | None = None) -> None:
        self.every_s = every_s
        self._stream = stream
        self._begun: tuple[float, int] | None = None
        self._last_line = 0.0
        self._loss = float("nan")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun, self._last_line = None, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        now, done = time.monotonic(), trainer.fit_loop.total_batch_idx + 1
        terminal = (self._stream or sys.stderr).isatty()
        if self._begun is None:
            # The first step warms up; what it takes says nothing of the others.
            self._begun = (now, done)
        elif now - self._last_line >= (0.5 if terminal else self.every_s):
            self._last_line = now
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            text = self._text(trainer, now, done, float(loss) if isinstance(loss, Tensor) else None)
            say(trainer, text, self._stream, "\r\x1b[2K" if terminal else "", "" if terminal else "\n")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.fit_loop.total_batch_idx < 0:
            return
        known = {k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        told = [f"{name} {value:.4g}" for name, value in known.items()]
        start = "\r\x1b[2K" if (self._stream or sys.stderr).isatty() else ""
        say(trainer, f"epoch {trainer.current_epoch + 1}: validation: {', '.join(told)}", self._stream, start)

    def _text(self, trainer: Trainer, now: float, done: int, loss: float | None) -> str:
        assert self._begun is not None
        total = _total_batches(trainer)
        rate = (now - self._begun[0]) / max(1, done - self._begun[1])
        left = clock_text(None if total is None else rate * max(0, total - done))
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        of = f"/{total}" if total is not None else ""
        told = "" if loss is None else f", loss {loss:.4g}"
        return f"epoch {trainer.current_epoch + 1}{epochs}, batch {done}{of}, {left} left{told}"


def _total_batches(trainer: Trainer) -> int | None:
    """How many batches the whole training has; `None` where nobody knows."""
    bounds = []
    if (trainer.max_steps or -1) > 0:
        bounds.append(trainer.max_steps * trainer.accumulate_grad_batches)
    if (trainer.max_epochs or -1) > 0 and trainer.num_training_batches != float("inf"):
        bounds.append(int(trainer.max_epochs or 0) * int(trainer.num_training_batches))
    return min(bounds, default=None)
