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
from reg_bench.stream_conditions import Condition
from reg_bench.types import DisplacementField, ImageSequence

Guard = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Spread:
    """A field `(B, D, *S)` and the standard deviation that the method gives it, both in voxels."""

    u: Tensor
    std: Tensor


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
        spread: how sure the method is of the frame itself (0) and of its forecasts, by the frames that these look
            ahead; where it was asked and has an answer.
    """

    frame: int
    time_s: float
    given: bool
    closing: bool
    field: DisplacementField
    latency_s: float
    late: DisplacementField | None = None
    ahead: Mapping[int, DisplacementField] = dataclasses.field(default_factory=dict)
    spread: Mapping[int, Spread] = dataclasses.field(default_factory=dict)


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
    hidden: int = 0,
    ahead: Sequence[int] = (),
    late: bool = False,
    periodic: bool = False,
    spread_every: int = 0,
    guard: Guard = nullcontext,
) -> Streamed:
    """Streams `sequence` through `method`, which looks where the labels of the reference are, or its mask.

    Args:
        method: one of sequences.
        sequence: a batch of one on the device of the method.
        every: which frames after the reference are given: every first, second, …; the others are `None`.
        hidden: how many steps at the end are not given.
        ahead: how many frames it has to look ahead after each step.
        late: whether it has to look ahead by the time that each step with a frame took.
        periodic: see `moments`.
        spread_every: after every how many steps it is asked how sure it is, and at each of the hidden ones; 0 for
            never. A method with the function `uncertain(state, horizon_s) -> Estimate` is asked by that, for which it
            may take its time; of others what `step` and `forecast` say counts.
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
    ways, condition = moments(sequence, periodic), Condition(every, hidden)
    for number, (frame, time_s, closing) in enumerate(ways, start=1):
        given = condition.gives(number, len(ways))
        picture = sequence.frames[:, frame] if given else None
        with guard():
            (state, estimate), latency_s = lap(partial(method.step, state, picture, time_s), device)
        wall, cpu = time.perf_counter(), time.process_time()
        keep = _Keeper(sequence, frame)
        found = keep(estimate)
        foretold: dict[int, DisplacementField] = {}
        in_time, spread = None, dict[int, Spread]()
        if not closing:
            with guard():
                in_time = keep(method.forecast(state, latency_s)) if late and given else None
                asked = spread_every and (number % spread_every == 0 or number > len(ways) - hidden)
                for k in ahead:
                    told = method.forecast(state, k * seconds)
                    foretold[k] = keep(told)
                    spread |= _spread(k, told) if asked else {}
                if asked:
                    spread |= _spread(0, estimate)
                    spread |= _asked_spread(method, state, (0, *ahead), seconds)
        steps.append(Step(frame, time_s, given, closing, found, latency_s, in_time, foretold, spread))
        aside_s += time.perf_counter() - wall
        aside_cpu_s += time.process_time() - cpu
    return Streamed(start_s, tuple(steps), aside_s, aside_cpu_s)


def run_offline(
    method: SequenceModule, sequence: ImageSequence, *, every: int = 1, guard: Guard = nullcontext
) -> Streamed:
    """What `method` says of every frame of `sequence` when it is given all, or every so many, of them at once.

    A method with the function `smooth(frames, observed) -> list[Estimate]` looks both ways: it gets `frames
    (B, T, C, *S)` from the reference on and `observed (B, T)` bool, of which the first is true; what stands in frames
    that are not observed is zero. Of others this is what `run_stream` gives. Latencies are the time of all, shared.

    Raises:
        InvalidFieldError: an answer that is no estimate on the grid of the frames, or as many as there are frames.
    """
    smooth = getattr(method, "smooth", None)
    if smooth is None:
        return run_stream(method, sequence, every=every, guard=guard)
    ways, condition = moments(sequence, periodic=False), Condition(every)
    given = [condition.gives(number, len(ways)) for number in range(1, len(ways) + 1)]
    frames = sequence.frames[:, sequence.reference :].clone()
    observed = torch.tensor([True, *given], device=frames.device).expand(len(frames), -1)
    frames[~observed] = 0
    with guard():
        estimates, whole_s = lap(partial(smooth, frames, observed), frames.device)
    begin, cpu = time.perf_counter(), time.process_time()
    if len(estimates) != frames.shape[1]:
        name = ", ".join(sequence.case_ids)
        raise InvalidFieldError(f"{name}: smooth returned {len(estimates)} estimates of {frames.shape[1]} frames")
    share = whole_s / len(ways)
    steps = [
        Step(frame, time_s, seen, False, _Keeper(sequence, frame)(estimate), share)
        for (frame, time_s, _), seen, estimate in zip(ways, given, estimates[1:], strict=True)
    ]
    return Streamed(0.0, tuple(steps), time.perf_counter() - begin, time.process_time() - cpu)


def _spread(ahead: int, said: Estimate) -> dict[int, Spread]:
    """How sure a method is of what it said of so many frames ahead, nothing if it does not say."""
    if said.std is None:
        return {}
    return {ahead: Spread(*(t.detach().to("cpu", torch.float32, copy=True) for t in (said.field.u, said.std)))}


def _asked_spread(method: SequenceModule, state: Any, ahead: Sequence[int], seconds: float) -> dict[int, Spread]:
    """The same of methods that have to be asked, nothing of others."""
    ask: Callable[[Any, float], Estimate] | None = getattr(method, "uncertain", None)
    found: dict[int, Spread] = {}
    if ask is not None:
        for k in ahead:
            found |= _spread(k, ask(state, k * seconds))
    return found


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
