"""The silent failures of networks that register: a zero field, nothing gained, folded space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from reg_bench.errors import TrainingError
from reg_bench.method import split_field
from reg_bench.score_sums import ScoreSums
from reg_bench.training_callbacks import say
from reg_bench.types import DisplacementField, RegistrationPair


class Alarms(Callback):
    """Tells of a network that fails silently: it moves nothing, gains nothing over doing nothing, or folds space.

    Looks at the fields of every validation. An alarm is told once when it begins, and logged as `alarm/<name>`.

    Args:
        folding_percent: share of folded voxels, in percent, above which it is told.
        still_voxels: largest displacement of all cases below which nothing is moved.
        validations: after how many of them a network must move something and gain over identity.
        stop: whether an alarm ends the training.
    """

    def __init__(
        self, folding_percent: float = 1.0, still_voxels: float = 0.01, validations: int = 3, stop: bool = False
    ) -> None:
        self.folding_percent, self.still_voxels = folding_percent, still_voxels
        self.validations, self.stop = validations, stop
        self._seen = 0
        self._longest = 0.0
        self._identity: dict[str, float] = {}
        self._sums = ScoreSums()
        self.told: dict[str, str] = {}
        """The alarms of the last validation, by name."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen, "identity": dict(self._identity)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seen, self._identity = int(state_dict["seen"]), dict(state_dict["identity"])

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if trainer.sanity_checking or not isinstance(outputs, DisplacementField):
            return
        self._longest = max(self._longest, float(torch.linalg.vector_norm(outputs.u, dim=1).max()))
        if not self._identity and isinstance(batch, RegistrationPair):
            self._score_identity(batch, outputs)

    def _score_identity(self, batch: RegistrationPair, field: DisplacementField) -> None:
        from reg_bench.metrics import score

        for element, single in zip(batch.split(), split_field(field), strict=True):
            still = DisplacementField(torch.zeros_like(single.u), single.spacing_mm, single.affine)
            for value in score(element, still, profiles=("strict",), metrics=("dice", "tre", "ncc")):
                if value.label == "all" and value.value is not None:
                    self._sums.add(value.metric, value.value)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        longest = ScoreSums()
        longest.add("longest", self._longest)
        # A mean of zeros is zero, and no process may leave the others waiting.
        moved = longest.means()["longest"]
        identity = self._sums.means()
        self._longest, self._sums = 0.0, ScoreSums()
        if trainer.sanity_checking:
            return
        self._identity = self._identity or identity
        if not self._identity:
            return
        self._seen += 1
        found = dict(self._alarms({k: float(v) for k, v in trainer.callback_metrics.items()}, moved))
        new = {name: text for name, text in found.items() if name not in self.told}
        self.told = found
        for text in new.values():
            say(trainer, f"alarm: {text}")
        for logger in trainer.loggers if found else ():
            logger.log_metrics({f"alarm/{name}": 1.0 for name in found}, step=trainer.global_step)
        if self.stop and found:
            raise TrainingError("; ".join(found.values()))

    def _alarms(self, metrics: Mapping[str, float], moved: float) -> list[tuple[str, str]]:
        found = []
        folded = 100 * metrics.get("val/nonpositive_fraction", 0.0)
        if folded > self.folding_percent:
            text = f"folding: {folded:.2g} % of the voxels are folded, more than {self.folding_percent:g} %"
            found.append(("folding", f"{text}; weigh the regularity more, or estimate a velocity"))
        if self._seen < self.validations:
            return found
        if moved < self.still_voxels:
            text = f"zero field: nothing moves by more than {moved:.2g} voxels after {self._seen} validations"
            found.append(("zero_field", f"{text}; raise the rate, or weigh the regularity less"))
        # Images in different contrast need not correlate: labels and points are asked before intensities.
        known = {name: value for name, value in self._identity.items() if name != "ncc"} or self._identity
        gained = [
            _gain(name, metrics[f"val/{name}"], value) for name, value in known.items() if f"val/{name}" in metrics
        ]
        if gained and all(gain <= 0 for gain, _ in gained):
            text = f"no gain over doing nothing after {self._seen} validations: {', '.join(t for _, t in gained)}"
            found.append(("no_gain", text))
        return found


def _gain(name: str, value: float, identity: float) -> tuple[float, str]:
    """By how much a metric is better than without registration, and both in words."""
    gain = identity - value if name.startswith("tre") else value - identity
    # Lightning keeps metrics in float32.
    return gain - 1e-6 * abs(identity), f"{name} {value:.4g}, {identity:.4g} before"
