"""How well a backward field undoes the forward one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from reg_bench import field as fields
from reg_bench.metrics.arrays import one_field, one_mask, scale_of
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.label_maps import blocks
from reg_bench.types import DisplacementField

# The warp works in smaller blocks of its own; each call of it has its price.
_BLOCK_VOXELS = 1 << 20


def inverse_consistency(
    forward: DisplacementField | Tensor,
    backward: DisplacementField | Tensor,
    spacing_mm: Any = None,
    mask: Tensor | None = None,
) -> float:
    """Mean of `|u(x) + v(x + u(x))|`, the vector magnitude error of going there and back.

    Linear interpolation of `v`, whose border values are repeated outside its grid.

    Args:
        forward: `u`, `(1, D, *S)` on the fixed grid, voxels.
        backward: `v`, `(1, D, *S_moving)` on the moving grid, voxels: the field of the swapped pair.
        spacing_mm: of the fixed grid, where the residual lives; in voxels without it.
        mask: `(*S)` or `(1, 1, *S)`; voxels over which the mean is taken.

    Returns:
        The mean; NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    u, v = one_field("inverse_consistency", forward), one_field("inverse_consistency", backward)
    spatial = tuple(u.shape[1:])
    inside = one_mask("inverse_consistency", mask, spatial)
    scale = scale_of("inverse_consistency", spacing_mm, len(spatial)).to(u.dtype)
    scale = scale.reshape(-1, *(1,) * len(spatial))
    total, count = 0.0, 0
    for block in blocks(spatial, _BLOCK_VOXELS):
        residual = _there_and_back(u, v, block).mul_(scale).square_().sum(0).sqrt_()
        residual = residual if inside is None else residual[inside[block]]
        total += float(residual.sum(dtype=torch.float64))
        count += residual.numel()
    return total / count if count else math.nan


def _there_and_back(u: Tensor, v: Tensor, block: slice) -> Tensor:
    """`u(x) + v(x + u(x))` on a block of the first axis: the block is a grid of its own that starts at 0."""
    piece = u[:, block]
    shifted = piece.clone()
    shifted[0] += block.start
    return fields.warp(v[None].to(piece.dtype), shifted[None])[0] + piece


class InverseConsistency(Metric):
    """Mean length of `u(x) + v(x + u(x))` for the forward field u and the backward field v (VME).

    Over the voxels of the mask where there is one, else over all. Needs the field of the swapped pair.
    """

    name: ClassVar[str] = "inverse_consistency"
    units: ClassVar[Mapping[str, str]] = {"strict": "mm"}
    better: ClassVar[Better] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("backward",)
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        assert context.backward is not None
        error = inverse_consistency(context.u, context.backward, context.spacing_mm, context.mask)
        return self.values(profile, [(ALL, error)], context.length_unit)
