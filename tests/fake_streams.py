"""Small methods and datasets of sequences for the tests, named by class path in the suites of the tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.latent_courses import LatentCourse
from reg_bench.method import Estimate, SequenceModule
from reg_bench.pairs_as_sequence import PairwiseStream
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair

SIZE = (24, 20)
SPACING_MM = (2.0, 1.0)


def square(down: float) -> tuple[Tensor, Tensor]:
    """Image and labels `(1, 1, 24, 20)` of a bright square that stands `down` pixels further along axis 0."""
    image, labels = torch.full((1, 1, *SIZE), 0.1), torch.zeros((1, 1, *SIZE), dtype=torch.uint8)
    shift = round(down)
    image[..., 6 + shift : 12 + shift, 5:13] = 1.0
    labels[..., 6 + shift : 12 + shift, 5:13] = 1
    return image, labels


def moving_square(
    shifts: Sequence[float], case_id: str = "sq0", labelled: Sequence[int] | None = None
) -> ImageSequence:
    """A square that stands `shifts[t]` pixels below its place in frame 0, at 10 frames a second."""
    frames, labels = zip(*(square(s) for s in shifts), strict=True)
    chosen = tuple(range(len(shifts))) if labelled is None else tuple(labelled)
    truth = torch.zeros(1, len(shifts), 2, *SIZE)
    truth[0, :, 0] = -torch.tensor([float(s) for s in shifts])[:, None, None]
    points = torch.tensor([[[8.0 + s, 7.0], [10.0 + s, 11.0]] for s in shifts])
    return ImageSequence(
        case_ids=(case_id,),
        frames=torch.stack(frames, dim=1),
        seconds_per_frame=0.1,
        spacing_mm=torch.tensor([SPACING_MM]),
        labels=torch.stack([labels[t] for t in chosen], dim=1),
        labelled_frames=chosen,
        label_names={1: "square"},
        points={"landmarks": (points,)},
        true_displacement=truth,
    )


class SlidingSquares(RegistrationDataModule):
    """Squares that slide down one pixel a frame for five frames; `sequences` of them, each as five pairs."""

    name = ""
    version = "1"
    dimensions = (2,)
    licence = "Apache-2.0"

    def __init__(self, sequences: int = 2, back: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.sequences, self.back = sequences, back

    def records(self, split: Split) -> Sequence[Record]:
        return [{"case_id": f"sq{i}/{t:03d}", "frame": t} for i in range(self.sequences) for t in range(1, 6)]

    def sequence(self, record: Record) -> ImageSequence:
        shifts = [0, 1, 2, 3, 2, 1] if self.back else list(range(6))
        return moving_square(shifts, str(record["case_id"]).split("/")[0])

    def load(self, record: Record) -> RegistrationPair:
        return self.sequence(record).pair(int(record["frame"]))


@dataclass(frozen=True)
class Place:
    """Where the middle of the bright pixels was in the reference and is now, and how fast it goes, per case."""

    first: Tensor
    now: Tensor
    rate: Tensor
    time_s: float


class FollowsCentre(SequenceModule):
    """Follows the centre of the bright pixels, exactly for the squares; forecasts at constant velocity.

    `how` makes it misbehave at the third frame that it is given.
    """

    name = ""
    version = "1"
    dimensions = (2, 3)

    def __init__(self, how: str = "", sleep_s: float = 0.0, journal: str | None = None) -> None:
        super().__init__()
        self.how, self.sleep_s, self.journal = how, sleep_s, journal
        self.calls = 0

    def _centre(self, image: Tensor) -> Tensor:
        weights = (image[:, :1] - 0.55).clamp(min=0)
        axes = [torch.arange(n, dtype=image.dtype) for n in image.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        total = weights.flatten(1).sum(1)
        return (weights * grid).flatten(2).sum(2) / total[:, None]

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        self.shape = reference.shape
        centre = self._centre(reference)
        self.calls = 0
        if self.journal:
            with open(self.journal, "a") as file:
                file.write(f"start mask={None if mask is None else int(mask.sum())}\n")
        return Place(centre, centre, torch.zeros_like(centre), 0.0)

    def step(self, state: Place, frame: Tensor | None, time_s: float) -> tuple[Place, Estimate]:
        if frame is None:
            return state, self.forecast(state, time_s - state.time_s)
        self.calls += 1
        if self.sleep_s:
            time.sleep(self.sleep_s)
        now = self._centre(frame)
        state = replace(state, now=now, rate=(now - state.now) / (time_s - state.time_s), time_s=time_s)
        if self.journal:
            with open(self.journal, "a") as file:
                file.write(f"step {time_s:.1f}\n")
        if self.calls == 3:
            self._misbehave(frame)
        if self.how == "nan" and self.calls == 3:
            return state, self._estimate(state.now + float("nan"), state)
        return state, self._estimate(state.now, state)

    def forecast(self, state: Place, horizon_s: float) -> Estimate:
        return self._estimate(state.now + horizon_s * state.rate, state)

    def _estimate(self, place: Tensor, state: Place) -> Estimate:
        shift = state.first - place
        shape = (*shift.shape, *self.shape[2:])
        return Estimate(DisplacementField(shift.reshape(*shift.shape, *(1,) * (len(shape) - 2)).expand(shape).clone()))

    def _misbehave(self, frame: Tensor) -> None:
        if self.how == "raise":
            raise RuntimeError("lost the square")
        if self.how == "sleep":
            time.sleep(60)
        if self.how == "write":
            frame.fill_(0.3)


def registers_frames() -> PairwiseStream:
    """A right method of sequences for any images."""
    from tests.conformance_methods import RIGHT

    return PairwiseStream(RIGHT["translation"]())


class WritesState(SequenceModule):
    """Adds up in its state how often it was stepped, and moves the field by it."""

    name = ""
    dimensions = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.inner = registers_frames()

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        return {"inner": self.inner.start(reference, seconds_per_frame=seconds_per_frame), "steps": 0}

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        state["inner"], estimate = self.inner.step(state["inner"], frame, time_s)
        state["steps"] += 1
        return state, Estimate(DisplacementField(estimate.field.u + 0.01 * state["steps"]))

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        return self.inner.forecast(state["inner"], horizon_s)


class MeansOfBatch(SequenceModule):
    """Gives every case of a batch the mean field of all."""

    name = ""
    dimensions = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.inner = registers_frames()

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        return self.inner.start(reference, seconds_per_frame=seconds_per_frame)

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        state, estimate = self.inner.step(state, frame, time_s)
        u = estimate.field.u
        return state, Estimate(DisplacementField(u.mean(dim=0, keepdim=True).expand_as(u).clone()))

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        return self.inner.forecast(state, horizon_s)


class HiddenState(SequenceModule):
    """Remembers the reference in itself: a second stream disturbs the first."""

    name = ""
    dimensions = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.inner = registers_frames()
        self.kept: Any = None

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        self.kept = self.inner.start(reference, seconds_per_frame=seconds_per_frame)
        return None

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        self.kept, estimate = self.inner.step(self.kept, frame, time_s)
        return None, estimate

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        return self.inner.forecast(self.kept, horizon_s)


class Altered(SequenceModule):
    """A right method with a mistake.

    `negated`, `drifts` (five pixels a second), `forgets` (a missing frame resets), `raises` or returns another type
    (`tuple`) where a frame is missing.
    """

    name = ""
    dimensions = (2, 3)

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner = how, registers_frames()

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        begun = self.inner.start(reference, seconds_per_frame=seconds_per_frame)
        return (begun, begun)

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        begun, now = state
        if frame is None and self.how == "raises":
            raise RuntimeError("no frame")
        if frame is None and self.how == "tuple":
            return state, now.u
        if frame is None and self.how == "forgets":
            return (begun, begun), self.inner.forecast(begun, 0.0)
        now, estimate = self.inner.step(now, frame, time_s)
        u = estimate.field.u
        if self.how == "negated":
            u = -u
        if self.how == "drifts":
            u = u + 5 * time_s
        return (begun, now), Estimate(DisplacementField(u))

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        return self.inner.forecast(state[1], horizon_s)


class Needs3D(SequenceModule):
    """Follows volumes only."""

    name = ""
    dimensions = (3,)

    def start(
        self, reference: Tensor, *, seconds_per_frame: float, mask: Tensor | None = None, points: Tensor | None = None
    ) -> Any:
        raise AssertionError("never called")

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        raise AssertionError("never called")

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        raise AssertionError("never called")


class Doubts(FollowsCentre):
    """Follows the square, says how sure it is, and tells two latent variables: the brightness of every frame."""

    def uncertain(self, state: Any, horizon_s: float) -> Estimate:
        estimate = self.forecast(state, horizon_s)
        return replace(estimate, std=torch.full_like(estimate.field.u, 0.5))

    def latent_course(self, frames: Tensor, observed: Tensor) -> LatentCourse:
        x = frames.flatten(2).mean(dim=2)[..., None].expand(-1, -1, 2)
        kinds = ("filtered", "smoothed", "predicted")
        return LatentCourse(x, dict.fromkeys(kinds, x), dict.fromkeys(kinds, torch.ones_like(x)), observed)

    def smooth(self, frames: Tensor, observed: Tensor | None = None) -> list[Estimate]:
        seen = range(frames.shape[1]) if observed is None else observed[0].nonzero()[:, 0].tolist()
        state = self.start(frames[:, 0], seconds_per_frame=0.1)
        places = []
        for t in range(frames.shape[1]):
            nearest = min(seen, key=lambda s: abs(s - t))
            places.append(self.step(state, frames[:, nearest], 0.1 * (t + 1))[1])
        return places
