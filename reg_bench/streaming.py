"""A sequence through a method, frame by frame: a plain loop with a clock.

The frames lie on the device before the loop begins and nothing is scored within it. What the method foretells is
asked for between the frames, outside their time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reg_bench.clock import lap
from reg_bench.method import Estimate, InvalidFieldError, SequenceModule, check_field
from reg_bench.types import DisplacementField, ImageSequence

Guard = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Step:
    """One moment of a stream.

    Attributes:
        frame: number in the sequence.
        time_s: seconds after the reference.
        given: whether the method saw the frame.
        closing: whether the frame is the reference again, at the end of a period.
        field: the estimate on the grid of the frame.
        latency_s: wall seconds until it was there.
        late: the forecast over that latency, where asked for and a frame was given.
        ahead: forecasts by the number of frames that they look ahead.
    """

    frame: int
    time_s: float
    given: bool
    closing: bool
    field: DisplacementField
    latency_s: float
    late: DisplacementField | None = None
    ahead: Mapping[int, DisplacementField] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Streamed:
    """A sequence after its stream. `aside_s` and `aside_cpu_s` went into forecasts and checks, not into frames."""

    start_s: float
    steps: tuple[Step, ...]
    aside_s: float
    aside_cpu_s: float


def moments(sequence: ImageSequence, periodic: bool) -> list[tuple[int, float, bool]]:
    """Frame, seconds after the reference and whether it is the reference again, for all steps of a stream.

    The frames after the reference; of a periodic sequence then those before it, and at last the reference.
    """
    first, length, seconds = sequence.reference, sequence.length, sequence.seconds_per_frame
    steps = range(1, length + 1) if periodic else range(1, length - first)
    return [((first + k) % length, k * seconds, k == length) for k in steps]


def warm_up(method: SequenceModule, sequence: ImageSequence, steps: int) -> None:
    """The first few frames of a stream, of which nothing is kept; a copy, so that nothing here reaches the others."""
    reference = sequence.frames[:, sequence.reference].clone()
    state = method.start(reference, seconds_per_frame=sequence.seconds_per_frame, mask=sequence.reference_region())
    for frame, time_s, _ in moments(sequence, periodic=False)[:steps]:
        state = method.step(state, sequence.frames[:, frame].clone(), time_s)[0]


def run_stream(
    method: SequenceModule,
    sequence: ImageSequence,
    *,
    every: int = 1,
    ahead: Sequence[int] = (),
    late: bool = False,
    periodic: bool = False,
    guard: Guard = nullcontext,
) -> Streamed:
    """Streams `sequence` through `method`, which looks where the labels of the reference are, or its mask.

    Args:
        method: one of sequences.
        sequence: a batch of one on the device of the method.
        every: which frames after the reference are given: every first, second, …; the others are `None`.
        ahead: how many frames it has to look ahead after each step.
        late: whether it has to look ahead by the time that each step with a frame took.
        periodic: see `moments`.
        guard: stands around every single call of the method.

    Raises:
        InvalidFieldError: an answer that is no estimate on the grid of the frames, told at once.
    """
    device, seconds = sequence.frames.device, sequence.seconds_per_frame
    reference = sequence.frames[:, sequence.reference]
    begin = partial(method.start, reference, seconds_per_frame=seconds, mask=sequence.reference_region())
    with guard():
        state, start_s = lap(begin, device)
    steps: list[Step] = []
    aside_s = aside_cpu_s = 0.0
    for number, (frame, time_s, closing) in enumerate(moments(sequence, periodic), start=1):
        given = number % every == 0
        picture = sequence.frames[:, frame] if given else None
        with guard():
            (state, estimate), latency_s = lap(partial(method.step, state, picture, time_s), device)
        wall, cpu = time.perf_counter(), time.process_time()
        keep = _Keeper(sequence, frame)
        found = keep(estimate)
        foretold: dict[int, DisplacementField] = {}
        in_time = None
        if not closing:
            with guard():
                in_time = keep(method.forecast(state, latency_s)) if late and given else None
                foretold = {k: keep(method.forecast(state, k * seconds)) for k in ahead}
        steps.append(Step(frame, time_s, given, closing, found, latency_s, in_time, foretold))
        aside_s += time.perf_counter() - wall
        aside_cpu_s += time.process_time() - cpu
    return Streamed(start_s, tuple(steps), aside_s, aside_cpu_s)


class _Keeper:
    """Checks the estimates of a step and keeps a copy of each: a method may write over its own.

    A field that is held as a forecast is kept once.
    """

    def __init__(self, sequence: ImageSequence, frame: int) -> None:
        self._sequence, self._pair = sequence, sequence.pair(frame)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, estimate: Estimate) -> DisplacementField:
        if not isinstance(estimate, Estimate):
            raise InvalidFieldError(
                f"{', '.join(self._pair.case_ids)}: step and forecast must return an Estimate, "
                f"got {type(estimate).__name__}"
            )
        check_field(estimate.field, self._pair)
        return DisplacementField(self._copy(estimate.field.u), self._sequence.spacing_mm, self._sequence.affine)

    def _copy(self, u: Tensor) -> Tensor:
        for original, copy in self._kept:
            # The original is held on to: a later field may not lie where it lay.
            if original.data_ptr() == u.data_ptr() and torch.equal(copy, u.to(torch.float32)):
                return copy
        self._kept.append((u, u.detach().to(torch.float32, copy=True)))
        return self._kept[-1][1]
