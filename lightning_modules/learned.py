"""Registration by a network: from pairs to tensors and back, its loss, its optimizer, its validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from reg_bench.checkpoints import Weights, load_network, network_of, read_weights
from reg_bench.direct_convolution import DirectConvolutions
from reg_bench.errors import ConfigError
from reg_bench.frozen_parameters import freeze
from reg_bench.intensities import PERCENTILES, unit_range
from reg_bench.method import RegistrationModule, check_field
from reg_bench.registration_loss import RegistrationLoss
from reg_bench.registration_network import NetworkOutput, RegistrationNetwork
from reg_bench.types import DisplacementField, RegistrationPair

# What validation scores: the rest of the metrics takes longer than a small network itself.
VALIDATED = ("dice", "tre", "end_point_error", "nonpositive_fraction", "ncc")


@dataclass(frozen=True)
class AdamSettings:
    """Adam and the course of its rate.

    Attributes:
        rate: at the beginning.
        schedule: `constant`; `cosine`, down to 0 at the end of the training; `exponential`, by `decay` every epoch.
        decay: factor of the rate per epoch, of the schedule `exponential`.
        warm_up: steps over which the rate first rises in equal parts; not of `exponential`, which counts epochs.
        weight_decay: decoupled from the gradient (AdamW); 0 for Adam.
        l2: weight of the sum of squares of all convolution kernels, as part of the loss.
    """

    rate: float = 1e-4
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    decay: float = 0.99
    warm_up: int = 0
    weight_decay: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or not 0 < self.decay <= 1 or self.weight_decay < 0 or self.l2 < 0:
            raise ValueError(
                "AdamSettings: rate must be positive, decay in 0..1, weight_decay and l2 at least 0, got "
                f"{self.rate}, {self.decay}, {self.weight_decay} and {self.l2}"
            )
        if self.weight_decay and self.l2:
            raise ValueError("AdamSettings: weight_decay and l2 exclude each other")
        if self.warm_up < 0 or (self.warm_up and self.schedule == "exponential"):
            raise ValueError(f"AdamSettings: warm_up is a number of steps, of constant and cosine, got {self.warm_up}")

    def share(self, step: int, steps: int) -> float:
        """Of the rate at `step` of `steps`, from 0 on."""
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warm_up) / max(1, steps - self.warm_up))))

    def adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of those parameters that are trained."""
        trained = [p for p in parameters if p.requires_grad]
        if not self.l2:
            return torch.optim.AdamW(trained, self.rate, weight_decay=self.weight_decay)
        # The gradient of l2 * sum(w^2) is 2 * l2 * w.
        kernels: dict[str, Any] = {"params": [p for p in trained if p.ndim > 2], "weight_decay": 2 * self.l2}
        return torch.optim.Adam([kernels, {"params": [p for p in trained if p.ndim <= 2]}], self.rate)


