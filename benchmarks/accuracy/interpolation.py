"""How well fields are filled in from scattered points: the network of normalised convolutions beside splines.

    python benchmarks/accuracy/interpolation.py [--fields 24] [--seed 1000]

End-point errors in voxels at 256 x 256: on a smooth field, exactly sampled at voxels, on which the network that the
author of Paper I trained has 0.585 at 150 points; and on fields from geodesic shooting that no training has seen, at
66, 150 and 655 points, exact and as a tracker would see them: noise of 1 voxel in every component, a tenth of them off
by up to 15 voxels, and confidences that tell most of these. Times are CPU seconds, the least of the columns.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from reg_bench.random_diffeomorphisms import random_diffeomorphisms
from reg_bench.sparse_to_dense import (
    BSplineInterpolation,
    DenseField,
    Interpolation,
    NormalizedConvolution,
    Observed,
    ThinPlateInterpolation,
    TrackerErrors,
    end_point_error,
    observe,
)

SHAPE = (256, 256)
COUNTS = (66, 150, 655)


class Zero(Interpolation):
    """No motion: what every other must beat."""

    def forward(self, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]) -> DenseField:
        """Zeros on a grid of `shape`."""
        return DenseField(values.new_zeros(len(values), len(shape), *shape))


METHODS: dict[str, Callable[[], Interpolation]] = {
    "zero field": Zero,
    "nconv (shipped)": NormalizedConvolution,
    "nconv, no trend (the paper's)": lambda: NormalizedConvolution(trend=None),
    "nconv, no trend, untrained": lambda: NormalizedConvolution(None, bias=False, trend=None),
    "thin-plate, exact": ThinPlateInterpolation,
    "thin-plate, lam 300 / confidence": lambda: ThinPlateInterpolation(lam=300.0),
    "B-spline, spacing 20": lambda: BSplineInterpolation(20.0, 4),
}


def smooth_field() -> tuple[Tensor, Tensor]:
    """The smooth test field `(1, 2, 256, 256)`, and the order in which its voxels are drawn."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SHAPE), indexing="ij")
    rows, columns = 5 * torch.sin(y / 40) * torch.cos(x / 50), 6 * torch.cos(y / 45 + 0.3) * torch.sin(x / 60)
    order = np.random.RandomState(0).permutation(math.prod(SHAPE))
    return torch.stack((rows, columns))[None], torch.from_numpy(order)


def sampled(field: Tensor, voxels: Tensor) -> Observed:
    """A field at whole voxels, given by their row-major index."""
    places = torch.stack((voxels // SHAPE[1], voxels % SHAPE[1]), dim=1)
    values = field[0].flatten(1)[:, voxels].T
    return Observed(places.to(field)[None], values[None], torch.ones(1, len(voxels)), field)


def shot_fields(count: int, seed: int) -> Tensor:
    """Fields from geodesic shooting as Paper I draws them: std 40 to 99, distance 0 to 19."""
    rng = np.random.default_rng(seed)
    sigma, distance = rng.uniform(40, 99, count) / math.sqrt(2), rng.uniform(0, 19, count)
    generator = torch.Generator().manual_seed(seed)
    return random_diffeomorphisms(SHAPE, sigma.tolist(), distance.tolist(), generator, with_inverse=False).displacement


def cases(count: int, seed: int) -> dict[str, Observed]:
    """What is filled in, by the heading of its column."""
    field, order = smooth_field()
    found = {f"smooth {n}": sampled(field, order[:n]) for n in (150, 1000)}
    fields = shot_fields(count, seed)
    for kind, errors in (("exact", TrackerErrors(0, 0, 0, None, None)), ("noisy", TrackerErrors())):
        for n in COUNTS:
            found[f"{kind} {n}"] = observe(fields, n, torch.Generator().manual_seed(seed + n), errors)
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=24, help="number of fields from geodesic shooting")
    parser.add_argument("--seed", type=int, default=1000, help="of the fields and of what is drawn from them")
    args = parser.parse_args()
    torch.manual_seed(0)
    columns = cases(args.fields, args.seed)
    print(f"{'end-point error, voxels':34}" + "".join(f"{name:>13}" for name in columns) + f"{'ms a field':>12}")
    for name, build in METHODS.items():
        method = build()
        errors, seconds = [], []
        for seen in columns.values():
            start = time.process_time()
            u = method(seen.points, seen.values, seen.confidence, SHAPE).u
            seconds.append((time.process_time() - start) / len(u))
            errors.append(float(end_point_error(u, seen.truth).mean()))
        milliseconds = 1000 * min(seconds)
        print(f"{name:34}" + "".join(f"{e:13.3f}" for e in errors) + f"{milliseconds:12.1f}")


if __name__ == "__main__":
    main()
