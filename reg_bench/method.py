"""What a registration method is: the base of everything in `lightning_modules/`.

A method is one file with one final class that names itself and implements `register`. Class attributes are
literals, because `reg-bench list` reads them from the source without importing it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from reg_bench.score_sums import ScoreSums
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair


class InvalidFieldError(ValueError):
    """A method returned something that is not a displacement field of its pair."""


class RegistrationModule(LightningModule, ABC):
    """Estimates the displacement field of a pair. Subclasses are final and implement `register`.

    Class attributes (literals):
        name: what the command line calls it; unique among methods.
        version: raised when its results change; part of the key of every result.
        dimensions: spatial dimensions that it accepts.
        needs: fields of the pair without which it cannot run, e.g. `("true_displacement",)`.
        licence: SPDX identifier of the code that does the work.
        optimises: whether `register` needs gradients; they are then enabled even inside `Trainer.predict`.
        joins: of the one class that names joined by `+` stand for, its two arguments that take a method each.
        takes: `pairs`; of methods of sequences `sequences`.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    needs: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[str] = "Apache-2.0"
    optimises: ClassVar[bool] = False
    joins: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[str] = "pairs"

    @abstractmethod
    def register(self, pair: RegistrationPair) -> DisplacementField:
        """The field on the fixed grid of `pair`, in voxels, that pulls the moving image onto the fixed one.

        Called through `forward`, which sets the gradient mode. The batch may hold several cases; each must
        come out as if it were alone.
        """

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why this method cannot take `pair`, in words, or `None` where it can."""
        return _refusal(self, pair, pair.dimension)

    def software(self) -> dict[str, str]:
        """Versions, by name, of what does the work beside the packages that every run lists; for the manifest."""
        return {}

    def forward(self, pair: RegistrationPair) -> DisplacementField:
        """`register` in the gradient mode that the method needs."""
        if not self.optimises:
            return self.register(pair)
        with _gradients_enabled():
            # Tensors made in inference mode can never enter autograd: methods get clones.
            return self.register(_cloned(pair))

    def predict_step(self, batch: RegistrationPair, batch_idx: int, dataloader_idx: int = 0) -> DisplacementField:
        field = self(batch)
        check_field(field, batch)
        return field

    def validation_step(self, batch: RegistrationPair, batch_idx: int, dataloader_idx: int = 0) -> DisplacementField:
        """Logs the strict metrics of the case, averaged over the validation set; returns the field."""
        field: DisplacementField = self(batch)
        check_field(field, batch)
        self.log_scores(batch, field)
        return field

    def test_step(self, batch: RegistrationPair, batch_idx: int, dataloader_idx: int = 0) -> DisplacementField:
        """As in validation, logged as `test/<metric>`."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def log_scores(
        self, batch: RegistrationPair, field: DisplacementField, metrics: Sequence[str] | None = None
    ) -> None:
        """Logs the strict metrics of `field`, all or those named, as `val/<metric>` or `test/<metric>`.

        The mean is over all cases that have the metric, of all processes, at the end of the epoch.
        """
        from reg_bench.metrics import score

        for element, single in zip(batch.split(), split_field(field), strict=True):
            values = score(element, single, profiles=("strict",), metrics=metrics)
            self.add_scores({v.metric: v.value for v in values if v.label == "all" and v.value is not None})

    def add_scores(self, values: Mapping[str, float], cases: int = 1) -> None:
        """Counts values of `cases` cases into the means that are logged at the end of the epoch."""
        sums: ScoreSums = self.__dict__.setdefault("_scores", ScoreSums())
        for name, value in values.items():
            sums.add(name, value, cases)

    def on_validation_epoch_end(self) -> None:
        """Logs what `log_scores` gathered; whoever overrides this calls it."""
        stage = "test" if self.trainer.testing else "val"
        for metric, mean in self.__dict__.pop("_scores", ScoreSums()).means().items():
            self.log(f"{stage}/{metric}", mean)

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()


def _refusal(method: RegistrationModule | SequenceModule, case: Any, dimension: int) -> str | None:
    """Why the literals of `method` exclude a case of that dimension, which has what is needed as attributes."""
    if dimension not in method.dimensions:
        known = " and ".join(f"{d}-D" for d in method.dimensions)
        return f"{type(method).__name__} registers {known}, not {dimension}-D"
    for need in method.needs:
        if getattr(case, need) is None:
            return f"{type(method).__name__} needs {need}, which the case does not have"
    return None


