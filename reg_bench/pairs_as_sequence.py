"""A method of pairs on a stream of frames: the reference is registered to every frame that comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair

Forecast = Literal["hold", "velocity"]


@dataclass(frozen=True)
class PairwiseState:
    """What is remembered between two frames.

    Attributes:
        reference: `(B, C, *S)` the moving image.
        u: `(B, D, *S)` voxels, the last field; zero before the first frame.
        time_s: when it was, seconds after the reference.
        rate: `(B, D, *S)` voxels per second by which it had changed since the frame before.
        seconds_per_frame: of the stream.
    """

    reference: Tensor
    u: Tensor
    time_s: float
    rate: Tensor
    seconds_per_frame: float


class PairwiseStream(SequenceModule):
    """Registers the reference to every frame, each on its own; between and after the frames it extrapolates.

    Args:
        method: of pairs.
        forecast: `hold` the last field, or go on with the constant `velocity` between the last two.
        about: the sequence that is streamed, where it is known: each frame then comes with its spacing and all else
            that methods of pairs may ask for. Without it a pair is two images without a header.

    Raises:
        ValueError: an unknown forecast.
    """

    def __init__(
        self, method: RegistrationModule, forecast: Forecast = "hold", about: ImageSequence | None = None
    ) -> None:
        super().__init__()
        if forecast not in get_args(Forecast):
            raise ValueError(f"forecast must be one of {', '.join(get_args(Forecast))}, got {forecast!r}")
        self.method, self.extrapolation, self.about = method, forecast, about

    def accepts(self, sequence: ImageSequence) -> str | None:
        """Why the method cannot take the first pair of `sequence`, or `None`."""
        return self.method.accepts(next(sequence.pairs()))

    def software(self) -> dict[str, str]:
        return self.method.software()

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> PairwiseState:
        """See `SequenceModule`; `mask` and `points` are of no use to a method of pairs."""
        still = reference.new_zeros(reference.shape[0], reference.ndim - 2, *reference.shape[2:])
        return PairwiseState(reference, still, 0.0, still, seconds_per_frame)

    def step(self, state: PairwiseState, frame: Tensor | None, time_s: float) -> tuple[PairwiseState, Estimate]:
        """See `SequenceModule`; a missing frame leaves the state as it is."""
        if frame is None:
            return state, self.forecast(state, time_s - state.time_s)
        u = self.method(self._pair(state, frame, time_s)).u
        rate = state.rate
        if self.extrapolation == "velocity" and time_s > state.time_s:
            rate = (u - state.u) / (time_s - state.time_s)
        return replace(state, u=u, time_s=time_s, rate=rate), self._estimate(u)

    def forecast(self, state: PairwiseState, horizon_s: float) -> Estimate:
        """The last field, or that field moved on by its rate of change."""
        return self._estimate(state.u if self.extrapolation == "hold" else state.u + horizon_s * state.rate)

    def smooth(
        self, frames: Tensor, observed: Tensor | None = None, *, reference: Tensor | None = None
    ) -> list[Estimate]:
        """The fields of all frames: of those that are there registered, between two of these linear in time.

        After the last of them its field is held.

        Args:
            frames: `(B, T, C, *S)`, at equal intervals.
            observed: `(B, T)` bool, which of them there are, the same for all cases; all if not given.
            reference: the moving image `(B, C, *S)`; the first frame if not given, whose field then is zero.
        """
        length = frames.shape[1]
        seconds = 1.0 if self.about is None else self.about.seconds_per_frame
        state = self.start(frames[:, 0] if reference is None else reference, seconds_per_frame=seconds)
        there = [t for t in range(length) if observed is None or bool(observed[:, t].all())]
        known = {0: state.u} if reference is None else {}
        for t in there:
            if t not in known:
                known[t] = self.method(self._pair(state, frames[:, t], t * seconds)).u
        return [self._estimate(_between(known, t)) for t in range(length)]

    def _pair(self, state: PairwiseState, frame: Tensor, time_s: float) -> RegistrationPair:
        if self.about is None:
            names = tuple(f"stream{i}/{time_s:.3f}" for i in range(frame.shape[0]))
            return RegistrationPair(names, fixed=frame, moving=state.reference)
        number = self.about.reference + round(time_s / state.seconds_per_frame)
        return replace(self.about.pair(number % self.about.length), fixed=frame, moving=state.reference)

    def _estimate(self, u: Tensor) -> Estimate:
        if self.about is None:
            return Estimate(DisplacementField(u))
        return Estimate(DisplacementField(u, self.about.spacing_mm, self.about.affine))


def _between(known: Mapping[int, Tensor], t: int) -> Tensor:
    """The field of frame `t`, linear between the nearest of `known`, that of the nearest at the ends."""
    before, after = (max((k for k in known if k <= t), default=None), min((k for k in known if k >= t), default=None))
    if before is None or after is None or before == after:
        nearest = after if before is None else before
        assert nearest is not None
        return known[nearest]
    return torch.lerp(known[before], known[after], (t - before) / (after - before))


def as_stream(method: RegistrationModule | SequenceModule, about: ImageSequence | None = None) -> SequenceModule:
    """`method` itself if it is one of sequences, else on a stream that `about` describes, holding its last field."""
    return PairwiseStream(method, about=about) if isinstance(method, RegistrationModule) else method
