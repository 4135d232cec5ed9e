"""The loop over frames: order, what is given, what is kept, what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reg_bench.errors import ConfigError
from reg_bench.method import Estimate, InvalidFieldError, SequenceModule
from reg_bench.stream_conditions import condition_of, every_of
from reg_bench.stream_options import Streaming
from reg_bench.streaming import moments, run_stream, warm_up
from reg_bench.types import DisplacementField
from tests.fake_streams import FollowsCentre, moving_square


def test_streams_go_forward_from_the_reference_and_round_where_they_are_periodic() -> None:
    sequence = replace(moving_square([0, 1, 2, 3]), reference=2)
    assert moments(sequence, periodic=False) == [(3, 0.1, False)]
    found = moments(sequence, periodic=True)
    assert [(t, closing) for t, _, closing in found] == [(3, False), (0, False), (1, False), (2, True)]
    assert [time for _, time, _ in found] == pytest.approx([0.1, 0.2, 0.3, 0.4])


class Listens(SequenceModule):
    """Returns one tensor over and over, which it writes the time into; keeps what it was given."""

    def __init__(self, bad: Any = None) -> None:
        super().__init__()
        self.bad = bad
        self.given: list[tuple[float, bool]] = []
        self.mask: Tensor | None = None

    def start(self, reference: Tensor, *, seconds_per_frame: float, mask: Any = None, points: Any = None) -> Tensor:
        self.mask = mask
        return torch.zeros(1, 2, *reference.shape[2:])

    def step(self, state: Tensor, frame: Tensor | None, time_s: float) -> tuple[Tensor, Any]:
        self.given.append((round(time_s, 3), frame is not None))
        state.fill_(time_s)
        return state, Estimate(DisplacementField(state)) if self.bad is None else self.bad

    def forecast(self, state: Tensor, horizon_s: float) -> Estimate:
        return Estimate(DisplacementField(state + horizon_s))


def test_every_third_frame_is_given_and_every_estimate_is_kept() -> None:
    method = Listens()
    streamed = run_stream(method, moving_square([0] * 8), every=3, ahead=(1, 4), late=True)
    assert method.given == [(round(0.1 * k, 3), k % 3 == 0) for k in range(1, 8)]
    assert [s.given for s in streamed.steps] == [g for _, g in method.given]
    for step in streamed.steps:
        # Each is the field as it was, though the method writes over it and frees what it foretells.
        assert float(step.field.u.max()) == pytest.approx(step.time_s)
        assert float(step.ahead[1].u.min()) == pytest.approx(step.time_s + 0.1)
        assert float(step.ahead[4].u.min()) == pytest.approx(step.time_s + 0.4)
        assert (step.late is not None) == step.given
        if step.late is not None:
            assert float(step.late.u.min()) == pytest.approx(step.time_s + step.latency_s, abs=1e-6)
    assert method.mask is not None
    assert int(method.mask.sum()) == 48, "it looks where the labels of the reference are"


def test_a_field_that_is_held_is_kept_once() -> None:
    from reg_bench.discovery import build_method
    from reg_bench.pairs_as_sequence import as_stream

    sequence = moving_square([0, 1, 2])
    streamed = run_stream(as_stream(build_method("truth"), sequence), sequence, ahead=(1, 2))
    for step in streamed.steps:
        assert step.ahead[1].u is step.field.u
        assert float(step.field.u[0, 0, 0, 0]) == -step.frame


def test_the_closing_frame_is_the_reference_again() -> None:
    streamed = run_stream(FollowsCentre(), moving_square([0, 2, 1]), periodic=True, ahead=(1,))
    assert [(s.frame, s.closing, sorted(s.ahead)) for s in streamed.steps] == [
        (1, False, [1]),
        (2, False, [1]),
        (0, True, []),
    ]
    assert float(streamed.steps[-1].field.u.abs().max()) < 1e-5


def test_every_call_of_the_method_is_guarded() -> None:
    calls = []

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        calls.append(1)
        yield

    run_stream(Listens(), moving_square([0, 0, 0]), ahead=(1,), guard=guard)
    assert len(calls) == 1 + 2 * 2, "the start, and for both frames the step and the forecasts"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 2, 24, 20), "must return an Estimate, got Tensor"),
        (Estimate(DisplacementField(torch.zeros(1, 2, 24, 19))), r"sq0/001: the field has shape \(1, 2, 24, 19\)"),
        (Estimate(DisplacementField(torch.full((1, 2, 24, 20), float("nan")))), "sq0/001: the field holds 960 NaN"),
    ],
)
def test_answers_that_are_no_estimates_are_named_with_their_frame(bad: Any, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        run_stream(Listens(bad), moving_square([0, 1]))


def test_warm_up_cannot_write_into_the_frames() -> None:
    sequence = moving_square([0, 1, 2, 3, 4])
    before = sequence.frames.clone()
    method = FollowsCentre("write")
    warm_up(method, sequence, 3)
    assert method.calls == 3
    assert torch.equal(sequence.frames, before)


def test_conditions_have_names_and_are_read_back() -> None:
    names = [condition_of(n) for n in (1, 2, 3, 4, 11, 21, 112)]
    expected = [None, "every-2nd", "every-3rd", "every-4th", "every-11th", "every-21st", "every-112th"]
    assert names == expected
    assert [every_of(n) for n in names] == [1, 2, 3, 4, 11, 21, 112]
    with pytest.raises(ConfigError, match="got 'sometimes'"):
        every_of("sometimes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": ()}, "every"),
        ({"every": (2, 2)}, "every"),
        ({"every": (0,)}, "every"),
        ({"horizons_s": (0.2, 0.0)}, "horizons_s"),
        ({"budget_ms": 0.0}, "budget_ms"),
        ({"gate_mm": -1.0}, "gate_mm"),
        ({"pictures": 0}, "pictures"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"stream\.{message} must be"):
        Streaming(**options)
