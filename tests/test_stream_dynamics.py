"""Frames hidden at the end, frames imputed offline, and calibration: of contours and of latent variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.errors import ConfigError
from reg_bench.latent_courses import LatentCourse, latent_values
from reg_bench.method import Estimate, InvalidFieldError, RegistrationModule
from reg_bench.pairs_as_sequence import PairwiseStream
from reg_bench.stream_calibration import calibration_values, outline, signed_distance
from reg_bench.stream_conditions import Condition, condition_named
from reg_bench.stream_options import Streaming
from reg_bench.stream_scores import stream_values
from reg_bench.streaming import Spread, Step, Streamed, run_offline, run_stream
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair
from tests.fake_streams import SIZE, FollowsCentre, moving_square


class Centres(RegistrationModule):
    """By how much the bright square is further down, everywhere; remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def register(self, pair: RegistrationPair) -> DisplacementField:
        self.asked += pair.case_ids
        rows = torch.arange(SIZE[0], dtype=torch.float32)[:, None]
        places = [((i > 0.5) * rows).sum((2, 3)) / (i > 0.5).sum((2, 3)) for i in (pair.fixed, pair.moving)]
        u = torch.zeros(pair.batch_size, 2, *SIZE)
        u[:, 0] = (places[1] - places[0])[:, :, None]
        return DisplacementField(u)


