"""Autoregression of principal components: how motion is forecast where radiotherapy follows it by MR imaging."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledState, ModelledStream, Remainder
from reg_bench.motion_models import AutoregressiveComponents


class AutoregressiveMotion(SequenceModule):
    """Carries the fields of another method on: coefficients of their principal components follow their own past.

    `ar-pca` is a named setting of it. Components and autoregression are fitted anew at every forecast to the fields
    seen so far. An autoregression that would grow is damped until it does not. `benchmarks/choose_forecast.py` chooses
    rank and order on validation sequences.

    Args:
        method: of pairs or sequences, which gives the fields.
        rank: how many components.
        order: how many frames back the coefficients look.
        ridge: weight of the squared coefficients of the autoregression, relative to the size of its equations.
        coupled: whether each coefficient is predicted from the past of all, instead of from its own.
        remainder: `hold` what the components do not hold of the last field, or `drop` it, see `ModelledStream`.
        window: how many of the last fields are kept.
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
    ) -> None:
        super().__init__()
        model = AutoregressiveComponents(rank, order, ridge, coupled)
        self.inner = ModelledStream(method, model, remainder, window)

    def accepts(self, sequence: Any) -> str | None:
        """Why the method that gives the fields cannot take `sequence`, or `None`."""
        return self.inner.accepts(sequence)

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
        return self.inner.start(reference, seconds_per_frame=seconds_per_frame, mask=mask, points=points)

    def step(self, state: ModelledState, frame: Tensor | None, time_s: float) -> tuple[ModelledState, Estimate]:
        return self.inner.step(state, frame, time_s)

    def forecast(self, state: ModelledState, horizon_s: float) -> Estimate:
        return self.inner.forecast(state, horizon_s)
