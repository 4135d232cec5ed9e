"""Methods of pairs on streams and methods of sequences on pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reg_bench.discovery import build_method, build_module, find
from reg_bench.errors import ConfigError
from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.pairs_as_sequence import PairwiseStream, as_stream
from reg_bench.sequence_as_pairs import StreamOfOne, as_pairwise
from reg_bench.types import DisplacementField, RegistrationPair
from tests.fake_streams import SPACING_MM, FollowsCentre, moving_square


class Means(RegistrationModule):
    """A constant field: along axis 0 the mean of the frame; keeps the pairs that it saw."""

    name = "means"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[RegistrationPair] = []

    def register(self, pair: RegistrationPair) -> DisplacementField:
        self.seen.append(pair)
        u = torch.zeros(pair.batch_size, pair.dimension, *pair.spatial_shape)
        u[:, 0] = pair.fixed.mean(dim=(1, 2, 3))[:, None, None]
        return DisplacementField.for_pair(u, pair)


def frame(value: float, batch: int = 1) -> torch.Tensor:
    return torch.full((batch, 1, 4, 5), value)


def test_the_last_field_is_held_over_missing_frames_and_forecasts() -> None:
    stream = PairwiseStream(Means())
    state = stream.start(frame(0.5), seconds_per_frame=0.1)
    assert not stream.forecast(state, 1.0).field.u.any(), "nothing has moved before the first frame"
    state, estimate = stream.step(state, frame(2.0), 0.1)
    assert float(estimate.field.u[0, 0].mean()) == 2.0
    held, missing = stream.step(state, None, 0.2)
    assert held is state
    assert torch.equal(missing.field.u, estimate.field.u)
    assert torch.equal(stream.forecast(state, 3.0).field.u, estimate.field.u)


def test_constant_velocity_goes_on_as_between_the_last_two_fields() -> None:
    """From 2 at 0.1 s to 3 at 0.3 s: 5 a second, so 4 at 0.5 s, by hand."""
    stream = PairwiseStream(Means(), "velocity")
    state = stream.start(frame(0.0, 2), seconds_per_frame=0.1)
    state, _ = stream.step(state, frame(2.0, 2), 0.1)
    state, _ = stream.step(state, None, 0.2)
    state, estimate = stream.step(state, frame(3.0, 2), 0.3)
    assert float(estimate.field.u[1, 0, 2, 2]) == 3.0
    torch.testing.assert_close(stream.forecast(state, 0.2).field.u[:, 0], torch.full((2, 4, 5), 4.0))
    torch.testing.assert_close(stream.step(state, None, 0.5)[1].field.u[:, 0], torch.full((2, 4, 5), 4.0))


def test_what_is_known_of_the_sequence_reaches_the_method() -> None:
    sequence, method = moving_square([0, 1, 2, 3]), Means()
    stream = as_stream(method, sequence)
    state = stream.start(sequence.frames[:, 0], seconds_per_frame=0.1)
    state, _ = stream.step(state, None, 0.1)
    _, estimate = stream.step(state, sequence.frames[:, 2] + 1.0, 0.2)
    (pair,) = method.seen
    assert pair.case_ids == ("sq0/002",)
    assert torch.equal(pair.fixed, sequence.frames[:, 2] + 1.0), "the frame is the streamed one"
    assert pair.true_displacement is not None
    assert float(pair.true_displacement[0, 0].mean()) == -2.0
    assert estimate.field.spacing_mm is not None
    assert estimate.field.spacing_mm.tolist() == [list(SPACING_MM)]


def test_methods_stay_what_they_are() -> None:
    pairwise, stream = Means(), FollowsCentre()
    assert as_pairwise(pairwise) is pairwise
    assert as_stream(stream) is stream


def test_a_stream_of_one_frame_pulls_the_moving_image_onto_the_fixed_one(tmp_path: Path) -> None:
    pair = moving_square([0, 3]).pair(1)
    journal = tmp_path / "journal"
    field = StreamOfOne(FollowsCentre(journal=str(journal)))(pair)
    torch.testing.assert_close(field.warp(pair.moving), pair.fixed)
    assert journal.read_text().splitlines()[0] == "start mask=48", "it looks where the moving labels are"
    assert field.spacing_mm is pair.fixed_spacing_mm


def test_batches_pass_through() -> None:
    from reg_bench.types import collate_pairs

    pairs = [moving_square([0, 3], "a").pair(1), moving_square([0, 1], "b").pair(1)]
    field = StreamOfOne(FollowsCentre())(collate_pairs(pairs))
    torch.testing.assert_close(field.u[:, 0, 0, 0], torch.tensor([-3.0, -1.0]))


class Needy(FollowsCentre):
    needs = ("true_displacement",)
    dimensions = (2,)


def test_reasons_to_skip_pass_through() -> None:
    pair = moving_square([0, 3]).pair(1)
    method = StreamOfOne(Needy())
    assert method.accepts(pair) is None
    assert "needs true_displacement" in str(method.accepts(replace(pair, true_displacement=None)))
    smaller = RegistrationPair(("p",), fixed=pair.fixed, moving=pair.moving[..., 1:, :])
    assert "Needy follows frames of one grid, not (23, 20) to (24, 20)" in str(method.accepts(smaller))
    volume = torch.zeros(1, 1, 4, 4, 4)
    assert "registers 2-D, not 3-D" in str(method.accepts(RegistrationPair(("p",), volume, volume)))
    truth = PairwiseStream(build_method("truth"))
    assert truth.accepts(moving_square([0, 1])) is None
    unknown = replace(moving_square([0, 1]), true_displacement=None)
    assert "needs true_displacement" in str(truth.accepts(unknown))


def test_discovery_knows_methods_of_sequences() -> None:
    member = find("methods", "no-motion")
    assert member.accepts["takes"] == "sequences"
    assert member.accepts["dimensions"] == (2, 3)
    assert find("methods", "hold-last").accepts["takes"] == "sequences"
    assert find("methods", "demons").accepts["takes"] == "pairs"
    assert isinstance(build_module("no-motion"), SequenceModule)
    assert isinstance(build_method("no-motion"), RegistrationModule)
    held = build_module({"class_path": "hold-last", "init_args": {"method": {"class_path": "identity"}}})
    assert isinstance(held, SequenceModule)
    with pytest.raises(ConfigError, match="hodl"):
        build_module({"class_path": "hold-last", "init_args": {"forecast": "hodl"}})


def test_naive_forecasts_are_what_they_say() -> None:
    sequence = moving_square([0, 1, 2, 3])
    frames = [sequence.frames[:, t] for t in range(4)]
    velocity = build_module("constant-velocity")
    still = build_module("no-motion")
    state, nothing = velocity.start(frames[0], seconds_per_frame=0.1), still.start(frames[0], seconds_per_frame=0.1)
    found = []
    for t in (1, 2):
        state, estimate = velocity.step(state, frames[t], 0.1 * t)
        nothing, zero = still.step(nothing, frames[t], 0.1 * t)
        assert not zero.field.u.any()
        found.append(estimate.field.u)
    ahead = velocity.forecast(state, 0.1).field.u
    torch.testing.assert_close(ahead, 2 * found[1] - found[0], atol=1e-4, rtol=1e-4)
    assert not still.forecast(nothing, 1.0).field.u.any()
    assert velocity.accepts(sequence) is None
    assert velocity.software() == {}


def test_methods_of_sequences_join_those_of_pairs() -> None:
    pair = moving_square([0, 3]).pair(1)
    joined = build_method("identity+hold-last")
    torch.testing.assert_close(joined(pair).u, build_method("lucas-kanade")(replace(pair, fixed_spacing_mm=None)).u)
    assert not build_method("no-motion+identity")(pair).u.any()
