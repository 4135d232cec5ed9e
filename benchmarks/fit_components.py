"""Learns the motion of training sequences for `ar-pca` with a checkpoint: components and one autoregression.

    python benchmarks/fit_components.py ar-pca-echo.pt --dataset phantom-echo --data-args '{"sequences": 60}'

Fields are those of the method that will give them on streams, not the true ones. Rank, order and ridge have the least
error of forecasts on validation sequences, measured as by `choose_forecast.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from choose_forecast import Sums, gather, histories, report
from torch import Tensor

from reg_bench.discovery import build_datamodule
from reg_bench.learned_motion import LearnedComponents, learned_components
from reg_bench.motion_history import MotionHistory
from reg_bench.principal_components import principal_components
from reg_bench.types import ImageSequence


def fields(history: MotionHistory, sequence: ImageSequence) -> Tensor:
    """All fields of a sequence, `(T, D, *S)`, that of the reference first."""
    return (history.coordinates @ history.basis).reshape(-1, sequence.dimension, *sequence.spatial_shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--dataset", default="phantom-echo", help="with known motion")
    parser.add_argument("--data-args", type=json.loads, default={}, help="its settings, as JSON")
    parser.add_argument("--method", default="lucas-kanade", help="that gives the fields")
    parser.add_argument("--limit", type=int, default=8, help="validation sequences")
    parser.add_argument("--sparse", type=int, default=3, help="components are those of every so many fields")
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 5, 10, 15, 20, 25], help="in frames")
    parser.add_argument("--every", type=int, default=5, help="forecasts are made after every so many frames")
    parser.add_argument("--from-frame", type=int, default=10, help="the first of them")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 12, 16])
    parser.add_argument("--orders", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--ridges", type=float, nargs="+", default=[1e-4, 1e-2])
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    data = build_datamodule({"class_path": arguments.dataset, "init_args": arguments.data_args})
    seen, seconds = [], 0.0
    for name in data.sequence_ids("train"):
        sequence = data.sequence_case(name, "train")
        seconds = sequence.seconds_per_frame
        seen.append(fields(histories(arguments.method, sequence, sequence.length)[-1], sequence))
    whole = principal_components(torch.cat([x[:: arguments.sparse] for x in seen]), max(arguments.ranks))
    print(f"{len(seen)} training sequences, {float(whole.variances.sum() / whole.total_variance):.1%} of the variance")
    models: dict[tuple[object, ...], LearnedComponents] = {
        (rank, order, ridge): learned_components(whole.first(rank), seen, order, seconds_per_frame=seconds, ridge=ridge)
        for rank, order, ridge in itertools.product(arguments.ranks, arguments.orders, arguments.ridges)
    }
    sums: Sums = {}
    for name in data.sequence_ids("val")[: arguments.limit]:
        sequence = data.sequence_case(name, "val")
        past = histories(arguments.method, sequence, sequence.length)
        gather(
            sums,
            models,
            sequence,
            past,
            range(arguments.from_frame, len(past) - 1, arguments.every),
            arguments.horizons,
        )
    best = report(sums, arguments.horizons)
    models[best[:-1]].save(arguments.out)
    print(f"wrote {arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB; remainder {best[-1]}")


if __name__ == "__main__":
    main()