@contextlib.contextmanager
def _gradients_enabled() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _cloned(pair: RegistrationPair) -> RegistrationPair:
    from dataclasses import fields, replace

    changes: dict[str, Any] = {}
    for f in fields(pair):
        value = getattr(pair, f.name)
        if isinstance(value, Tensor) and value.is_inference():
            changes[f.name] = value.clone()
    return replace(pair, **changes)


def split_field(field: DisplacementField) -> Iterator[DisplacementField]:
    """The fields of a batch as batches of one."""
    for i in range(field.u.shape[0]):
        yield DisplacementField(
            field.u[i : i + 1],
            None if field.spacing_mm is None else field.spacing_mm[i : i + 1],
            None if field.affine is None else field.affine[i : i + 1],
        )


def check_field(field: Any, pair: RegistrationPair) -> None:
    """Checks that `field` is a finite float displacement field on the fixed grid of `pair`.

    Raises:
        InvalidFieldError: says what was expected and what came.
    """
    name = ", ".join(pair.case_ids)
    if not isinstance(field, DisplacementField):
        raise InvalidFieldError(f"{name}: register must return a DisplacementField, got {type(field).__name__}")
    expected = (pair.batch_size, pair.dimension, *pair.spatial_shape)
    if tuple(field.u.shape) != expected:
        raise InvalidFieldError(
            f"{name}: the field has shape {tuple(field.u.shape)}, expected (B, D, *spatial) = {expected}"
        )
    # A sum is finite only where every term is, and takes a tenth of the time of looking at each.
    if bool(torch.isfinite(field.u.sum())):
        return
    finite = torch.isfinite(field.u)
    if not bool(finite.all()):
        raise InvalidFieldError(f"{name}: the field holds {int((~finite).sum())} NaN or infinite values")


@dataclass(frozen=True)
class Estimate:
    """A field and, where the method has one, its uncertainty.

    `std` is `(B, D, *S)`, the standard deviation of `field.u` in voxels; `confidence` is `(B, 1, *S)`, 0..1.
    """

    field: DisplacementField
    std: Tensor | None = None
    confidence: Tensor | None = None


class SequenceModule(LightningModule, ABC):
    """Follows motion through a stream of frames without hidden state, so that two patients can interleave.

    Everything that changes from frame to frame is in the state that `start` returns and `step` passes on: stepping
    one state twice gives the same twice. Each case of a batch must come out as if it were alone.

    Class attributes are those of `RegistrationModule`; `needs` names fields of `ImageSequence`, such as
    `true_displacement`. Pairs are registered through `reg_bench.sequence_as_pairs`.

    What a subclass may have beside, and is asked for where it has it:

    * `smooth(frames, observed=None, *, reference=None) -> list[Estimate]`: all frames `(B, T, C, *S)` at once, looking
      both ways; `observed (B, T)` bool says which there are. See `reg_bench.streaming.run_offline`.
    * `uncertain(state, horizon_s) -> Estimate`: as `forecast`, with its standard deviation, however long that takes.
    * `generate(reference, n, seed, *, length=50) -> list[Tensor]`: `n` motions that `reference (B, C, *S)` might make,
      fields `(B, length, D, *S)` in voxels.
    * `latent_course(frames, observed=None) -> LatentCourse`: see `reg_bench.latent_courses`.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    needs: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[str] = "Apache-2.0"
    takes: ClassVar[str] = "sequences"

    def accepts(self, sequence: ImageSequence) -> str | None:
        """Why this method cannot follow `sequence`, in words, or `None` where it can."""
        return _refusal(self, sequence, sequence.dimension)

    def software(self) -> dict[str, str]:
        """Versions, by name, of what does the work beside the packages that every run lists; for the manifest."""
        return {}

    @abstractmethod
    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Any:
        """The state for a stream whose moving image is `reference` `(B, C, *S)`.

        `mask` is `(B, 1, *S)`, `points` `(B, N, D)` in voxels: where to look, for methods that use it.
        """

    @abstractmethod
    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        """The state and the estimate at `time_s` seconds after the reference.

        `frame` is `(B, C, *S)`, or `None` for a frame that was not acquired. The field lives on the frame's
        grid and pulls the reference onto it.
        """

    @abstractmethod
    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        """The field expected `horizon_s` seconds after the last step."""