class Sure(FollowsCentre):
    """Says how sure it is; asked for it, of the time ahead as well."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std, self.horizons = std, list[float]()

    def uncertain(self, state: Any, horizon_s: float) -> Estimate:
        self.horizons.append(round(horizon_s, 6))
        estimate = self.forecast(state, horizon_s)
        return replace(estimate, std=torch.full_like(estimate.field.u, self.std * (1 + horizon_s)))


def by_name(values: list[dict[str, Any]], metric: str) -> dict[tuple[Any, Any], float]:
    return {(v["frame"], v["horizon_s"]): v["value"] for v in values if v["metric"] == metric}


def test_conditions_have_names_and_names_conditions() -> None:
    conditions = [
        *(Condition(every=n) for n in (1, 2, 3, 11)),
        *(Condition(hidden=n) for n in (5, 10)),
        *(Condition(every=n, offline=True) for n in (1, 2, 23)),
    ]
    names = [None, "every-2nd", "every-3rd", "every-11th", "last-5-hidden", "last-10-hidden"]
    assert [c.name for c in conditions] == [*names, "smoothed", "imputed-2nd", "imputed-23rd"]
    assert [condition_named(c.name) for c in conditions] == conditions
    for name in ("imputed", "last-hidden", "every-2", "last-5-hidden-x", ""):
        with pytest.raises(ConfigError, match="condition must be like"):
            condition_named(name)
    options = Streaming(every=(1, 3), hidden=(5,), imputed=(1, 2))
    assert options.conditions == (None, "every-3rd", "last-5-hidden", "smoothed", "imputed-2nd")
    for wrong in ({"hidden": (0,)}, {"hidden": (5, 5)}, {"imputed": (0, 2)}):
        with pytest.raises(ConfigError, match=f"stream.{next(iter(wrong))}"):
            Streaming(**wrong)


def test_old_results_count_where_nothing_is_calibrated() -> None:
    plain = Streaming(horizons_s=(0.1,))
    assert "calibration" not in plain.content()
    assert replace(plain, hidden=(5,), imputed=(2,)).content() == plain.content()
    assert replace(plain, calibration=True).content() != plain.content()


def test_hidden_frames_are_not_given_and_they_alone_are_scored() -> None:
    sequence = moving_square(range(8))
    streamed = run_stream(FollowsCentre(), sequence, hidden=3)
    assert [s.given for s in streamed.steps] == [True] * 4 + [False] * 3
    values = stream_values(sequence, streamed, Streaming(), condition=Condition(hidden=3))
    assert {frame for frame, _ in by_name(values, "dice")} == {5, 6, 7}
    # It goes on at constant velocity, which is right.
    assert max(by_name(values, "end_point_error").values()) < 1e-3
    # Held it is one, two and three pixels of 2 mm behind.
    still = run_stream(PairwiseStream(Centres()), sequence, hidden=3)
    values = stream_values(sequence, still, Streaming(), condition=Condition(hidden=3))
    assert list(by_name(values, "end_point_error").values()) == pytest.approx([2.0, 4.0, 6.0], abs=1e-4)


def test_a_method_of_pairs_imputes_linearly_between_the_frames_that_are_there() -> None:
    method = Centres()
    sequence = moving_square([0, 1, 2, 3, 5, 7, 9])
    streamed = run_offline(PairwiseStream(method, about=sequence), sequence, every=3)
    assert method.asked == ["sq0/003", "sq0/006"]
    assert [s.given for s in streamed.steps] == [False, False, True, False, False, True]
    down = [float(-s.field.u[0, 0, 0, 0]) for s in streamed.steps]
    assert down == pytest.approx([1, 2, 3, 5, 7, 9], abs=1e-4)
    # After the last frame that is there its field is held.
    held = run_offline(PairwiseStream(Centres()), sequence, every=4)
    assert [float(-s.field.u[0, 0, 0, 0]) for s in held.steps][3:] == pytest.approx([5, 5, 5], abs=1e-4)
    values = stream_values(sequence, streamed, Streaming(), condition=Condition(3, offline=True))
    assert not any(v["metric"].startswith("latency") for v in values)
    assert {frame for frame, _ in by_name(values, "dice")} == {1, 2, 3, 4, 5, 6}


def test_what_is_not_observed_is_not_shown() -> None:
    class Looks(FollowsCentre):
        def smooth(self, frames: Tensor, observed: Tensor | None = None) -> list[Estimate]:
            self.seen, self.observed = frames, observed
            return [Estimate(DisplacementField(torch.zeros(1, 2, *SIZE)))] * (frames.shape[1] - self.less)

        less = 0

    sequence = moving_square(range(6))
    before = sequence.frames.clone()
    method = Looks()
    run_offline(method, sequence, every=2)
    assert method.observed.tolist() == [[True, False, True, False, True, False]]
    assert float(method.seen[:, 1::2].abs().max()) == 0.0
    assert torch.equal(method.seen[:, ::2], sequence.frames[:, ::2])
    assert torch.equal(sequence.frames, before)
    method.less = 1
    with pytest.raises(InvalidFieldError, match="sq0: smooth returned 5 estimates of 6 frames"):
        run_offline(method, sequence)


def test_a_method_that_cannot_look_ahead_gives_its_stream() -> None:
    sequence = moving_square(range(6))
    one, other = run_offline(FollowsCentre(), sequence, every=2), run_stream(FollowsCentre(), sequence, every=2)
    assert [s.given for s in one.steps] == [s.given for s in other.steps]
    for a, b in zip(one.steps, other.steps, strict=True):
        assert torch.equal(a.field.u, b.field.u)


def test_a_method_is_asked_now_and_then_how_sure_it_is() -> None:
    method = Sure(0.5)
    streamed = run_stream(method, moving_square(range(7)), ahead=(1, 2), spread_every=2)
    assert [sorted(s.spread) for s in streamed.steps] == [[], [0, 1, 2], [], [0, 1, 2], [], [0, 1, 2]]
    assert method.horizons == [0.0, 0.1, 0.2] * 3
    assert float(streamed.steps[1].spread[2].std.max()) == pytest.approx(0.6)
    assert not run_stream(FollowsCentre(), moving_square(range(7)), spread_every=1).steps[1].spread


def normal_steps(sequence: ImageSequence, std: float, said: float, seed: int = 0) -> list[Step]:
    """Fields that miss the truth by one normal vector each, and say that its parts have a deviation of `said`."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for t in range(1, sequence.length):
        u = sequence.true_displacement[:, t] + std * torch.randn(1, 2, 1, 1, generator=generator)
        spread = {0: Spread(u, torch.full_like(u, said))}
        steps.append(Step(t, 0.1 * t, True, False, DisplacementField(u), 0.0, spread=spread))
    return steps


