"""Latent variables over time, as methods with latent dynamics tell them, and what their intervals cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from reg_bench.results import value_entry

#: Half widths, in standard deviations, of the intervals of a normal distribution that hold 50 and 95 %.
INTERVALS = {"50": 0.6744897501960817, "95": 1.959963984540054}


@dataclass(frozen=True)
class LatentCourse:
    """What a method makes of a sequence in the space of its latent variables.

    Attributes:
        x: `(B, T, p)`, what each frame by itself says, of those as well that were not observed.
        mean, std: by kind, `(B, T, p)`: mean and standard deviation of x given the frames that were observed:
            `filtered` those until now, `smoothed` all, `predicted` those before.
        observed: `(B, T)` bool.
    """

    x: Tensor
    mean: Mapping[str, Tensor]
    std: Mapping[str, Tensor]
    observed: Tensor


def latent_values(course: LatentCourse, kind: str) -> list[dict[str, Any]]:
    """`latent_coverage_50` and `latent_coverage_95`: shares of the latent variables within their intervals.

    Of `predicted` every frame after the first counts, of the others those that were not observed; none where there are
    no such frames.
    """
    if kind not in course.mean:
        return []
    counted = course.observed.new_ones(course.observed.shape) if kind == "predicted" else ~course.observed
    counted[:, 0] = False
    if not bool(counted.any()):
        return []
    distance = (course.x - course.mean[kind]).abs()[counted]
    std = course.std[kind][counted]
    return [
        value_entry(f"latent_coverage_{name}", float((distance <= width * std).float().mean()), "1")
        for name, width in INTERVALS.items()
    ]
