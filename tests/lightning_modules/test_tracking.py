"""Registration by tracking as a stream: direction, confidence, missing frames, forecasts, recovery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.tracking import Tracking
from reg_bench.discovery import build_module
from reg_bench.field import sample, warp
from reg_bench.sparse_to_dense import NormalizedConvolution, ThinPlateInterpolation
from reg_bench.synthesis_heart import HeartConfig, heart_sequence
from reg_bench.tracking import CorrelationFilterTracker, EcoTracker, MaskDensity, PointTracker, Tracks
from reg_bench.types import ImageSequence


class Scripted(PointTracker):
    """Moves all points by a given step each frame, and loses those it is told to lose."""

    def __init__(self, step: tuple[float, float], lost: tuple[int, ...] = (), jump: float = 0.0) -> None:
        super().__init__()
        self.by, self.lost, self.jump = step, list(lost), jump
        self.asked: list[tuple[list[int], bool]] = []

    def start(self, reference: Tensor, points: Tensor) -> Tensor:
        return points

    def step(self, state: Tensor, frame: Tensor, expected: Tensor | None = None) -> tuple[Tensor, Tracks]:
        start = state if expected is None else expected
        positions = start + start.new_tensor(self.by) * (expected is None)
        confidence = torch.ones_like(positions[..., 0])
        positions[:, self.lost] += self.jump
        return positions, Tracks(positions, confidence)

    def moved(self, state: Tensor, which: Tensor, positions: Tensor, relearn: bool) -> Tensor:
        self.asked.append((which[0].nonzero().flatten().tolist(), relearn))
        return torch.where(which[..., None], positions, state)


def heart(seed: int, length: int = 8, motion: float = 8.0) -> ImageSequence:
    return heart_sequence(HeartConfig(size=(128, 128), length=length, max_motion=motion), seed=seed, case_id="heart")


def blank(batch: int = 1, number: int = 0) -> Tensor:
    """Frame `number` of a stream without content; frames are told apart by one pixel."""
    frame = torch.zeros(batch, 1, 60, 80)
    frame[..., 0, 0] = number
    return frame


def test_direction_is_reference_less_frame() -> None:
    method = Tracking(MaskDensity(40), Scripted((2.0, -3.0)))
    state = method.start(blank(2), seconds_per_frame=0.1)
    state, first = method.step(state, blank(2, 1), 0.1)
    expected = torch.tensor([-2.0, 3.0])[None, :, None, None].expand(2, 2, 60, 80)
    torch.testing.assert_close(first.field.u, expected, atol=1e-3, rtol=0)
    state, second = method.step(state, blank(2, 2), 0.2)
    torch.testing.assert_close(second.field.u, 2 * expected, atol=1e-3, rtol=0)


def test_forecasts_carry_on_also_over_missing_frames() -> None:
    unit = torch.tensor([-2.0, 3.0])[None, :, None, None].expand(1, 2, 60, 80)
    for missing, bridged in (("hold", 1.0), ("velocity", 2.0)):
        method = Tracking(MaskDensity(40), Scripted((2.0, -3.0)), missing=missing)  # type: ignore[arg-type]
        state = method.start(blank(), seconds_per_frame=0.1)
        assert method.forecast(state, 0.3).field.u.abs().max() == 0
        state, _ = method.step(state, blank(1, 1), 0.1)
        torch.testing.assert_close(method.forecast(state, 0.2).field.u, 3 * unit, atol=1e-2, rtol=0)
        after, estimate = method.step(state, None, 0.2)
        torch.testing.assert_close(estimate.field.u, bridged * unit, atol=1e-2, rtol=0)
        torch.testing.assert_close(method.forecast(after, 0.1).field.u, 3 * unit, atol=1e-2, rtol=0)
        assert after.tracker is state.tracker


def test_points_that_leave_their_neighbours_are_not_believed() -> None:
    method = Tracking(MaskDensity(60), Scripted((1.0, 1.0), lost=(4, 9), jump=15.0))
    state, estimate = method.step(method.start(blank(), seconds_per_frame=0.1), blank(1, 1), 0.1)
    assert state.confidence[0, [4, 9]].max() < 0.05
    assert state.confidence[0].median() > 0.9
    assert (estimate.field.u + 1).abs().mean() < 0.25
    trusting = Tracking(MaskDensity(60), Scripted((1.0, 1.0), lost=(4, 9), jump=15.0), neighbours=0)
    _, dragged = trusting.step(trusting.start(blank(), seconds_per_frame=0.1), blank(1, 1), 0.1)
    assert (dragged.field.u + 1).abs().mean() > 0.3


@pytest.mark.parametrize("recovery", ["off", "redetect", "reset"])
def test_recovery_is_for_points_that_were_doubted_long_enough(recovery: str) -> None:
    tracker = Scripted((1.0, 0.0), lost=(4,), jump=20.0)
    method = Tracking(MaskDensity(60), tracker, recovery=recovery, patience=2)  # type: ignore[arg-type]
    state = method.start(blank(), seconds_per_frame=0.1)
    state, _ = method.step(state, blank(1, 1), 0.1)
    assert tracker.asked == []
    state, _ = method.step(state, blank(1, 2), 0.2)
    assert tracker.asked == ([] if recovery == "off" else [([4], recovery == "reset")])
    if recovery != "off":
        assert (state.positions[0, 4] - state.points[0, 4] - torch.tensor([2.0, 0.0])).norm() < 1.0
        assert state.doubtful[0, 4] == 0


def test_prediction_moves_the_search() -> None:
    method = Tracking(MaskDensity(40), Scripted((2.0, 0.0)), predict=True)
    state = method.start(blank(), seconds_per_frame=0.1)
    state = replace(state, velocity=torch.ones_like(state.points) * 30.0)
    state, _ = method.step(state, blank(1, 1), 0.1)
    torch.testing.assert_close(state.positions, state.points + 3.0)


def test_a_heart_is_followed_and_its_labels_fit() -> None:
    sequence = heart(5)
    assert sequence.labels is not None
    assert sequence.true_displacement is not None
    method = Tracking(MaskDensity(80))
    mask = sequence.labels[:, 0] > 0
    state = method.start(sequence.frames[:, 0], seconds_per_frame=0.09, mask=mask)
    shares = []
    with torch.inference_mode():
        for t in range(1, sequence.length):
            state, estimate = method.step(state, sequence.frames[:, t], 0.09 * t)
            moved = warp(sequence.labels[:, 0].float(), estimate.field.u, mode="nearest") == 2
            there = sequence.labels[:, t] == 2
            shares.append(2 * (moved & there).sum().item() / (moved.sum() + there.sum()).item())
    assert np.mean(shares) > 0.93
    truth = sample(sequence.true_displacement[:, -1], state.positions)
    inside = sample(mask.float(), state.points)[0, :, 0] > 0
    assert (truth - (state.points - state.positions))[0, inside].norm(dim=1).median() < 0.5


def test_brightness_and_gain_make_little_difference() -> None:
    sequence = heart(6, length=3)
    method, fields = Tracking(MaskDensity(30), CorrelationFilterTracker(augmentations=[])), []
    for gain in (1.0, 400.0):
        frames = sequence.frames * gain
        state = method.start(frames[:, 0], seconds_per_frame=0.09)
        fields.append(method.step(state, frames[:, 2], 0.18)[1].field.u)
    assert (fields[0] - fields[1]).abs().max() < 0.02


@pytest.mark.parametrize("tracker", [CorrelationFilterTracker, EcoTracker])
def test_repeated_frames_move_and_teach_nothing(tracker: type[CorrelationFilterTracker | EcoTracker]) -> None:
    sequence = heart(7, length=3)
    method = Tracking(MaskDensity(20), tracker(augmentations=[]))
    both = torch.cat((sequence.frames, sequence.frames.flip(-1)))
    with torch.inference_mode():
        state = method.start(both[:, 0], seconds_per_frame=0.09)
        first, moved = method.step(state, both[:, 1], 0.09)
        again, same = method.step(first, both[:, 1], 0.18)
        assert torch.equal(moved.field.u, same.field.u)
        mixed = torch.stack((both[0, 1], both[1, 2]))
        _, half = method.step(again, mixed, 0.27)
        assert torch.equal(half.field.u[0], moved.field.u[0])
        assert not torch.equal(half.field.u[1], moved.field.u[1])
        _, plain = method.step(again, both[:, 2], 0.27)
        torch.testing.assert_close(half.field.u[1], plain.field.u[1], atol=1e-4, rtol=0)


def test_given_points_are_followed() -> None:
    points = torch.tensor([[[20.0, 30.5], [40.25, 50.0], [30.0, 20.0], [25.0, 60.0]]])
    method = Tracking(tracker=CorrelationFilterTracker(augmentations=[]))
    state = method.start(blank(), seconds_per_frame=0.1, points=points)
    assert torch.equal(state.points, points)
    with pytest.raises(ValueError, match="points must be finite and lie in the image"):
        method.start(blank(), seconds_per_frame=0.1, points=points + 60)
    with pytest.raises(ValueError, match=r"points must be \(1, N, 2\)"):
        method.start(blank(), seconds_per_frame=0.1, points=points[0])


def test_bad_input_is_named() -> None:
    method = Tracking(MaskDensity(10), Scripted((0.0, 0.0)))
    with pytest.raises(ValueError, match="reference must be 2-D"):
        method.start(torch.zeros(1, 1, 8, 8, 8), seconds_per_frame=0.1)
    state = method.start(blank(), seconds_per_frame=0.1)
    with pytest.raises(ValueError, match="frames must have the shape of the reference"):
        method.step(state, torch.zeros(1, 1, 60, 81), 0.1)
    with pytest.raises(ValueError, match="recovery 'reset' needs at least 3 neighbours"):
        Tracking(neighbours=0, recovery="reset")
    with pytest.raises(ValueError, match="patience at least 1"):
        Tracking(patience=0)


@pytest.mark.parametrize("tracker", ["dcf", "eco"])
@pytest.mark.parametrize("interpolation", ["tps", "nconv"])
def test_named_methods_are_built_from_their_settings(tracker: str, interpolation: str) -> None:
    method = build_module(f"{tracker}-{interpolation}")
    assert isinstance(method, Tracking)
    assert isinstance(method.tracker, CorrelationFilterTracker if tracker == "dcf" else EcoTracker)
    wanted = ThinPlateInterpolation if interpolation == "tps" else NormalizedConvolution
    assert isinstance(method.interpolation, wanted)
    assert isinstance(method.selection, MaskDensity)
    assert method.selection.points == 150
