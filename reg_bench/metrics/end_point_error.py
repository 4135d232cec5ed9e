"""Distance between the estimated and the true displacement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.metrics.arrays import one_field, one_mask, scale_of
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.label_maps import blocks
from reg_bench.types import DisplacementField


def end_point_error(
    field: DisplacementField | Tensor,
    true_field: DisplacementField | Tensor,
    spacing_mm: Any = None,
    mask: Tensor | None = None,
) -> float:
    """Mean of `|u - u_true|` over all voxels, or over the mask.

    Args:
        field, true_field: `(1, D, *S)` voxels of the fixed grid.
        spacing_mm: of the fixed grid; in voxels without it.
        mask: `(*S)` or `(1, 1, *S)`.

    Returns:
        The mean; NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    errors = end_point_errors(field, true_field, spacing_mm, mask)
    return float(errors.mean(dtype=np.float64)) if errors.size else math.nan


def end_point_errors(
    field: DisplacementField | Tensor,
    true_field: DisplacementField | Tensor,
    spacing_mm: Any = None,
    mask: Tensor | None = None,
) -> NDArray[np.floating]:
    """`|u - u_true|` of every voxel (of the mask), flat; arguments as in `end_point_error`."""
    u, truth = one_field("end_point_error", field), one_field("end_point_error", true_field)
    if u.shape != truth.shape:
        raise ValueError(f"end_point_error: fields of shapes {tuple(u.shape)} and {tuple(truth.shape)}")
    spatial = tuple(u.shape[1:])
    inside = one_mask("end_point_error", mask, spatial)
    scale = scale_of("end_point_error", spacing_mm, len(spatial)).to(u.dtype)
    scale = scale.reshape(-1, *(1,) * len(spatial))
    parts = []
    for block in blocks(spatial):
        error = (u[:, block] - truth[:, block]).mul_(scale).square_().sum(0).sqrt_()
        parts.append(error.reshape(-1) if inside is None else error[inside[block]])
    joined: NDArray[np.floating] = torch.cat(parts).numpy()
    return joined


class EndPointError(Metric):
    """Mean distance between estimated and true displacement, where the truth is known; `p95` beside it.

    Over the voxels of the mask where there is one, else over all. Null for an empty mask.
    """

    name: ClassVar[str] = "end_point_error"
    units: ClassVar[Mapping[str, str]] = {"strict": "mm"}
    better: ClassVar[Better] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("true_displacement",)
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        truth = context.pair.true_displacement
        assert truth is not None
        errors = end_point_errors(context.u, truth, context.spacing_mm, context.mask)
        if not errors.size:
            return self.values(profile, [("p95", None), (ALL, None)], context.length_unit)
        found = [("p95", float(np.quantile(errors, 0.95))), (ALL, float(errors.mean(dtype=np.float64)))]
        return self.values(profile, found, context.length_unit)
