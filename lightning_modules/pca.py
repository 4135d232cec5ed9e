"""Motion as a combination of the principal components of the motion so far."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledState, ModelledStream
from reg_bench.motion_models import HeldComponents


class PrincipalMotion(SequenceModule):
    """Fields of another method on the first principal components of the fields seen so far; forecasts hold the last.

    `pca` is a named setting of it. The components are those of the stream itself, fitted anew at every frame, with the
    reference's zero field among them: no training set, and what is rare in the motion so far counts as noise. So there
    is nothing to generate from.

    Args:
        method: of pairs or sequences, which gives the fields.
        rank: how many components.
        window: how many of the last fields are kept.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(self, method: RegistrationModule | SequenceModule, rank: int = 8, window: int = 100) -> None:
        super().__init__()
        self.inner = ModelledStream(method, HeldComponents(rank), "drop", window)

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
