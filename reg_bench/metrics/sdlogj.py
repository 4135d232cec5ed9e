"""Standard deviation of the logarithm of the Jacobian determinant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from reg_bench.metrics.arrays import one_field, one_mask
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.jacobian import jacobian_statistics
from reg_bench.types import DisplacementField


def sdlogj(field: DisplacementField | Tensor, mask: Tensor | None = None) -> float:
    """Population standard deviation of `log(det J)` over all voxels, borders included, or over the mask.

    Determinants of at most 1e-9, folded ones among them, are raised to 1e-9 first; `nonpositive_fraction`
    counts them.

    Args:
        field: `(1, D, *S)` voxels.
        mask: `(*S)` or `(1, 1, *S)`.

    Returns:
        The deviation; NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    u = one_field("sdlogj", field)
    return jacobian_statistics(u, one_mask("sdlogj", mask, tuple(u.shape[1:]))).log.std


class SDLogJ(Metric):
    """Standard deviation of the log Jacobian determinant: how unevenly the field stretches space.

    `strict`: of `log(max(det J, 1e-9))` over the mask where there is one, else over the whole image with its
    borders. `learn2reg`: of `log(clip(det J + 3, 1e-9, 1e9))` without the outer two voxels of each face, over
    the mask where the evaluation is masked; near the identity about a quarter of the strict value. Null where
    no voxel is left.
    """

    name: ClassVar[str] = "sdlogj"
    units: ClassVar[Mapping[str, str]] = {"learn2reg": "1", "strict": "1"}
    better: ClassVar[Better] = "lower"

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        moments = context.jacobian.log if profile == "strict" else context.jacobian.shifted
        return self.values(profile, [(ALL, moments.std)])
