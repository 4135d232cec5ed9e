"""An affine map of points, per case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.field import identity_grid


@dataclass(frozen=True)
class AffineMap:
    """`x` goes to `matrix x + offset`, in whatever unit the points have (mm where the spacing is known).

    Attributes:
        matrix: `(B, D, D)`.
        offset: `(B, D)`.
    """

    matrix: Tensor
    offset: Tensor

    def __post_init__(self) -> None:
        if self.matrix.ndim != 3 or self.matrix.shape[1:] != (self.matrix.shape[2],) * 2:
            raise ValueError(f"AffineMap: matrix must be (B, D, D), got shape {tuple(self.matrix.shape)}")
        if self.offset.shape != self.matrix.shape[:2]:
            raise ValueError(
                f"AffineMap: offset must be {tuple(self.matrix.shape[:2])}, got shape {tuple(self.offset.shape)}"
            )

    @classmethod
    def identity(cls, batch: int, dims: int, device: torch.device | str = "cpu") -> AffineMap:
        """The map that moves nothing, float64."""
        eye = torch.eye(dims, dtype=torch.float64, device=device)
        return cls(eye.expand(batch, dims, dims).clone(), eye.new_zeros(batch, dims))

    @property
    def dimension(self) -> int:
        return int(self.matrix.shape[2])

    def __call__(self, points: Tensor) -> Tensor:
        """The images `(B, N, D)` of points `(B, N, D)`."""
        return points @ self.matrix.mT + self.offset[:, None]

    def inverse(self) -> AffineMap:
        """The map back; fails where the matrix is singular."""
        back = torch.linalg.inv(self.matrix)
        return AffineMap(back, -(back @ self.offset[..., None])[..., 0])

    def after(self, first: AffineMap) -> AffineMap:
        """`first`, then this one."""
        return AffineMap(self.matrix @ first.matrix, (self.matrix @ first.offset[..., None])[..., 0] + self.offset)

    def displacement(self, shape: Sequence[int], fixed_edges: Tensor, moving_edges: Tensor) -> Tensor:
        """The displacement field of the map from fixed to moving points, index to index.

        Args:
            shape: of the fixed grid.
            fixed_edges, moving_edges: `(B, D)` lengths of the voxel edges in the unit of the map; voxel 0 of both
                grids lies at the origin.

        Returns:
            `(B, D, *S)` voxels, `u(x) = T(x e_fixed) / e_moving - x`, in the dtype of the matrix.
        """
        dims = self.dimension
        in_voxels = self.matrix * fixed_edges[:, None] / moving_edges[..., None]
        eye = torch.eye(dims, dtype=self.matrix.dtype, device=self.matrix.device)
        grid = identity_grid(shape, self.matrix.device, self.matrix.dtype)
        u = torch.einsum("bij,j...->bi...", in_voxels - eye, grid)
        return u + (self.offset / moving_edges).reshape(*self.offset.shape, *(1,) * dims)
