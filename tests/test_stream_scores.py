"""The values of streams, by hand on squares whose motion is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from reg_bench.discovery import build_method
from reg_bench.errors import ConfigError
from reg_bench.metrics import score
from reg_bench.metrics.label_maps import warp_linear
from reg_bench.pairs_as_sequence import as_stream
from reg_bench.stream_options import Streaming
from reg_bench.stream_scores import frames_ahead, latency_values, stream_values
from reg_bench.stream_target import centroid
from reg_bench.streaming import Step, Streamed, run_stream
from reg_bench.types import DisplacementField, ImageSequence
from tests.fake_streams import SIZE, FollowsCentre, moving_square


def values(
    method: str | FollowsCentre, sequence: ImageSequence, options: Streaming | None = None, every: int = 1, **more: Any
) -> list[dict[str, Any]]:
    options = options or Streaming()
    built = as_stream(build_method(method) if isinstance(method, str) else method, sequence)
    ahead = frames_ahead(options, sequence)
    streamed = run_stream(
        built,
        sequence,
        every=every,
        ahead=ahead,
        late=options.target is not None,
        periodic=options.periodic,
    )
    return stream_values(sequence, streamed, options, **more)


def pick(found: list[dict[str, Any]], metric: str, **wanted: Any) -> list[Any]:
    wanted = {"label": "all", "profile": "strict", "horizon_s": None, **wanted}
    return [v["value"] for v in found if v["metric"] == metric and all(v[k] == w for k, w in wanted.items())]


def test_accuracy_over_time_is_that_of_the_pairs() -> None:
    """No motion: a square six pixels long that is s pixels further overlaps by (6 - s) / 6; a pixel is 2 mm."""
    sequence = moving_square([0, 1, 2, 3])
    found = values("identity", sequence)
    assert pick(found, "dice") == pytest.approx([5 / 6, 4 / 6, 3 / 6])
    assert pick(found, "dice", label="square") == pytest.approx([5 / 6, 4 / 6, 3 / 6]), "labels go by their names"
    assert pick(found, "end_point_error") == pytest.approx([2, 4, 6])
    assert pick(found, "tre_landmarks") == pytest.approx([2, 4, 6])
    assert [v["frame"] for v in found if v["metric"] == "end_point_error"] == [1, 2, 3]
    assert pick(found, "drift") == pytest.approx([20.0]), "2 mm in 0.1 s"
    assert pick(found, "nonpositive_fraction") == [0.0, 0.0, 0.0]
    (unit,) = {v["unit"] for v in found if v["metric"] == "drift"}
    assert unit == "mm/s"


def test_frames_without_labels_have_no_dice_and_points_may_be_missing() -> None:
    sequence = moving_square([0, 1, 2, 3], labelled=[0, 2])
    points = sequence.points["landmarks"][0].clone()
    points[1], points[2, 0] = float("nan"), float("nan")
    points[2, 1, 0] += 1.0
    found = values("truth", replace(sequence, points={"landmarks": (points,)}))
    assert [(v["frame"], v["value"]) for v in found if v["metric"] == "dice" and v["label"] == "all"] == [(2, 1.0)]
    tre = [(v["frame"], v["value"]) for v in found if v["metric"] == "tre_landmarks"]
    assert tre == [(2, pytest.approx(2.0)), (3, pytest.approx(0.0))]


def test_dropped_frames_are_scored_all_the_same() -> None:
    sequence = moving_square([0, 1, 2, 3, 4])
    assert pick(values("truth", sequence, every=2), "end_point_error") == pytest.approx([2, 0, 2, 0])
    going_on = pick(values(FollowsCentre(), sequence, every=2), "end_point_error")
    assert going_on == pytest.approx([2, 0, 0, 0], abs=1e-4), "after two frames the speed is known"


def test_forecasts_beside_the_last_field_held() -> None:
    """At two pixels, 4 mm, a frame: held three frames long it lies 12 mm behind, constant velocity is right."""
    sequence = moving_square([0, 2, 4, 6, 8])
    options = Streaming(horizons_s=(0.1, 0.29, 0.3))
    assert frames_ahead(options, sequence) == [1, 3]
    found = values(FollowsCentre(), sequence, options)
    assert pick(found, "end_point_error", horizon_s=0.3) == pytest.approx([0], abs=1e-4)
    assert pick(found, "end_point_error_hold", horizon_s=0.1) == pytest.approx([4])
    assert pick(found, "end_point_error_hold", horizon_s=0.3) == pytest.approx([12])
    assert pick(found, "dice", horizon_s=0.1) == [1.0]
    assert pick(found, "dice_hold", horizon_s=0.1) == pytest.approx([4 / 6])
    assert not pick(found, "sdlogj", horizon_s=0.1)
    assert all(v["frame"] is None for v in found if v["horizon_s"] is not None), "a mean over the frames"


def test_closure_is_the_field_where_the_reference_comes_again() -> None:
    sequence = moving_square([0, 2, 1])
    found = values(FollowsCentre(), sequence, Streaming(periodic=True))
    assert pick(found, "closure_error", frame=0) == pytest.approx([0], abs=1e-5)
    assert [v["frame"] for v in found if v["metric"] == "end_point_error"] == [1, 2], "scored as closure alone"
    lost = torch.zeros(1, 2, *SIZE)
    lost[0, 0, :9], lost[0, 1, :9] = 3.0, 4.0
    field = DisplacementField(lost)
    streamed = Streamed(0.0, (Step(0, 0.3, True, True, field, 0.01),), 0.0, 0.0)
    (closing,) = [v for v in stream_values(sequence, streamed, Streaming()) if v["metric"] == "closure_error"]
    assert closing["value"] == pytest.approx(2.5), "half of the square lies where the field is five pixels long"
    assert closing["unit"] == "voxel"


def test_the_target_its_gate_and_what_the_latency_costs() -> None:
    """The target leaves the gate of 3 mm with its second pixel; no motion keeps it inside for ever."""
    sequence = moving_square([0, 1, 2, 3, 2])
    options = Streaming(target="square", horizons_s=(0.1,))
    found = values("identity", sequence, options)
    assert pick(found, "target_error", horizon_s=None) == pytest.approx([2, 4, 6, 4])
    assert pick(found, "target_error_p95") == pytest.approx([float(np.quantile([2, 4, 6, 4], 0.95))])
    assert pick(found, "gate_right") == [0.25]
    assert pick(values("truth", sequence, options), "gate_right") == [1.0]
    assert pick(values("truth", sequence, options), "target_error_hold", horizon_s=0.1) == pytest.approx([2])
    wide = values("identity", sequence, Streaming(target="square", gate_mm=6.5))
    assert pick(wide, "gate_right") == [1.0]


def test_latency_is_added_by_looking_at_where_the_target_is_by_then() -> None:
    """An estimate 0.05 s late, of a target at 20 mm/s, is 1 mm behind; the forecast over that time is not."""
    sequence = moving_square([0, 1, 2])

    def constant(shift: float) -> DisplacementField:
        u = torch.zeros(1, 2, *SIZE)
        u[:, 0] = -shift
        return DisplacementField(u)

    steps = tuple(Step(t, 0.1 * t, True, False, constant(t), 0.05, constant(t + 0.5), {}) for t in (1, 2))
    found = stream_values(sequence, Streamed(0.0, steps, 0.0, 0.0), Streaming(target="square"))
    assert pick(found, "target_error_late_hold") == pytest.approx([1.0])
    assert pick(found, "target_error_late") == pytest.approx([0.0], abs=1e-5)
    assert len(pick(found, "target_error")) == 2, "after the last frame nobody knows where the target is"


def test_a_target_that_is_warped_away_is_null() -> None:
    sequence = moving_square([0, 1])
    away = DisplacementField(torch.full((1, 2, *SIZE), 100.0))
    streamed = Streamed(0.0, (Step(1, 0.1, True, False, away, 0.01, away, {}),), 0.0, 0.0)
    found = stream_values(sequence, streamed, Streaming(target="square"))
    assert pick(found, "target_error") == [None]
    assert pick(found, "target_error_p95") == [None]
    assert pick(found, "gate_right") == [0.0]


def test_a_target_that_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigError, match="has no label 'tumour'; it has square"):
        values("identity", moving_square([0, 1]), Streaming(target="tumour"))


def test_centroid_is_that_of_scipy() -> None:
    weights = torch.rand(1, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(centroid(weights), ndimage.center_of_mass(weights[0, 0].double().numpy()), atol=1e-9)
    assert centroid(torch.zeros(1, 1, 3, 3)) is None


def test_latencies_by_hand() -> None:
    still = DisplacementField(torch.zeros(1, 2, *SIZE))
    seconds = [0.5, 0.1, 0.3, 0.2]
    steps = tuple(Step(t, 0.1 * t, t != 3, False, still, s) for t, s in enumerate(seconds, start=1))
    found = latency_values(Streamed(1.0, steps, 0.0, 0.0), budget_ms=150.0)
    assert pick(found, "latency") == pytest.approx([500, 100, 200]), "of the frames that were given"
    assert pick(found, "latency_first") == pytest.approx([1500]), "reference and first frame"
    assert pick(found, "latency_median") == pytest.approx([150])
    assert pick(found, "latency_p95") == pytest.approx([195])
    assert pick(found, "within_budget") == [0.5]


@pytest.mark.parametrize("shape", [(9, 7), (6, 5, 4)])
def test_linear_masks_are_those_of_scipy(shape: tuple[int, ...]) -> None:
    """SciPy: each label as a mask of its own, linear, 0 at places outside, above one half."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    u = rng.normal(0, 0.8, (len(shape), *shape))
    expected = np.zeros_like(labels)
    places = np.indices(shape) + u
    for label in (1, 2, 3):
        soft = ndimage.map_coordinates((labels == label).astype(float), places, order=1, mode="constant")
        expected[soft > 0.5] = label
    np.testing.assert_array_equal(warp_linear(labels, torch.from_numpy(u)[None]), expected)


def test_the_task_says_how_labels_are_warped() -> None:
    """A square half a pixel off: nearest keeps six rows, linear masks keep the five that are above one half."""
    sequence = moving_square([0, 0])
    u = torch.zeros(1, 2, *SIZE)
    u[:, 0] = 0.4
    streamed = Streamed(0.0, (Step(1, 0.1, True, False, DisplacementField(u), 0.01),), 0.0, 0.0)
    for interpolation in ("nearest", "linear"):
        (dice,) = pick(stream_values(sequence, streamed, Streaming(labels=interpolation)), "dice")
        assert dice == 1.0
    u[:, 0] = 0.5
    by = {i: pick(stream_values(sequence, streamed, Streaming(labels=i)), "dice") for i in ("nearest", "linear")}
    assert by["nearest"] == pytest.approx([2 * 40 / 96])
    assert by["linear"] == pytest.approx([2 * 40 / 88])
    with pytest.raises(ConfigError, match="nearest neighbour, not linearly"):
        score(sequence.pair(1), DisplacementField(u), label_interpolation="linear")
    with pytest.raises(ValueError, match="label_interpolation must be"):
        score(sequence.pair(1), DisplacementField(u), label_interpolation="cubic")
