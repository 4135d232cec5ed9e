"""The values of a streamed sequence: accuracy over time, drift, the target in its gate, forecasts, latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from reg_bench.metrics import score
from reg_bench.metrics.base import ALL, MetricValue
from reg_bench.results import value_entry
from reg_bench.stream_calibration import calibration_values
from reg_bench.stream_conditions import Condition
from reg_bench.stream_options import Streaming
from reg_bench.stream_target import target_values
from reg_bench.streaming import Step, Streamed
from reg_bench.types import DisplacementField, ImageSequence, PointPairs, RegistrationPair

Value = dict[str, Any]

#: What is computed at every frame unless the task names others.
METRICS = ("dice", "tre", "end_point_error", "sdlogj", "nonpositive_fraction")
#: Of these, what is computed of forecasts.
FORETOLD = ("dice", "tre", "end_point_error", "ncc")
_ERROR = "end_point_error"
#: Values that hold the clock, and differ from run to run.
TIMED = (
    *("latency", "latency_first", "latency_median", "latency_p95", "latency_p99", "within_budget"),
    *("target_error_late", "target_error_late_hold"),
)


def frames_ahead(options: Streaming, sequence: ImageSequence) -> list[int]:
    """The horizons of a task in whole frames of `sequence`, at least one, each once."""
    return sorted({max(1, round(h / sequence.seconds_per_frame)) for h in options.horizons_s})


def stream_values(
    sequence: ImageSequence,
    streamed: Streamed,
    options: Streaming,
    *,
    metrics: Iterable[str] | None = None,
    condition: Condition | None = None,
) -> list[Value]:
    """All values of one stream, as a result row holds them, in the profile `strict`. Labels go by their names.

    * per frame after the reference, given or not: the metrics of the pair of reference and frame, `target_error`;
    * `drift`: slope over time of the end-point error, else of the error of landmarks, in its unit per second;
    * `closure_error`: mean length of the field in voxels where the reference has labels (or a mask), when a period
      is over and the frame is the reference again;
    * with a horizon: the mean over all frames that the sequence still has, of the forecast, and under the name with
      `_hold` of the estimate before it, held;
    * with calibration: see `reg_bench.stream_calibration`;
    * `latency` in ms of every given frame; `latency_first` of the reference and the first frame together, until
      there is a first estimate; median, 95th and 99th percentile and `within_budget` over the frames after that.

    Args:
        sequence: a batch of one.
        streamed: what the method made of it.
        options: of the task.
        metrics: what to compute at every frame, as in `reg_bench.metrics.score`; `METRICS` if not given.
        condition: of the stream; where frames at its end were hidden, these alone are scored.
    """
    sequence = sequence.to("cpu")
    scorer = _Scorer(sequence, options)
    condition = condition or Condition()
    wanted = tuple(metrics) if metrics is not None else METRICS
    steps = [s for s in streamed.steps if not s.closing and (condition.scores_all or not s.given)]
    values = [v for s in steps for v in scorer(s.frame, s.field, wanted)]
    values += _drift(values, {s.frame: s.time_s for s in steps})
    values += target_values(sequence, steps, options)
    values += _closure(sequence, streamed)
    values += _forecasts(scorer, steps, [m for m in wanted if m in FORETOLD or m.startswith("tre_")])
    values += calibration_values(sequence, steps) if options.calibration else []
    # Of all at once no frame has a latency of its own.
    return values + ([] if condition.offline else latency_values(streamed, options.budget_ms))


class _Scorer:
    """Scores a field at a frame."""

    def __init__(self, sequence: ImageSequence, options: Streaming) -> None:
        self.sequence, self.options = sequence, options
        self._names = {str(k): v for k, v in (sequence.label_names or {}).items()}

    def __call__(
        self, frame: int, field: DisplacementField, metrics: Sequence[str], horizon_s: float | None = None
    ) -> list[Value]:
        """The values of the whole frame, and of its labels."""
        pair, apart = _with_given_points(self.sequence.pair(frame)), self.options.region == "labels"
        found = self._score(pair, field, [m for m in metrics if not (apart and m == _ERROR)])
        if apart and _ERROR in metrics and pair.fixed_labels is not None:
            inside = pair.fixed_labels != 0
            mask = inside if pair.mask is None else inside & pair.mask
            found += self._score(replace(pair, mask=mask), field, [_ERROR])
        return [
            value_entry(
                v.metric,
                v.value,
                v.unit,
                label=self._names.get(v.label, v.label),
                frame=frame,
                horizon_s=horizon_s,
            )
            for v in found
            if v.label == ALL or v.metric in ("dice", "hd95")
        ]

    def _score(self, pair: RegistrationPair, field: DisplacementField, metrics: Sequence[str]) -> list[MetricValue]:
        if not metrics:
            return []
        labels = self.options.labels
        return list(score(pair, field.to("cpu"), profiles=("strict",), metrics=metrics, label_interpolation=labels))


def _with_given_points(pair: RegistrationPair) -> RegistrationPair:
    """`pair` with the points that the frame has: others are NaN."""
    sets: dict[str, PointPairs] = {}
    for name, points in (pair.points or {}).items():
        there = ~(points.fixed[0].isnan().any(dim=1) | points.moving[0].isnan().any(dim=1))
        if bool(there.any()):
            sets[name] = PointPairs((points.fixed[0][there],), (points.moving[0][there],))
    return replace(pair, points=sets or None)


def _drift(values: Sequence[Value], times: dict[int, float]) -> list[Value]:
    """Slope of the least-squares line through the errors over time."""
    for metric in ("end_point_error", "tre_landmarks"):
        found = [v for v in values if (v["metric"], v["label"]) == (metric, ALL)]
        known = [(times[v["frame"]], v["value"]) for v in found if v["value"] is not None]
        if len(known) > 1:
            at, errors = np.array(known).T
            slope = float(np.polyfit(at - at.mean(), errors, 1)[0])
            return [value_entry("drift", slope, f"{found[0]['unit']}/s")]
    return []


def _closure(sequence: ImageSequence, streamed: Streamed) -> list[Value]:
    region = sequence.reference_region()
    made = []
    for step in (s for s in streamed.steps if s.closing):
        lengths = step.field.u.to("cpu").square().sum(1, keepdim=True).sqrt()
        inside = lengths if region is None else lengths[region]
        mean = float(inside.mean()) if inside.numel() else None
        made.append(value_entry("closure_error", mean, "voxel", frame=step.frame))
    return made


def _forecasts(scorer: _Scorer, steps: Sequence[Step], metrics: Sequence[str]) -> list[Value]:
    """Means over the frames of what was foretold, and of holding the estimate that was there at the time."""
    seconds, made = scorer.sequence.seconds_per_frame, []
    for k in sorted({k for step in steps for k in step.ahead}):
        told, held = [], []
        for before, after in zip(steps, steps[k:], strict=False):
            kept = scorer(after.frame, before.field, metrics)
            held += kept
            # Methods that hold their last field foretell that very field.
            same = before.ahead[k].u is before.field.u
            told += kept if same else scorer(after.frame, before.ahead[k], metrics)
        made += _means(told, round(k * seconds, 6), "") + _means(held, round(k * seconds, 6), "_hold")
    return made


def _means(values: Sequence[Value], horizon_s: float, suffix: str) -> list[Value]:
    """Means over frames of the values of whole frames; null as soon as one is, so that nothing improves by failing."""
    groups: dict[tuple[str, str], list[float | None]] = {}
    for v in values:
        if v["label"] == ALL:
            groups.setdefault((v["metric"], v["unit"]), []).append(v["value"])
    return [
        value_entry(
            metric + suffix,
            None if any(n is None for n in numbers) else float(np.mean([n for n in numbers if n is not None])),
            unit,
            horizon_s=horizon_s,
        )
        for (metric, unit), numbers in groups.items()
    ]


def latency_values(streamed: Streamed, budget_ms: float) -> list[Value]:
    """Latencies in ms: see `stream_values`."""
    given = [s for s in streamed.steps if s.given]
    made = [value_entry("latency", 1e3 * s.latency_s, "ms", frame=s.frame) for s in given if not s.closing]
    if given:
        made.append(value_entry("latency_first", 1e3 * (streamed.start_s + given[0].latency_s), "ms"))
    later = torch.tensor([1e3 * s.latency_s for s in given[1:]], dtype=torch.float64).numpy()
    if later.size:
        for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
            made.append(value_entry(f"latency_{name}", float(np.quantile(later, share)), "ms"))
        made.append(value_entry("within_budget", float((later <= budget_ms).mean()), "1"))
    return made
