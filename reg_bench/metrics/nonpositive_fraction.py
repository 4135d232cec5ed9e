"""Share of voxels where the field folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from reg_bench.metrics.arrays import one_field, one_mask
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.jacobian import jacobian_statistics
from reg_bench.types import DisplacementField


def nonpositive_fraction(field: DisplacementField | Tensor, mask: Tensor | None = None) -> float:
    """Share of voxels with a Jacobian determinant of 0 or less, borders included, or of those in the mask.

    Args:
        field: `(1, D, *S)` voxels.
        mask: `(*S)` or `(1, 1, *S)`.

    Returns:
        0 to 1; NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    u = one_field("nonpositive_fraction", field)
    mask = one_mask("nonpositive_fraction", mask, tuple(u.shape[1:]))
    return jacobian_statistics(u, mask).nonpositive_fraction


class NonpositiveFraction(Metric):
    """Share of voxels where the field folds: Jacobian determinant of 0 or less.

    Of the voxels of the mask where there is one, else of all voxels, borders included.
    """

    name: ClassVar[str] = "nonpositive_fraction"
    units: ClassVar[Mapping[str, str]] = {"strict": "1"}
    better: ClassVar[Better] = "lower"
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        return self.values(profile, [(ALL, context.jacobian.nonpositive_fraction)])
