"""Mean squared intensity difference after registration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.similarity_maps import block_pairs, channels_of, mean_of


def mse(fixed: Tensor, warped: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared difference of two images `(1, C, *S)`, over all voxels or over the mask; mean over channels.

    Returns:
        The mean; NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    return mean_of([_channel(a, b, mask) for a, b in channels_of("mse", fixed, warped)])


def _channel(first: Tensor, second: Tensor, mask: Tensor | None) -> float:
    total, count = 0.0, 0.0
    for a, b, inside in block_pairs("mse", first, second, mask):
        difference = a - b if inside is None else (a - b).mul_(inside)
        total += float(difference.dot(difference))
        count += a.numel() if inside is None else float(inside.sum())
    return total / count if count else math.nan


class MeanSquaredError(Metric):
    """Mean squared intensity difference between fixed and warped moving image, in the mask where there is one.

    The moving image is warped linearly, border values outside. Depends on the scale of the intensities: compare
    within one dataset only.
    """

    name: ClassVar[str] = "mse"
    units: ClassVar[Mapping[str, str]] = {"strict": "1"}
    better: ClassVar[Better] = "lower"
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        return self.values(profile, [(ALL, mse(context.pair.fixed, context.warped, context.mask))])
