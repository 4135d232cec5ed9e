"""Motion that goes on by its dynamic modes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledState, ModelledStream, Remainder
from reg_bench.motion_models import EvolvingModes


class DynamicModeMotion(SequenceModule):
    """Carries the fields of another method on by dynamic mode decomposition of the fields seen so far (Algorithm 4).

    `dmd` is a named setting of it. Each mode goes on with the frequency and decay that it showed; modes that grow are
    held. The modes of a recording as a whole, of fields or of images, are `reg_bench.dynamic_modes.dynamic_modes`.

    Args:
        method: of pairs or sequences, which gives the fields.
        rank: how many modes.
        delays: of how many successive fields a snapshot consists. 1 is the standard decomposition; a heart beat whose
            fields are all in one direction needs 2 or more to swing.
        remainder: `hold` what the modes do not hold of the last field, or `drop` it, see `ModelledStream`.
        window: how many of the last fields are kept.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(
        self,
        method: RegistrationModule | SequenceModule,
        rank: int = 8,
        delays: int = 1,
        remainder: Remainder = "hold",
        window: int = 100,
    ) -> None:
        super().__init__()
        self.inner = ModelledStream(method, EvolvingModes(rank, delays), remainder, window)

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
