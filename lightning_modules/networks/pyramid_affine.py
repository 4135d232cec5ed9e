"""The affine step of a level of the registration pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reg_bench.field.checks import at_least_float32
from reg_bench.transformation.affine_maps import about_centre, affine_displacement


class AffineEstimator(nn.Module):
    """The affine step between two feature maps, from their means alone (PAPERS.md 2.1).

    Zero at first, so that training starts at the identity.

    Args:
        dimension: 2 or 3.
        width: channels of either map.
    """

    def __init__(self, dimension: int, width: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.linear = nn.Linear(2 * width, dimension * (dimension + 1))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, fixed: Tensor, warped: Tensor) -> Tensor:
        """The offset from the identity `(B, D, D + 1)` of maps `(B, C, *S)`."""
        means = torch.cat([features.flatten(2).mean(dim=2) for features in (fixed, warped)], dim=1)
        offset = self.linear(means)
        return offset.to(at_least_float32(offset)).reshape(-1, self.dimension, self.dimension + 1)


def affine_field(offset: Tensor, shape: Sequence[int]) -> Tensor:
    """The displacement of the map `x -> (I + A) x + t` in coordinates of -1 to 1 along every axis.

    Args:
        offset: `(B, D, D + 1)`, `A` and `t`.
        shape: of the grid.

    Returns:
        `(B, D, *S)` voxels.
    """
    dims = len(shape)
    extent = offset.new_tensor([2 / max(n - 1, 1) for n in shape]).expand(len(offset), -1)
    linear = offset[:, :, :dims] + torch.eye(dims, dtype=offset.dtype, device=offset.device)
    return affine_displacement(about_centre(linear, offset[:, :, dims], shape, extent), shape)


def mapped_vectors(offset: Tensor, u: Tensor) -> Tensor:
    """`(I + A) u(x) + t` in voxels: the affine step as the paper's code has it, on vectors instead of coordinates.

    Args:
        offset: `(B, D, D + 1)`, `A` and `t`.
        u: `(B, D, *S)`, voxels.
    """
    dims = u.shape[1]
    moved = (offset[:, :, :dims, None] * u.flatten(2)[:, None]).sum(dim=2) + offset[:, :, dims:]
    return u + moved.reshape(u.shape)