@pytest.mark.parametrize(("said", "expected"), [(0.4, (0.5, 0.95)), (0.2, (0.26, 0.67)), (0.8, (0.82, 1.0))])
@pytest.mark.parametrize("known", [True, False])
def test_coverage_is_that_of_a_normal_distribution(said: float, expected: tuple[float, float], known: bool) -> None:
    sequence = moving_square([0] * 300)
    steps = normal_steps(sequence, 0.4, said)
    if not known:
        sequence = replace(sequence, true_displacement=None)
    values = calibration_values(sequence, steps)
    for name, share in zip(("coverage_50", "coverage_95"), expected, strict=True):
        # The corners of the square are no straight contour.
        assert by_name(values, name)[None, None] == pytest.approx(share, abs=0.05)
    assert by_name(values, "contour_std")[None, None] == pytest.approx(said, rel=0.02)
    errors = by_name(values, "contour_error")
    assert len(errors) == 299
    assert np.mean(list(errors.values())) == pytest.approx(0.4 * np.sqrt(2 / np.pi), rel=0.12)


def test_forecasts_are_calibrated_where_they_come_true() -> None:
    sequence = moving_square([0, 1, 2, 3, 4, 5])
    streamed = run_stream(Sure(0.5), sequence, ahead=(2,), spread_every=1)
    values = calibration_values(sequence, streamed.steps)
    assert by_name(values, "coverage_95")[None, 0.2] > 0.7
    assert by_name(values, "contour_std")[None, 0.2] == pytest.approx(0.6, rel=1e-3)
    told = stream_values(sequence, streamed, Streaming(calibration=True))
    assert "contour_error" in {v["metric"] for v in told}
    assert by_name(told, "coverage_50")
    unlabelled = replace(sequence, labels=None, labelled_frames=None)
    assert calibration_values(unlabelled, streamed.steps) == []


def test_distances_to_an_outline() -> None:
    yy, xx = np.mgrid[:41, :41]
    mask = np.hypot(yy - 20, xx - 20) < 12.5
    distance = signed_distance(mask)
    assert distance[20, 20] == pytest.approx(12.5, abs=0.6)
    assert distance[20, 38] == pytest.approx(-5.5, abs=0.1)
    points = outline(mask)
    assert np.hypot(*(points - 20).T) == pytest.approx(12.5, abs=0.8)
    assert len(points) == pytest.approx(8 * 12.5, abs=8)


def test_latent_coverage_counts_what_was_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4000, 3, generator=generator)
    observed = torch.arange(4000).expand(2, -1) % 2 == 0
    # Right where nothing was observed, far too sure where something was.
    std = torch.where(observed, 0.01, 1.0)[..., None].expand_as(x)
    zero = torch.zeros_like(x)
    course = LatentCourse(x, {"smoothed": zero, "predicted": zero}, {"smoothed": std, "predicted": std}, observed)
    smoothed = by_name(latent_values(course, "smoothed"), "latent_coverage_50")
    assert smoothed[None, None] == pytest.approx(0.5, abs=0.02)
    wide = by_name(latent_values(course, "smoothed"), "latent_coverage_95")
    assert wide[None, None] == pytest.approx(0.95, abs=0.01)
    assert by_name(latent_values(course, "predicted"), "latent_coverage_95")[None, None] < 0.6
    assert latent_values(course, "filtered") == []
    seen = replace(course, observed=torch.ones_like(observed))
    assert latent_values(seen, "smoothed") == []


def test_errors_count_where_there_are_labels_if_so_asked() -> None:
    sequence = moving_square([0, 1, 2])
    # Wrong by 3 in the square, by 10 elsewhere.
    steps = []
    for t in (1, 2):
        wrong = torch.where(sequence.labels_of(t) != 0, 3.0, 10.0)
        u = sequence.true_displacement[:, t] + torch.cat([torch.zeros_like(wrong), wrong], dim=1)
        steps.append(Step(t, 0.1 * t, True, False, DisplacementField(u), 0.0))
    streamed = Streamed(0.0, tuple(steps), 0.0, 0.0)
    everywhere = by_name(stream_values(sequence, streamed, Streaming()), "end_point_error")
    inside = stream_values(sequence, streamed, Streaming(region="labels"))
    assert list(by_name(inside, "end_point_error").values()) == pytest.approx([3.0, 3.0])
    assert min(everywhere.values()) > 8
    assert by_name(inside, "dice").keys() == {(1, None), (2, None)}
    unlabelled = replace(sequence, labels=sequence.labels[:, :1], labelled_frames=(0,))
    assert by_name(stream_values(unlabelled, streamed, Streaming(region="labels")), "end_point_error") == {}
    assert "region" not in Streaming().content()
    assert Streaming(region="labels").content()["region"] == "labels"
