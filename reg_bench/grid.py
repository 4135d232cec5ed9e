"""Where the voxels of an image lie in the world, and the change between the conventions of ITK and NIfTI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import DataError

# Two grids are equal if no corner voxel is further apart than this share of a voxel: headers store float32, and
# some tools only a few decimals.
_GRID_TOLERANCE = 1e-2


def _lps_flip(dims: int) -> NDArray[np.float64]:
    """LPS to RAS and back: the first two axes change their sign."""
    flip: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0][:dims])
    return flip


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie in the world: LPS millimetres, as in ITK.

    Attributes:
        shape: number of voxels along each axis.
        spacing_mm: distance of neighbouring voxels along each axis.
        origin: centre of the first voxel.
        direction: unit vectors of the axes as the columns of a matrix, flattened row by row.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        dims = self.dimension
        if dims not in (2, 3) or any(n < 1 for n in self.shape):
            raise DataError(f"a grid needs 2 or 3 axes of at least one voxel, got shape {self.shape}")
        if (len(self.spacing_mm), len(self.origin), len(self.direction)) != (dims, dims, dims * dims):
            raise DataError(f"spacing, origin and direction of a grid must fit its {dims} axes, got {self}")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise DataError(f"zero, negative or not finite spacing {self.spacing_mm} mm; expected positive numbers")
        matrix = self.direction_matrix
        if not np.isfinite(matrix).all() or abs(abs(np.linalg.det(matrix)) - 1) > 1e-2:
            raise DataError(f"singular or sheared direction {matrix.tolist()}; expected orthonormal axes")

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def direction_matrix(self) -> NDArray[np.float64]:
        """`(D, D)`, the axes as columns, LPS."""
        return np.asarray(self.direction, dtype=np.float64).reshape(self.dimension, self.dimension)

    def affine_lps(self) -> NDArray[np.float64]:
        """`(D + 1, D + 1)`: voxel index to LPS millimetres."""
        affine = np.eye(self.dimension + 1)
        affine[:-1, :-1] = self.direction_matrix * np.asarray(self.spacing_mm)
        affine[:-1, -1] = self.origin
        return affine

    def affine_ras(self) -> NDArray[np.float64]:
        """`(D + 1, D + 1)`: voxel index to RAS millimetres."""
        affine = self.affine_lps()
        affine[:-1] = _lps_flip(self.dimension) @ affine[:-1]
        return affine

    @classmethod
    def from_affine(cls, affine: NDArray[Any], shape: tuple[int, ...]) -> Self:
        """The grid of an affine `(D + 1, D + 1)`, voxel index to RAS millimetres.

        Raises:
            DataError: the affine is singular or sheared, or does not fit the shape.
        """
        dims = len(shape)
        affine = np.asarray(affine, dtype=np.float64)
        if affine.shape != (dims + 1, dims + 1):
            raise DataError(f"affine of shape {affine.shape}, expected {(dims + 1, dims + 1)} for {dims} axes")
        matrix = _lps_flip(dims) @ affine[:-1, :-1]
        spacing = np.linalg.norm(matrix, axis=0)
        if not np.isfinite(affine).all() or (spacing == 0).any():
            raise DataError(f"singular affine {affine.tolist()}; expected {dims} independent axes")
        origin = _lps_flip(dims) @ affine[:-1, -1]
        flat = (matrix / spacing).ravel()
        return cls(
            tuple(int(n) for n in shape),
            tuple(float(s) for s in spacing),
            tuple(float(o) for o in origin),
            tuple(float(d) for d in flat),
        )

    def to_voxels(self, points_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """World points `(N, D)` in LPS mm as voxel coordinates."""
        affine = self.affine_lps()
        return np.asarray(np.linalg.solve(affine[:-1, :-1], (points_lps_mm - affine[:-1, -1]).T).T, np.float64)

    def to_world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel coordinates `(N, D)` as world points in LPS mm."""
        affine = self.affine_lps()
        world: NDArray[np.float64] = points @ affine[:-1, :-1].T + affine[:-1, -1]
        return world

    def describe(self) -> str:
        """Shape, spacing, origin and direction in one line for messages."""
        numbers = (
            f"{name} ({', '.join(f'{v:.5g}' for v in values)})"
            for name, values in (
                ("spacing", self.spacing_mm),
                ("origin", self.origin),
                ("direction", self.direction),
            )
        )
        return f"shape {self.shape}, {', '.join(numbers)} [LPS mm]"


def grids_equal(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same shape and no voxel further apart than a hundredth of a voxel."""
    if a.shape != b.shape:
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape])).reshape(a.dimension, -1).T.astype(np.float64)
    apart = np.abs(a.to_voxels(b.to_world(corners)) - corners)
    spacing = np.abs(np.asarray(a.spacing_mm) / np.asarray(b.spacing_mm) - 1)
    turn = np.abs(a.direction_matrix - b.direction_matrix)
    return bool(max(apart.max(), spacing.max(), turn.max()) < _GRID_TOLERANCE)
