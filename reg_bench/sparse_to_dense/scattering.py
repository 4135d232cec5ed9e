"""Scattered values written onto a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.field.points import strides_of


def on_nearest_voxels(points: Tensor, values: Tensor, weights: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Every point's value, as it is, at the voxel nearest to it.

    Args:
        points: `(B, N, D)`, voxels; less than half a voxel beyond the outermost voxels.
        values: `(B, N, C)`.
        weights: `(B, N)`, at least 0; a point of weight 0 leaves no trace.
        shape: of the grid.

    Returns:
        the values `(B, C, *S)`, 0 where there is no point, and the mean by weight where several share a voxel; and the
        weights `(B, 1, *S)`, 0 where there is none, and the largest where there are several. Differentiable in values
        and weights.
    """
    last = torch.tensor([n - 1 for n in shape], device=points.device)
    nearest = torch.minimum((points.detach() + 0.5).floor().long().clamp(min=0), last)
    index = (nearest * torch.tensor(strides_of(shape), device=points.device)).sum(dim=2)[:, None]
    batch, _, channels = values.shape
    voxels = int(last.add(1).prod())
    weighted = torch.cat((values * weights[:, :, None], weights[:, :, None]), dim=2).transpose(1, 2)
    sums = weighted.new_zeros(batch, channels + 1, voxels).scatter_add(2, index.expand_as(weighted), weighted)
    total = sums[:, channels:]
    occupied = total > 0
    mean = sums[:, :channels] / torch.where(occupied, total, torch.ones_like(total))
    largest = total.new_zeros(batch, 1, voxels).scatter_reduce(2, index, weights[:, None], "amax")
    return mean.reshape(batch, channels, *shape), largest.reshape(batch, 1, *shape)
