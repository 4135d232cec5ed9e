"""Chooses the settings of forecasts from fields seen so far, on validation sequences with known motion.

    python benchmarks/choose_forecast.py ar-pca --dataset phantom-echo

Every validation sequence is registered once by the method that gives the fields; then all combinations of settings
forecast from its frames on. Errors are end-point errors inside the labels or the mask, in voxels, against the true
motion at the time that is foretold, divided by the error of holding the last field. The best combination has the least
mean of these ratios over the horizons.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reg_bench.discovery import build_datamodule, build_module
from reg_bench.motion_history import MotionHistory
from reg_bench.motion_models import AutoregressiveComponents, EvolvingModes, MotionModel
from reg_bench.pairs_as_sequence import as_stream
from reg_bench.types import ImageSequence

RANKS = (1, 2, 3, 4, 6, 8, 12)
ORDERS = (1, 2, 3, 4, 6, 8, 12)
RIDGES = (1e-4, 1e-2, 1e-1, 1.0)

Sums = dict[tuple[object, ...], list[float]]


def candidates(
    kind: str, ranks: Sequence[int], orders: Sequence[int], ridges: Sequence[float]
) -> dict[tuple[object, ...], MotionModel]:
    """Models by rank, order or delays, and what else is chosen."""
    if kind == "ar-pca":
        return {
            (r, p, ridge, "coupled" if c else "alone"): AutoregressiveComponents(r, p, ridge, c)
            for r, p, ridge, c in itertools.product(ranks, orders, ridges, (False, True))
            # A coupled one of so many unknowns would need more frames than a sequence has.
            if not c or r * p <= 16
        }
    return {(r, d): EvolvingModes(r, d) for r, d in itertools.product(ranks, orders)}


def histories(method: str, sequence: ImageSequence, window: int) -> list[MotionHistory]:
    """The fields so far, after the reference and after each frame that follows it."""
    inner = as_stream(build_module(method).eval())
    seconds, first = sequence.seconds_per_frame, sequence.reference
    state = inner.start(sequence.frames[:, first], seconds_per_frame=seconds, mask=sequence.reference_region())
    assert sequence.true_displacement is not None
    found = [MotionHistory.at_rest(sequence.true_displacement[0, first].flatten())]
    for k in range(1, sequence.length - first):
        state, estimate = inner.step(state, sequence.frames[:, first + k], k * seconds)
        found.append(found[-1].followed_by(estimate.field.u[0].flatten().float(), 1, window))
    return found


def errors(
    past: MotionHistory, model: MotionModel, truth: Sequence[tuple[int, Tensor, Tensor]]
) -> dict[tuple[str, int], float]:
    """Mean end-point errors by what becomes of the remainder and by horizon in frames."""
    last, now = past.field(past.coordinates[-1]), model(past, 0.0)
    result = {}
    for ahead, true, inside in truth:
        told = model(past, float(ahead))
        for remainder, field in (("hold", last + told - now), ("drop", told)):
            result[remainder, ahead] = float((field.reshape(true.shape) - true).norm(dim=0)[inside].mean())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("ar-pca", "dmd"))
    parser.add_argument("--dataset", default="phantom-echo", help="with known motion")
    parser.add_argument("--data-args", type=json.loads, default={}, help="its settings, as JSON")
    parser.add_argument("--method", default="lucas-kanade", help="that gives the fields")
    parser.add_argument("--limit", type=int, default=8, help="validation sequences")
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 5, 10, 15, 20, 25], help="in frames")
    parser.add_argument("--every", type=int, default=3, help="forecasts are made after every so many frames")
    parser.add_argument("--from-frame", type=int, default=10, help="the first of them")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--orders", type=int, nargs="+", default=list(ORDERS), help="or delays")
    parser.add_argument(
        "--ridges", type=float, nargs="+", default=[1e-4, 1e-2, 1e-1, 1.0], help="of the autoregression"
    )
    parser.add_argument("--window", type=int, default=100, help="fields that are kept")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    data = build_datamodule({"class_path": arguments.dataset, "init_args": arguments.data_args})
    models = candidates(arguments.kind, arguments.ranks, arguments.orders, arguments.ridges)
    sums: Sums = {}
    for name in data.sequence_ids("val")[: arguments.limit]:
        sequence = data.sequence_case(name, "val")
        if sequence.true_displacement is None:
            parser.error(f"--dataset {arguments.dataset}: sequence {name} has no true_displacement")
        past = histories(arguments.method, sequence, arguments.window)
        moments = range(arguments.from_frame, len(past) - 1, arguments.every)
        gather(sums, models, sequence, past, moments, arguments.horizons)
        print(f"{name}: {len(past) - 1} frames", flush=True)
    report(sums, arguments.horizons)


def gather(
    sums: Sums,
    models: Mapping[tuple[object, ...], MotionModel],
    sequence: ImageSequence,
    past: Sequence[MotionHistory],
    moments: Sequence[int],
    horizons: Sequence[int],
) -> None:
    """Adds the errors of all models on one sequence, forecasting after the frames `moments`."""
    first = sequence.reference
    assert sequence.true_displacement is not None
    for k in moments:
        truth = [
            (h, sequence.true_displacement[0, first + k + h], inside(sequence, first + k + h))
            for h in horizons
            if k + h < len(past)
        ]
        for key, model in models.items():
            for (remainder, h), value in errors(past[k], model, truth).items():
                sums.setdefault((*key, remainder, h), []).append(value)
        for h, true, region in truth:
            held = past[k].field(past[k].coordinates[-1]).reshape(true.shape)
            sums.setdefault(("held", h), []).append(float((held - true).norm(dim=0)[region].mean()))


def inside(sequence: ImageSequence, frame: int) -> Tensor:
    """Where errors count in `frame`, `(*S)` bool: in its labels, else in its mask, else everywhere."""
    labels = sequence.labels_of(frame)
    if labels is not None:
        return labels[0, 0] != 0
    if sequence.mask is None:
        return torch.ones(sequence.spatial_shape, dtype=torch.bool)
    return sequence.mask[0, frame, 0]


def report(sums: Sums, horizons: Sequence[int]) -> tuple[object, ...]:
    """Prints the ten best combinations; returns the best."""
    means = {key: math.fsum(values) / len(values) for key, values in sums.items()}
    settings = {key[:-1] for key in means if key[0] != "held"}
    ratios = {s: [means[(*s, h)] / means["held", h] for h in horizons] for s in settings}
    best = sorted(settings, key=lambda s: math.fsum(ratios[s]))
    print("error of holding the last field, voxels: " + ", ".join(f"{means['held', h]:.3f}" for h in horizons))
    print("settings                        mean   ratio at " + ", ".join(f"{h}" for h in horizons) + " frames")
    for setting in best[:10]:
        name = ", ".join(str(part) for part in setting)
        row = "  ".join(f"{r:.3f}" for r in ratios[setting])
        print(f"{name:30} {math.fsum(ratios[setting]) / len(horizons):6.3f}   {row}")
    return best[0]


if __name__ == "__main__":
    main()
