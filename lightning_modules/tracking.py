"""Registration by tracking: points followed by correlation filters, the field filled in between (Paper I)."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from reg_bench.coarse_threads import coarse_threads
from reg_bench.method import Estimate, SequenceModule
from reg_bench.sparse_to_dense import Interpolation, ThinPlateInterpolation
from reg_bench.tracking import (
    CorrelationFilterTracker,
    IntensityScale,
    MaskDensity,
    PointSelection,
    PointTracker,
    consistency,
    nearest_neighbours,
    neighbour_prediction,
)
from reg_bench.types import DisplacementField

Recovery = Literal["off", "redetect", "reset"]


@dataclass(frozen=True)
class TrackingState:
    """What a stream remembers.

    Attributes:
        tracker: the state of the trackers.
        scale: of the intensities.
        shape: of the frames.
        points: `(B, N, 2)` voxels of the reference.
        neighbours: `(B, N, K)`, of every point in the reference.
        positions: `(B, N, 2)` voxels of the last frame.
        confidence: `(B, N)`, 0..1.
        velocity: `(B, N, 2)` voxels per second.
        doubtful: `(B, N)`, frames in a row in which a point was not believed.
        frame: the last frame, `(B, C, H, W)`.
        seen_s, now_s: time of the last frame, and of the last step.
    """

    tracker: Any
    scale: IntensityScale
    shape: tuple[int, ...]
    points: Tensor
    neighbours: Tensor
    positions: Tensor
    confidence: Tensor
    velocity: Tensor
    doubtful: Tensor
    frame: Tensor
    seen_s: float = 0.0
    now_s: float = 0.0


class Tracking(SequenceModule):
    """Follows points by correlation filters and interpolates their displacements (Paper I), in 2-D.

    A point at `p0` in the reference and at `p` in a frame gives the displacement `p0 - p` at `p`. Its confidence is
    that of its tracker, times how well it moves with its neighbours, so that trackers that went astray do not drag the
    field. Forecasts carry on at constant velocity. A frame that repeats the last one bit for bit is the same
    acquisition: it teaches nothing and moves nothing.

    Args:
        selection: which points are followed, where the caller gives none; `None`: 150 by their distance from the mask.
        tracker: `None`: correlation filters in closed form.
        interpolation: from points to the field; `None`: thin-plate splines.
        neighbours: with how many a point is compared; 0 for no comparison.
        consistency_voxels: difference from what the neighbours say at which the confidence halves.
        predict: whether a point is searched where its velocity would have brought it, instead of where it was.
        missing: the field of a frame that was not acquired: `hold` the last, or carry on with its `velocity`.
        recovery: what happens to points that were not believed for `patience` frames: nothing (`off`, as in the paper);
            `redetect`: they are searched where their neighbours say; `reset`: and forget what they learned.
        patience: frames.
        least_confidence: below which a point is not believed.
    """

    version: ClassVar[str] = "2"
    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        selection: PointSelection | None = None,
        tracker: PointTracker | None = None,
        interpolation: Interpolation | None = None,
        neighbours: int = 12,
        consistency_voxels: float = 2.0,
        predict: bool = False,
        missing: Literal["hold", "velocity"] = "hold",
        recovery: Recovery = "off",
        patience: int = 3,
        least_confidence: float = 0.1,
    ) -> None:
        super().__init__()
        if neighbours < 0 or not consistency_voxels > 0 or patience < 1 or not 0 <= least_confidence <= 1:
            raise ValueError(
                "tracking: neighbours must be at least 0, consistency_voxels positive, patience at least 1 and "
                f"least_confidence in 0..1, got {neighbours}, {consistency_voxels}, {patience} and {least_confidence}"
            )
        if recovery != "off" and neighbours < 3:
            raise ValueError(f"tracking: recovery {recovery!r} needs at least 3 neighbours, got {neighbours}")
        self.selection = MaskDensity() if selection is None else selection
        self.tracker = CorrelationFilterTracker() if tracker is None else tracker
        self.interpolation = ThinPlateInterpolation(1.0, 0.1) if interpolation is None else interpolation
        self.neighbours, self.consistency_voxels = neighbours, consistency_voxels
        self.predict, self.missing = predict, missing
        self.recovery, self.patience, self.least_confidence = recovery, patience, least_confidence

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> TrackingState:
        """See `SequenceModule.start`; `points` are followed instead of a selection.

        Raises:
            ValueError: a reference that is not 2-D, or points outside it.
        """
        if reference.ndim != 4:
            raise ValueError(f"tracking: reference must be 2-D, (B, C, H, W), got {tuple(reference.shape)}")
        work = reference if reference.is_floating_point() else reference.float()
        scale = IntensityScale.of(work)
        image = scale.apply(work)
        chosen = self.selection.select(image, mask) if points is None else _inside(points.to(image), image)
        return TrackingState(
            tracker=self.tracker.start(image, chosen),
            scale=scale,
            shape=tuple(image.shape[2:]),
            points=chosen,
            neighbours=nearest_neighbours(chosen, self.neighbours),
            positions=chosen,
            confidence=torch.ones_like(chosen[..., 0]),
            velocity=torch.zeros_like(chosen),
            doubtful=torch.zeros(chosen.shape[:2], dtype=torch.long, device=chosen.device),
            frame=image,
        )

    def step(self, state: TrackingState, frame: Tensor | None, time_s: float) -> tuple[TrackingState, Estimate]:
        """See `SequenceModule.step`; a missing frame leaves all but the time as it is."""
        if frame is None:
            state = replace(state, now_s=time_s)
            ahead = 0.0 if self.missing == "hold" else time_s - state.seen_s
            return state, self._estimate(state, ahead)
        image = state.scale.apply(_matching(frame, state))
        with coarse_threads(image.device):
            return self._stepped(state, image, time_s)

    def _stepped(self, state: TrackingState, image: Tensor, time_s: float) -> tuple[TrackingState, Estimate]:
        """The step to an image that was acquired."""
        repeated = (image == state.frame).flatten(1).all(dim=1)
        if bool(repeated.all()):
            state = replace(state, seen_s=time_s, now_s=time_s)
            return state, self._estimate(state, 0.0)
        new = self._followed(state, image, time_s)
        new = _kept(repeated, state, new) if bool(repeated.any()) else new
        return self._recovered(new), self._estimate(new, 0.0)

    def _followed(self, state: TrackingState, image: Tensor, time_s: float) -> TrackingState:
        """The state after an image that is new."""
        elapsed = time_s - state.seen_s
        expected = state.positions + state.velocity * elapsed if self.predict else None
        tracker, tracks = self.tracker.step(state.tracker, image, expected)
        moved = tracks.positions - state.points
        confidence = tracks.confidence * self._agreement(state, moved, tracks.confidence)
        velocity = (tracks.positions - state.positions) / elapsed if elapsed > 0 else state.velocity
        doubtful = torch.where(confidence < self.least_confidence, state.doubtful + 1, 0)
        return replace(
            state,
            tracker=tracker,
            positions=tracks.positions,
            confidence=confidence,
            velocity=velocity,
            doubtful=doubtful,
            frame=image,
            seen_s=time_s,
            now_s=time_s,
        )

    def forecast(self, state: TrackingState, horizon_s: float) -> Estimate:
        """See `SequenceModule.forecast`: all points carry on at their last velocity."""
        return self._estimate(state, state.now_s - state.seen_s + horizon_s)

    def _agreement(self, state: TrackingState, moved: Tensor, confidence: Tensor) -> Tensor:
        return consistency(state.points, moved, state.neighbours, confidence, self.consistency_voxels)

    def _recovered(self, state: TrackingState) -> TrackingState:
        """Points that were not believed for too long, put where their neighbours say."""
        which = state.doubtful >= self.patience
        if self.recovery == "off" or not bool(which.any()):
            return state
        moved = state.positions - state.points
        expected = neighbour_prediction(
            state.points, moved, state.neighbours, state.confidence, self.consistency_voxels
        )
        last = state.points.new_tensor(state.shape) - 1
        places = torch.minimum((state.points + expected).clamp(min=0), last)
        return replace(
            state,
            tracker=self.tracker.moved(state.tracker, which, places, relearn=self.recovery == "reset"),
            positions=torch.where(which[..., None], places, state.positions),
            velocity=torch.where(which[..., None], torch.zeros_like(places), state.velocity),
            doubtful=torch.where(which, 0, state.doubtful),
        )

    def _estimate(self, state: TrackingState, ahead_s: float) -> Estimate:
        """The field `ahead_s` seconds after the last frame."""
        positions = state.positions + state.velocity * ahead_s
        values = state.points - positions
        dense = self.interpolation(positions, values, state.confidence, state.shape)
        confidence = None if dense.confidence is None else dense.confidence.clamp(0, 1)
        return Estimate(DisplacementField(dense.u), confidence=confidence)


def _inside(points: Tensor, image: Tensor) -> Tensor:
    """`points`, which must lie in the image."""
    if points.ndim != 3 or points.shape[0] != len(image) or points.shape[2] != 2:
        raise ValueError(f"tracking: points must be ({len(image)}, N, 2) voxels, got {tuple(points.shape)}")
    last = points.new_tensor(image.shape[2:]) - 1
    if not bool(((points >= 0) & (points <= last)).all()):
        raise ValueError(f"tracking: points must be finite and lie in the image of shape {tuple(image.shape[2:])}")
    return points


def _kept(which: Tensor, old: Any, new: Any) -> Any:
    """`new`, for the cases `which (B,)` with the tensors of `old`; their first axis is cases, or all points of all."""
    if isinstance(new, Tensor):
        rows = which.repeat_interleave(len(new) // len(which))
        return torch.where(rows.reshape(-1, *(1,) * (new.ndim - 1)), old, new)
    if is_dataclass(new) and not isinstance(new, type):
        return replace(new, **{f.name: _kept(which, getattr(old, f.name), getattr(new, f.name)) for f in fields(new)})
    return new


def _matching(frame: Tensor, state: TrackingState) -> Tensor:
    """`frame` in floating point; it must have the shape of the reference."""
    expected = (len(state.points), state.scale.low.shape[1], *state.shape)
    if tuple(frame.shape) != expected:
        raise ValueError(f"tracking: frames must have the shape of the reference, {expected}, got {tuple(frame.shape)}")
    return frame.to(state.points)
