"""Motion that goes on by its dynamic modes."""

from __future__ import annotations

from typing import ClassVar

from reg_bench.forwarded_stream import ForwardedStream
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledStream, Remainder
from reg_bench.motion_models import EvolvingModes


class DynamicModeMotion(ForwardedStream, SequenceModule):
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
