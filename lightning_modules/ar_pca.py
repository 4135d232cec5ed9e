"""Autoregression of principal components: how motion is forecast where radiotherapy follows it by MR imaging."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from reg_bench.forwarded_stream import ForwardedStream
from reg_bench.learned_motion import LearnedComponents
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledState, ModelledStream, Remainder
from reg_bench.motion_models import AutoregressiveComponents
from reg_bench.weights_files import weights_file


class AutoregressiveMotion(ForwardedStream, SequenceModule):
    """Carries the fields of another method on: coefficients of their principal components follow their own past.

    `ar-pca` is a named setting of it. Components and autoregression are fitted anew at every forecast to the fields
    seen so far, or, with a checkpoint, were learned from many sequences before. An autoregression that would grow is
    damped until it does not. `benchmarks/choose_forecast.py` chooses rank and order on validation sequences.

    Args:
        method: of pairs or sequences, which gives the fields.
        rank: how many components.
        order: how many frames back the coefficients look.
        ridge: weight of the squared coefficients of the autoregression, relative to the size of its equations.
        coupled: whether each coefficient is predicted from the past of all, instead of from its own.
        remainder: `hold` what the components do not hold of the last field, or `drop` it, see `ModelledStream`.
        window: how many of the last fields are kept.
        checkpoint: file, or name of shipped weights, of components and autoregression that
            `benchmarks/fit_components.py` learned, in place of `rank`, `order`, `ridge` and `coupled`; for streams of
            that size and rate only.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(
        self,
        method: RegistrationModule | SequenceModule,
        rank: int = 4,
        order: int = 6,
        ridge: float = 1e-4,
        coupled: bool = False,
        remainder: Remainder = "hold",
        window: int = 100,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.learned = None if checkpoint is None else LearnedComponents.load(weights_file(checkpoint, "ar-pca"))
        model = AutoregressiveComponents(rank, order, ridge, coupled) if self.learned is None else self.learned
        self.inner = ModelledStream(method, model, remainder, window)

    def accepts(self, sequence: Any) -> str | None:
        """Why the method that gives the fields cannot take `sequence`, or it is not what was learned; or `None`."""
        found = self._unlearned((sequence.dimension, *sequence.spatial_shape), sequence.seconds_per_frame)
        return found or super().accepts(sequence)

    def software(self) -> dict[str, str]:
        return self.inner.software()

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> ModelledState:
        problem = self._unlearned((reference.ndim - 2, *reference.shape[2:]), seconds_per_frame)
        if problem is not None:
            raise ValueError(problem)
        return super().start(reference, seconds_per_frame=seconds_per_frame, mask=mask, points=points)

    def _unlearned(self, shape: tuple[int, ...], seconds_per_frame: float) -> str | None:
        """Why what was learned does not hold for streams of that shape and rate, or `None`."""
        if self.learned is None:
            return None
        learned, seconds = self.learned.shape, self.learned.seconds_per_frame
        if shape == learned and abs(seconds_per_frame / seconds - 1) < 0.01:
            return None
        return (
            f"AutoregressiveMotion was trained on images of {'x'.join(map(str, learned[1:]))} every {seconds:g} s, "
            f"not of {'x'.join(map(str, shape[1:]))} every {seconds_per_frame:g} s"
        )
