"""The conformance checks of streams: what a method of sequences must keep beside the conventions of fields.

Frames show the object of `conformance_cases` shifted on by the same step from frame to frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reg_bench import conformance_cases as cases
from reg_bench.conformance_checks import RELATIVE_ERROR, SAME_VOXELS, ZERO_RMS_VOXELS, CheckResult, relative_error
from reg_bench.conformance_run import form_problem, seeded
from reg_bench.conformance_session import Session
from reg_bench.method import Estimate, SequenceModule
from reg_bench.sequence_as_pairs import StreamOfOne
from reg_bench.types import RegistrationPair

SECONDS_PER_FRAME = 0.2
FRAMES = 3
# A missing frame may be bridged by holding the last field, one of three steps behind.
BRIDGED_ERROR = 0.6
BATCH_VOXELS = 0.02


class StreamError(Exception):
    """A call that raised, or an answer without the right form; the text says what is wrong."""


@dataclass
class _Scene:
    """A stream with known motion: the pair of reference and each frame, and the truth inside the object."""

    sign: float = 1.0
    seed: int = 1
    dims: int = 2
    made: list[cases.Case] = field(default_factory=list)

    def __post_init__(self) -> None:
        geometry = cases.base_geometry(self.dims)
        step = self.sign * np.asarray(cases.SHIFT_VOXELS[self.dims]) / FRAMES
        for k in range(FRAMES + 1):
            motion = cases.shifted(geometry, k * step)
            self.made.append(cases.build_case(f"frame {k}", geometry, motion, seed=self.seed))

    def pair(self, frame: int) -> RegistrationPair:
        return self.made[frame].pair

    def error(self, u: Tensor, frame: int) -> float:
        """Of the motion in `frame`, relative to it, inside the object."""
        case = self.made[frame]
        inside = u[0].flatten(1)[:, torch.from_numpy(case.interior)].T.double().numpy()
        return relative_error(inside, case.truth())


class _Stream:
    """One stream through a method; every call is seeded alike and given clones."""

    def __init__(self, method: SequenceModule, pair: RegistrationPair) -> None:
        self._method, self._pair = method, pair
        assert pair.moving_labels is not None
        reference, mask = pair.moving.clone(), pair.moving_labels != 0
        self.state = self._call(
            lambda: method.start(reference, seconds_per_frame=SECONDS_PER_FRAME, mask=mask), "start"
        )

    def step(self, frame: Tensor | None, number: int) -> Tensor:
        """The field `(B, D, *S)` at the time of frame `number`; the state moves on."""
        self.state, u = self.peek(frame, number)
        return u

    def peek(self, frame: Tensor | None, number: int) -> tuple[Any, Tensor]:
        """State and field after a step, this stream itself left where it is."""
        given = None if frame is None else frame.clone()
        found = self._call(lambda: self._method.step(self.state, given, number * SECONDS_PER_FRAME), "step")
        if not (isinstance(found, tuple) and len(found) == 2):
            raise StreamError("wrong type: step must return the state and an Estimate")
        return found[0], self._field(found[1], "step")

    def forecast(self) -> Tensor:
        """The field expected a frame ahead."""
        return self._field(
            self._call(lambda: self._method.forecast(self.state, SECONDS_PER_FRAME), "forecast"), "forecast"
        )

    def _field(self, estimate: Any, what: str) -> Tensor:
        if not isinstance(estimate, Estimate):
            raise StreamError(f"wrong type: {what} returned {type(estimate).__name__}, expected an Estimate")
        problem = form_problem(estimate.field, self._pair)
        if problem is not None:
            raise StreamError(f"{what}: {problem}")
        return estimate.field.u.detach().clone()

    def _call(self, call: Callable[[], Any], what: str) -> Any:
        try:
            with seeded(0), torch.inference_mode():
                return call()
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise StreamError(f"exception: {what} raised {type(error).__name__}: {text}") from error


def stream_checks(session: Session, progress: Callable[[str], None]) -> list[CheckResult]:
    """All checks of the method of sequences inside `session`; none for a method of pairs."""
    if not isinstance(session.method, StreamOfOne):
        return []
    results = []
    for name, check in _CHECKS.items():
        progress(f"{session.dims}-D: {name}")
        method = session.fresh()
        assert isinstance(method, StreamOfOne)
        try:
            detail, text = check(method.stream.eval(), session.dims)
        except StreamError as error:
            detail, text = str(error), str(error)
        failed = bool(text)
        if failed and name in _OF_CONVENTION and not _pairs_are_right(session):
            # One name for one mistake: pairs tell it better.
            text = ""
        results.append(CheckResult(name, session.dims, "fail" if failed else "pass", detail, text))
    return results


def _pairs_are_right(session: Session) -> bool:
    found = session.diagnosis()
    return found is not None and found.explained and not found.mistakes


def _motion(method: SequenceModule, dims: int) -> tuple[str, str]:
    scene = _Scene(dims=dims)
    stream = _Stream(method, scene.pair(0))
    errors = [scene.error(stream.step(scene.pair(k).fixed, k), k) for k in range(1, FRAMES + 1)]
    detail = "error " + ", ".join(f"{e:.0%}" for e in errors) + " of the motion from frame to frame"
    wrong = "the field of a frame is not the motion since the reference" if errors[-1] > RELATIVE_ERROR else ""
    return detail, wrong and f"stream: {wrong} ({errors[-1]:.0%} of it is missed)"


def _duplicates(method: SequenceModule, dims: int) -> tuple[str, str]:
    scene = _Scene(dims=dims)
    stream = _Stream(method, scene.pair(0))
    still = [_rms(stream.step(scene.pair(0).moving, k)) for k in range(1, FRAMES + 1)]
    moved = stream.step(scene.pair(1).fixed, FRAMES + 1)
    again = [stream.step(scene.pair(1).fixed, FRAMES + 1 + k) for k in range(1, FRAMES + 1)]
    wander = max(_rms(u - moved) for u in again)
    detail = f"RMS {max(still):.3f} voxels on the reference itself, {wander:.3f} between equal frames"
    if max(still) > ZERO_RMS_VOXELS:
        return detail, f"drift: the reference again is taken for motion of {max(still):.2f} voxels"
    return detail, f"drift: equal frames move the field by {wander:.2f} voxels" if wander > ZERO_RMS_VOXELS else ""


def _missing(method: SequenceModule, dims: int) -> tuple[str, str]:
    scene = _Scene(dims=dims)
    stream = _Stream(method, scene.pair(0))
    first = stream.step(None, 0)
    stream.step(scene.pair(1).fixed, 1)
    stream.step(scene.pair(2).fixed, 2)
    bridged = scene.error(stream.step(None, 3), 3)
    after = scene.error(stream.step(scene.pair(3).fixed, 4), 3)
    detail = f"error {bridged:.0%} of the motion without the frame, {after:.0%} with the next one"
    if _rms(first) > ZERO_RMS_VOXELS:
        return detail, f"missing frame: before any frame came the field is {_rms(first):.2f} voxels long"
    if bridged > BRIDGED_ERROR:
        return detail, f"missing frame: what was known is lost, {bridged:.0%} of the motion is missed without the frame"
    return detail, f"missing frame: the frame after it is not followed ({after:.0%})" if after > RELATIVE_ERROR else ""


def _interleaved(method: SequenceModule, dims: int) -> tuple[str, str]:
    scenes = (_Scene(dims=dims), _Scene(-1.0, 2, dims))
    alone = []
    for scene in scenes:
        stream = _Stream(method, scene.pair(0))
        alone.append([stream.step(scene.pair(k).fixed, k) for k in range(1, FRAMES + 1)])
    streams = [_Stream(method, scene.pair(0)) for scene in scenes]
    apart = 0.0
    for k in range(1, FRAMES + 1):
        for stream, scene, expected in zip(streams, scenes, alone, strict=True):
            apart = max(apart, _apart(stream.step(scene.pair(k).fixed, k), expected[k - 1]))
    detail = f"at most {apart:.1e} voxels apart"
    text = f"hidden state: two streams disturb each other, by up to {apart:.2g} voxels; keep everything in the state"
    return detail, text if apart > SAME_VOXELS else ""


def _twice(method: SequenceModule, dims: int) -> tuple[str, str]:
    scene = _Scene(dims=dims)
    stream = _Stream(method, scene.pair(0))
    stream.step(scene.pair(1).fixed, 1)
    first = stream.peek(scene.pair(2).fixed, 2)[1]
    stream.peek(scene.pair(0).fixed, 2)
    stream.forecast()
    apart = _apart(stream.peek(scene.pair(2).fixed, 2)[1], first)
    detail = f"at most {apart:.1e} voxels apart"
    text = f"state written to: stepping one state twice differs by up to {apart:.2g} voxels; return a new state"
    return detail, text if apart > SAME_VOXELS else ""


def _batch(method: SequenceModule, dims: int) -> tuple[str, str]:
    from reg_bench.types import collate_pairs

    scenes = (_Scene(dims=dims), _Scene(-1.0, 2, dims))
    alone = []
    for scene in scenes:
        stream = _Stream(method, scene.pair(0))
        alone.append([stream.step(scene.pair(k).fixed, k) for k in (1, 2)][-1])
    pairs = [collate_pairs([scene.pair(k) for scene in scenes]) for k in range(3)]
    together = _Stream(method, pairs[0])
    found = [together.step(pairs[k].fixed, k) for k in (1, 2)][-1]
    apart = _apart(found, torch.cat(alone))
    detail = f"at most {apart:.1e} voxels apart"
    return (
        detail,
        f"batch mixing: streams of a batch differ by up to {apart:.2g} voxels" if apart > BATCH_VOXELS else "",
    )


def _rms(u: Tensor) -> float:
    return float(u.square().sum(1).mean().sqrt())


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


_MOTION = "stream: the motion since the reference at every frame"
_MISSING = "stream: a missing frame keeps what was known"
# What fails as well where the fields are in another convention.
_OF_CONVENTION = (_MOTION, _MISSING)
_CHECKS: dict[str, Callable[[SequenceModule, int], tuple[str, str]]] = {
    _MOTION: _motion,
    "stream: duplicated frames give no motion": _duplicates,
    _MISSING: _missing,
    "stream: two interleaved streams equal each alone": _interleaved,
    "stream: one state stepped twice gives the same twice": _twice,
    "stream: a batch of two equals two streams": _batch,
}
