"""What every forecast must beat: no motion, and the last field held or carried on."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from reg_bench.forwarded_stream import ForwardedStream
from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.pairs_as_sequence import Forecast, PairwiseStream
from reg_bench.types import DisplacementField


class NoMotion(SequenceModule):
    """The zero field at all times: the floor of every sequence table."""

    name: ClassVar[str] = "no-motion"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """The zero field `(B, D, *S)`, which is all there is to remember."""
        return reference.new_zeros(reference.shape[0], reference.ndim - 2, *reference.shape[2:])

    def step(self, state: Tensor, frame: Tensor | None, time_s: float) -> tuple[Tensor, Estimate]:
        return state, Estimate(DisplacementField(state))

    def forecast(self, state: Tensor, horizon_s: float) -> Estimate:
        return Estimate(DisplacementField(state))


class LastFields(ForwardedStream, SequenceModule):
    """Registers the reference to every frame by a method of pairs and extrapolates its last fields.

    `hold-last` and `constant-velocity` are named settings of it. Methods of pairs hold their last field on streams
    without it too; there they see the spacing of the images, here images alone.

    Args:
        method: of pairs.
        forecast: `hold` the last field, or `velocity`: carry on as between the last two.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(self, method: RegistrationModule, forecast: Forecast = "hold") -> None:
        super().__init__()
        self.inner = PairwiseStream(method, forecast)

    def smooth(
        self, frames: Tensor, observed: Tensor | None = None, *, reference: Tensor | None = None
    ) -> list[Estimate]:
        """See `reg_bench.pairs_as_sequence.PairwiseStream.smooth`: linear in time between the frames that are there."""
        return self.inner.smooth(frames, observed, reference=reference)
