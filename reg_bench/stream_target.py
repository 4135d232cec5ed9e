"""The target of a treatment: where its centroid is thought to be, and whether the beam would rightly be on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.errors import ConfigError
from reg_bench.results import value_entry
from reg_bench.stream_options import Streaming
from reg_bench.streaming import Step
from reg_bench.types import DisplacementField, ImageSequence

Array = NDArray[np.float64]


def target_values(sequence: ImageSequence, steps: Sequence[Step], options: Streaming) -> list[dict[str, Any]]:
    """Values of the followed target; none where the task names none.

    The estimated centroid is that of the reference's target mask, warped linearly; the true one that of the frame's
    own mask. A target that is warped out of the image has no centroid: null, which counts as the worst.

    * `target_error` of every frame with labels, `target_error_p95` over them;
    * `gate_right`: share of these frames where both centroids are within `gate_mm` of the target's place in the
      reference, or both are not; where the spacing is known;
    * `target_error_late` of every given frame: the estimate is there only after its latency, when the target has
      moved on (along a straight line between frames): error of the forecast over that time; `_hold`: of the estimate
      as it is;
    * with a horizon: mean error of the forecasts, and under `target_error_hold` of the estimate before, held.

    Raises:
        ConfigError: no label of that name.
        ValueError: a reference without the target.
    """
    if options.target is None:
        return []
    target = _Target(sequence, options.target)
    unit, made = target.unit, []
    errors: list[float | None] = []
    right: list[bool] = []
    for step in steps:
        where, true = target.estimated(step.field), target.true(step.frame)
        if true is None:
            continue
        errors.append(_distance(where, true))
        made.append(value_entry("target_error", errors[-1], unit, frame=step.frame))
        right.append(where is not None and target.in_gate(where, options) == target.in_gate(true, options))
    if errors:
        known = [e for e in errors if e is not None]
        p95 = float(np.quantile(known, 0.95)) if len(known) == len(errors) else None
        made.append(value_entry("target_error_p95", p95, unit))
    if right and unit == "mm":
        made.append(value_entry("gate_right", float(np.mean(right)), "1"))
    return made + _late(target, steps) + _ahead(target, steps)


def _late(target: _Target, steps: Sequence[Step]) -> list[dict[str, Any]]:
    made = []
    for step in steps:
        true = target.true_at(step.time_s + step.latency_s)
        if step.late is None or true is None:
            continue
        for name, field in (("target_error_late", step.late), ("target_error_late_hold", step.field)):
            made.append(value_entry(name, _distance(target.estimated(field), true), target.unit, frame=step.frame))
    return made


def _ahead(target: _Target, steps: Sequence[Step]) -> list[dict[str, Any]]:
    made = []
    for k in sorted({k for step in steps for k in step.ahead}):
        told: list[float | None] = []
        held: list[float | None] = []
        for before, after in zip(steps, steps[k:], strict=False):
            true = target.true(after.frame)
            if true is not None:
                told.append(_distance(target.estimated(before.ahead[k]), true))
                held.append(_distance(target.estimated(before.field), true))
        horizon_s = round(k * target.sequence.seconds_per_frame, 6)
        for name, errors in (("target_error", told), ("target_error_hold", held)):
            if errors:
                mean = None if None in errors else float(np.mean([e for e in errors if e is not None]))
                made.append(value_entry(name, mean, target.unit, horizon_s=horizon_s))
    return made


def centroid(weights: Tensor) -> Array | None:
    """Centre of mass `(D,)` in voxels of `(1, 1, *S)`; `None` where there is no mass."""
    mass = weights[0, 0].double()
    total = float(mass.sum())
    if not total > 0:
        return None
    place = []
    for axis, length in enumerate(mass.shape):
        along = mass.sum(dim=[a for a in range(mass.ndim) if a != axis])
        place.append(float((along * torch.arange(length, dtype=torch.float64)).sum()) / total)
    return np.array(place)


def _distance(one: Array | None, other: Array) -> float | None:
    return None if one is None else float(np.linalg.norm(one - other))


class _Target:
    """One label of a sequence; centroids in mm where the spacing is known, else in voxels."""

    def __init__(self, sequence: ImageSequence, name: str) -> None:
        names = dict(sequence.label_names or {})
        labels = [label for label, label_name in names.items() if label_name == name]
        if not labels:
            known = ", ".join(names.values()) or "none"
            raise ConfigError(f"stream.target: {', '.join(sequence.case_ids)} has no label {name!r}; it has {known}")
        self.sequence, self._label = sequence, labels[0]
        spacing = sequence.spacing_mm
        self.unit = "voxel" if spacing is None else "mm"
        self._scale = np.ones(sequence.dimension) if spacing is None else spacing[0].double().cpu().numpy()
        mask = self._mask(sequence.reference)
        place = None if mask is None else self._scaled(mask)
        if mask is None or place is None:
            raise ValueError(f"{', '.join(sequence.case_ids)}: the reference frame has no label {name!r}")
        self._reference, self._start = mask, place
        found = {t: self.true(t) for t in sequence.labelled_frames or ()}
        self._known = {t: place for t, place in found.items() if place is not None}

    def _mask(self, frame: int) -> Tensor | None:
        labels = self.sequence.labels_of(frame)
        return None if labels is None else (labels == self._label).float().cpu()

    def _scaled(self, weights: Tensor) -> Array | None:
        place = centroid(weights)
        return None if place is None else place * self._scale

    def true(self, frame: int) -> Array | None:
        """The centroid of the target in `frame`, `None` where it carries no labels or the target is not in it."""
        mask = self._mask(frame)
        return None if mask is None else self._scaled(mask)

    def true_at(self, time_s: float) -> Array | None:
        """Between the frames after the reference, on straight lines; `None` after the last one that is known."""
        first, seconds = self.sequence.reference, self.sequence.seconds_per_frame
        later = sorted(t for t in self._known if t >= first)
        at = np.array([(t - first) * seconds for t in later])
        if not len(at) or time_s > at[-1] + 1e-9:
            return None
        places = np.stack([self._known[t] for t in later])
        return np.array([np.interp(time_s, at, places[:, axis]) for axis in range(places.shape[1])])

    def estimated(self, field: DisplacementField) -> Array | None:
        """The centroid of the reference's mask on the grid of `field`."""
        return self._scaled(field.to("cpu").warp(self._reference, padding="zeros"))

    def in_gate(self, place: Array, options: Streaming) -> bool:
        """Whether `place` is within the gate round the target's place in the reference."""
        return bool(np.linalg.norm(place - self._start) <= options.gate_mm)
