"""The affine function that comes nearest to scattered values: what is left when there are too few for more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.field.checks import identity_grid

# Points that extend less than this share of their extent across a line (plane) count as lying on it.
_FLAT = 1e-4


def affine_trend(points: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """The weighted least-squares fit `f(x) = a + x B`; where points do not determine it, the one of least slope.

    One point gives a constant, two a function that changes between them only, none gives zero.

    Args:
        points: `(B, N, D)`, voxels.
        values: `(B, N, C)`.
        weights: `(B, N)`, at least 0.

    Returns:
        `(B, D + 1, C)` float64: `a`, then the rows of `B`.
    """
    x, y, w = points.to(torch.float64), values.to(torch.float64), weights.to(torch.float64)[:, :, None]
    total = w.sum(dim=1, keepdim=True)
    w = w / torch.where(total > 0, total, torch.ones_like(total))
    centre, mean = (w * x).sum(dim=1, keepdim=True), (w * y).sum(dim=1, keepdim=True)
    away = (x - centre) * w
    moments = away.transpose(1, 2) @ (x - centre)
    slope = torch.linalg.pinv(moments, rtol=_FLAT**2, hermitian=True) @ (away.transpose(1, 2) @ (y - mean))
    return torch.cat((mean - centre @ slope, slope), dim=1)


def trend_at(trend: Tensor, points: Tensor) -> Tensor:
    """The values `(B, N, C)` of `trend (B, D + 1, C)` at `points (B, N, D)`, in the dtype of the points."""
    return (trend[:, :1] + points.to(trend.dtype) @ trend[:, 1:]).to(points.dtype)


def trend_on_grid(trend: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The values `(B, C, *S)` of `trend (B, D + 1, C)` at the voxels of a grid."""
    grid = identity_grid(shape, trend.device, trend.dtype).flatten(1).T
    values = trend[:, :1] + grid @ trend[:, 1:]
    return values.transpose(1, 2).reshape(len(trend), -1, *shape).to(dtype)
