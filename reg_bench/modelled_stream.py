"""A registration of frames on a stream, whose fields a model of motion takes part in or carries on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from reg_bench.forwarded_stream import ForwardedStream
from reg_bench.method import Estimate, RegistrationModule, SequenceModule
from reg_bench.motion_history import MotionHistory, stacked
from reg_bench.motion_models import MotionModel
from reg_bench.pairs_as_sequence import as_stream
from reg_bench.types import DisplacementField

Remainder = Literal["hold", "drop"]


@dataclass(frozen=True)
class ModelledState:
    """What is remembered between frames.

    Attributes:
        inner: the state of the registration.
        histories: of every case.
        shape: `(D, *S)` of the fields.
        seconds_per_frame: the interval.
        seen_s, now_s: time of the last frame, and of the last step, in seconds after the reference.
    """

    inner: Any
    histories: tuple[MotionHistory, ...]
    shape: tuple[int, ...]
    seconds_per_frame: float
    seen_s: float = 0.0
    now_s: float = 0.0


class ModelledStream(ForwardedStream, SequenceModule):
    """Registers the reference to every frame by another method; what lies ahead of the last frame its model tells.

    The model is fitted anew to the fields seen so far, that of the reference, zero, included. Frames that were not
    acquired are told by the model; once the next has come, those before it are linear in time.

    Args:
        method: of pairs or sequences, which gives the fields.
        model: of motion.
        remainder: what the model does not hold of the last field is held, `hold`, so that the field of a frame is that
            of `method`; or it is left out, `drop`, so that every field is the model's.
        window: how many of the last fields are kept.
    """

    def __init__(
        self,
        method: RegistrationModule | SequenceModule,
        model: MotionModel,
        remainder: Remainder = "hold",
        window: int = 100,
    ) -> None:
        super().__init__()
        if remainder not in get_args(Remainder) or window < 3:
            raise ValueError(
                f"remainder must be one of {', '.join(get_args(Remainder))} and window at least 3, "
                f"got {remainder!r} and {window}"
            )
        self.inner, self.model, self.remainder, self.window = as_stream(method), model, remainder, window

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> ModelledState:
        inner = self.inner.start(reference, seconds_per_frame=seconds_per_frame, mask=mask, points=points)
        shape = (reference.ndim - 2, *reference.shape[2:])
        still = torch.zeros(shape, device=reference.device).flatten()
        histories = tuple(MotionHistory.at_rest(still) for _ in range(len(reference)))
        return ModelledState(inner, histories, shape, seconds_per_frame)

    def step(self, state: ModelledState, frame: Tensor | None, time_s: float) -> tuple[ModelledState, Estimate]:
        if frame is None:
            # The registration may follow the time itself.
            state = replace(state, inner=self.inner.step(state.inner, None, time_s)[0], now_s=time_s)
            return state, self.forecast(state, 0.0)
        inner, estimate = self.inner.step(state.inner, frame, time_s)
        steps = round((time_s - state.seen_s) / state.seconds_per_frame)
        histories = tuple(
            history.followed_by(u.flatten().float(), steps, self.window)
            for history, u in zip(state.histories, estimate.field.u, strict=True)
        )
        state = replace(state, inner=inner, histories=histories, seen_s=time_s, now_s=time_s)
        return state, estimate if self.remainder == "hold" else self._estimate(state, 0.0)

    def forecast(self, state: ModelledState, horizon_s: float) -> Estimate:
        return self._estimate(state, max(state.now_s + horizon_s - state.seen_s, 0.0) / state.seconds_per_frame)

    def _estimate(self, state: ModelledState, steps: float) -> Estimate:
        """The fields `steps` intervals after the last frame."""
        fields = [self._field(history, steps) for history in state.histories]
        return Estimate(DisplacementField(stacked(fields, state.shape)))

    def _field(self, history: MotionHistory, steps: float) -> Tensor:
        if self.remainder == "drop":
            return self.model(history, steps)
        last = history.field(history.coordinates[-1])
        # Between frames time goes on from the last, so that nothing jumps.
        return last if steps == 0 else last + self.model(history, steps) - self.model(history, 0.0)
