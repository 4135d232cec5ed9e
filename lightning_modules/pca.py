"""Motion as a combination of the principal components of the motion so far."""

from __future__ import annotations

from typing import ClassVar

from reg_bench.forwarded_stream import ForwardedStream
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.modelled_stream import ModelledStream
from reg_bench.motion_models import HeldComponents


class PrincipalMotion(ForwardedStream, SequenceModule):
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
