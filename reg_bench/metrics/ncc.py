"""Global normalised cross-correlation after registration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.similarity_maps import block_pairs, channels_of, mean_of


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor | None = None) -> float:
    """Pearson correlation of two images `(1, C, *S)`, over all voxels or over the mask; mean over channels.

    Returns:
        -1 to 1; NaN where the mask is empty or one of the images is constant there.

    Raises:
        ValueError: shapes that do not fit.
    """
    return mean_of([_channel(a, b, mask) for a, b in channels_of("ncc", fixed, warped)])


def _channel(first: Tensor, second: Tensor, mask: Tensor | None) -> float:
    # Centred on the first voxel, so that a large offset does not eat the digits.
    origin = [float(image.reshape(-1)[0]) if image.numel() else 0.0 for image in (first, second)]
    count, sums, products = 0.0, [0.0, 0.0], [0.0, 0.0, 0.0]
    for a, b, inside in block_pairs("ncc", first, second, mask):
        a, b = a - origin[0], b - origin[1]
        if inside is not None:
            a, b = a.mul_(inside), b.mul_(inside)
        count += a.numel() if inside is None else float(inside.sum())
        sums = [sums[0] + float(a.sum()), sums[1] + float(b.sum())]
        products = [p + float(x.dot(y)) for p, (x, y) in zip(products, ((a, a), (b, b), (a, b)), strict=True)]
    if count == 0:
        return math.nan
    variances = [products[i] - sums[i] ** 2 / count for i in (0, 1)]
    if any(v <= 1e-12 * max(p, 1e-300) for v, p in zip(variances, products, strict=False)):
        return math.nan
    covariance = products[2] - sums[0] * sums[1] / count
    return covariance / math.sqrt(variances[0] * variances[1])


class NormalisedCrossCorrelation(Metric):
    """Global correlation of the fixed and the warped moving image, in the mask where there is one.

    The moving image is warped linearly, border values outside. Null where one of the images is constant.
    """

    name: ClassVar[str] = "ncc"
    units: ClassVar[Mapping[str, str]] = {"strict": "1"}
    better: ClassVar[Better] = "higher"
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        return self.values(profile, [(ALL, ncc(context.pair.fixed, context.warped, context.mask))])