class LearnedRegistration(RegistrationModule):
    """A network that was trained by `reg-bench fit`, or is about to be.

    Intensities are scaled to 0..1 by percentiles of each image; a moving image of another shape is cut or continued to
    that of the fixed one; both are continued at their far ends to sizes that the network can halve, and the field is
    cut back. Training takes any loss of `reg_bench.registration_loss`, which sees the images as the network does.

    Args:
        network: any `RegistrationNetwork`; by default that of the checkpoint, scaled as there.
        loss: what training minimises; not needed otherwise.
        optimizer: rate and schedule.
        percentiles: that become 0 and 1; `None` where the data is scaled already.
        frozen: beginnings of names of parameters of the network that are not trained.
        checkpoint: weights of just this network: a file, or a name of those that are shipped.

    Raises:
        ConfigError: neither a network nor a checkpoint, or a checkpoint that does not fit; names the file.
    """

    name: ClassVar[str] = "learned"

    def __init__(
        self,
        network: RegistrationNetwork | None = None,
        loss: RegistrationLoss | None = None,
        optimizer: AdamSettings = AdamSettings(),
        percentiles: tuple[float, float] | None = PERCENTILES,
        frozen: Sequence[str] = (),
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        weights = None if checkpoint is None else read_weights(checkpoint)
        if network is None:
            if weights is None:
                raise ConfigError("learned: needs a network, or a checkpoint that names its own (--checkpoint FILE)")
            network, percentiles = network_of(weights), weights.model.get("percentiles", percentiles)
        if weights is not None:
            load_network(network, weights)
            _check_scaling(weights, percentiles)
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.percentiles = percentiles and (percentiles[0], percentiles[1])
        self.trained = weights is not None
        """Whether the network has weights to register with, or is training."""
        self.loss_terms: dict[str, Tensor] = {}
        """Of the last training step, by name: whoever finds the sum not to be a number can tell which it was."""
        freeze(network, frozen, "LearnedRegistration")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained = True

    def on_fit_start(self) -> None:
        self.trained = True

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why the network cannot take `pair`, or `None`."""
        if not self.trained:
            return "the network has no weights: name them by --checkpoint FILE, or train it by `reg-bench fit`"
        if pair.dimension != self.network.dimension:
            return f"{type(self.network).__name__} is for {self.network.dimension}-D, not {pair.dimension}-D"
        channels = {int(image.shape[1]) for image in (pair.fixed, pair.moving)}
        if channels != {self.network.channels}:
            found = " and ".join(str(n) for n in sorted(channels))
            return f"{type(self.network).__name__} takes images of {self.network.channels} channels, not {found}"
        return super().accepts(pair)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        prepared = self.prepared(pair)
        with DirectConvolutions():
            output = self.network(prepared.fixed, prepared.moving)
        return self._field(output, pair)

    def prepared(self, pair: RegistrationPair) -> RegistrationPair:
        """`pair` as the network and its loss see it: scaled, on one grid, of a size that the network takes.

        Where the grid was continued `mask` leaves that out; everything else is continued by its border values.
        """
        fixed, moving = pair.fixed, pair.moving
        if self.percentiles is not None:
            fixed, moving = (unit_range(image, self.percentiles) for image in (fixed, moving))
        changes: dict[str, Any] = {"fixed": fixed, "moving": moving, "scored": None}
        if moving.shape[2:] != fixed.shape[2:]:
            # Voxel meets voxel of the same index, as in the convention of fields between unequal grids.
            changes["moving"] = _fitted(moving, pair.spatial_shape)
            changes["moving_labels"] = _fitted(pair.moving_labels, pair.spatial_shape, 0)
        multiple, least = self.network.multiple, self.network.least
        shape = [-(-max(n, least) // multiple) * multiple for n in pair.spatial_shape]
        if shape == list(pair.spatial_shape):
            return replace(pair, **changes)
        whole = replace(pair, **changes, mask=None, fixed_labels=None, moving_labels=None, true_displacement=None)
        mask = torch.ones_like(fixed[:, :1], dtype=torch.bool) if pair.mask is None else pair.mask
        continued: dict[str, Any] = {
            name: _fitted(changes.get(name, getattr(pair, name)), shape)
            for name in ("fixed", "moving", "fixed_labels", "moving_labels", "true_displacement")
        }
        return replace(whole, **continued, mask=_fitted(mask, shape, False))

    def _field(self, output: NetworkOutput, pair: RegistrationPair) -> DisplacementField:
        u = output.u
        for axis, size in enumerate(pair.spatial_shape, start=2):
            u = u.narrow(axis, 0, size)
        return DisplacementField.for_pair(u.float(), pair)

    def training_step(self, batch: RegistrationPair, batch_idx: int) -> Tensor:
        pair = self.prepared(batch)
        total, terms = self._loss(self.network(pair.fixed, pair.moving), pair)
        # Without their graphs, which would be kept until the next step.
        self.loss_terms = {name: value.detach() for name, value in terms.items()}
        values = {"train/loss": total.detach()} | {f"train/{k}": v for k, v in self.loss_terms.items()}
        self.log_dict(values, batch_size=batch.batch_size, prog_bar=False)
        return total

    def validation_step(self, batch: RegistrationPair, batch_idx: int, dataloader_idx: int = 0) -> DisplacementField:
        """Logs Dice, TRE, folding, correlation and the loss; returns the field."""
        pair = self.prepared(batch)
        output = self.network(pair.fixed, pair.moving)
        field = self._field(output, batch)
        check_field(field, batch)
        self.log_scores(batch, field, VALIDATED)
        # Real pairs may lack what training has, such as a true displacement.
        terms = {} if self.loss is None else self.loss.applying(output, pair)
        if terms:
            values = {f"{name}_loss": float(value) for name, value in terms.items()}
            self.add_scores({"loss": sum(values.values()), **values}, batch.batch_size)
        return field

    def _loss(self, output: NetworkOutput, pair: RegistrationPair) -> tuple[Tensor, dict[str, Tensor]]:
        if self.loss is None:
            raise ValueError("LearnedRegistration: training needs a loss, see reg_bench.registration_loss")
        total, terms = self.loss(output, pair)
        return total, dict(terms)

    def configure_optimizers(self) -> Any:
        asked = self.optimizer
        adam = asked.adam(self.parameters())
        if asked.schedule != "exponential":
            steps = int(self.trainer.estimated_stepping_batches) if asked.schedule == "cosine" else 0
            course = torch.optim.lr_scheduler.LambdaLR(adam, partial(asked.share, steps=steps))
            return {"optimizer": adam, "lr_scheduler": {"scheduler": course, "interval": "step"}}
        return [adam], [torch.optim.lr_scheduler.ExponentialLR(adam, asked.decay)]


def _fitted(value: Tensor | None, shape: Sequence[int], beyond: int | None = None) -> Tensor | None:
    """`value (B, C, *S)` cut or continued to `shape` at the far end of every axis, by its border or by `beyond`."""
    if value is None:
        return None
    for axis, size in enumerate(shape, start=2):
        missing = size - value.shape[axis]
        if missing < 0:
            value = value.narrow(axis, 0, size)
        elif missing > 0:
            edge = value.narrow(axis, value.shape[axis] - 1, 1)
            edge = edge if beyond is None else torch.full_like(edge, beyond)
            value = torch.cat([value, edge.expand(*[missing if a == axis else -1 for a in range(value.ndim)])], axis)
    return value


def _check_scaling(weights: Weights, percentiles: Sequence[float] | None) -> None:
    """That the images are scaled as those that the weights were trained on."""
    trained = weights.model.get("percentiles", percentiles)
    if (trained and list(trained)) != (percentiles and list(percentiles)):
        raise ConfigError(f"{weights.path}: was trained with percentiles {trained}, not {percentiles}")
