"""Homogeneous matrices on a grid: compose, invert, evaluate. Thesis eqs. 2.5–2.8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def compose_affine(a: Tensor, b: Tensor) -> Tensor:
    """The map that applies `b` first and `a` on the result: the product of two matrices `(B, D + 1, D + 1)`."""
    _check("compose_affine", a)
    _check("compose_affine", b)
    return a @ b


def invert_affine(matrix: Tensor) -> Tensor:
    """The inverse of homogeneous matrices `(B, D + 1, D + 1)`.

    Raises:
        ValueError: a matrix is singular.
    """
    _check("invert_affine", matrix)
    inverse, info = torch.linalg.inv_ex(matrix)
    if bool((info != 0).any()):
        raise ValueError(f"invert_affine: matrix must be invertible, got {matrix.tolist()}")
    return inverse


def affine_displacement(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The displacement `u(x) = A x + b - x` of homogeneous matrices in voxels.

    Args:
        matrix: `(B, D + 1, D + 1)`, voxels to voxels.
        shape: of the grid.

    Returns:
        `(B, D, *S)` voxels, differentiable in `matrix`.
    """
    _check("affine_displacement", matrix)
    dims = len(shape)
    if matrix.shape[1] != dims + 1:
        raise ValueError(f"affine_displacement: matrix must be (B, {dims + 1}, {dims + 1}), got {tuple(matrix.shape)}")
    linear = matrix[:, :dims, :dims] - torch.eye(dims, dtype=matrix.dtype, device=matrix.device)
    u = matrix[:, :dims, dims]
    # Axis by axis: all sums but the last are of fewer voxels than the grid has.
    for axis, length in enumerate(shape):
        index = torch.arange(length, dtype=matrix.dtype, device=matrix.device)
        step = linear[:, :, axis].reshape(*linear.shape[:2], *(1,) * axis, 1) * index
        u = u[..., None] + step
    return u


def about_centre(linear: Tensor, offset: Tensor, shape: Sequence[int], edges: Tensor) -> Tensor:
    """The voxel matrix of a physical map about the centre of the grid, `H^-1 (A H (x - c) + t) + c`.

    Args:
        linear: `A (B, D, D)`.
        offset: `t (B, D)`, in the unit of `edges`.
        shape: of the grid; its centre is `c = (n - 1) / 2`.
        edges: the diagonal of `H (B, D)`, what a voxel measures along each axis.

    Returns:
        `(B, D + 1, D + 1)` homogeneous, voxels to voxels.
    """
    voxel = linear * edges[:, None, :] / edges[:, :, None]
    centre = linear.new_tensor([(n - 1) / 2 for n in shape])
    shift = offset / edges + centre - (voxel * centre).sum(dim=2)
    bottom = linear.new_tensor([0.0] * len(shape) + [1.0]).expand(len(linear), 1, -1)
    return torch.cat((torch.cat((voxel, shift[:, :, None]), dim=2), bottom), dim=1)


def physical_about_centre(matrix: Tensor, shape: Sequence[int], edges: Tensor) -> tuple[Tensor, Tensor]:
    """`A (B, D, D)` and `t (B, D)` of which `about_centre` makes the voxel matrix `(B, D + 1, D + 1)`."""
    dims = len(shape)
    voxel = matrix[:, :dims, :dims]
    centre = matrix.new_tensor([(n - 1) / 2 for n in shape])
    offset = (matrix[:, :dims, dims] + voxel @ centre - centre) * edges
    return voxel * edges[:, :, None] / edges[:, None, :], offset


def _check(name: str, matrix: Tensor) -> None:
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2] or matrix.shape[1] not in (3, 4):
        raise ValueError(
            f"{name}: matrix must be homogeneous (B, D + 1, D + 1) with D = 2 or 3, got {tuple(matrix.shape)}"
        )
