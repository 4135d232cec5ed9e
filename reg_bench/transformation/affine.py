"""Affine transformations and the rigid motions, similarities and translations among them: thesis eqs. 2.5–2.8."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from reg_bench.transformation.affine_maps import (
    about_centre,
    affine_displacement,
    invert_affine,
    physical_about_centre,
)
from reg_bench.transformation.base import Domain, Transformation, check_theta, voxel_ratio

Kind = Literal["translation", "rigid", "similarity", "affine"]


class Affine(Transformation):
    """A linear map about the centre of the grid, in physical space, so that rigid is rigid on any voxels.

    `theta (B, P)` holds in this order what the kind has of them; lengths count in units of the geometric mean voxel
    edge and `r` is the half extent of the grid in that unit:

    - rotation: the angle times `r` (2-D), or the vector along the axis with that length (3-D);
    - scale (`similarity`): the logarithm of the scale times `r`;
    - matrix (`affine`): `A - I` row by row, column `j` times the half extent along axis `j`;
    - translation along the axes.

    So P is 2 / 3 / 4 / 6 in 2-D and 3 / 6 / 7 / 12 in 3-D.

    Args:
        kind: `translation`, `rigid`, `similarity` or `affine`.
    """

    def __init__(self, kind: Kind = "affine") -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"Affine: kind must be one of {get_args(Kind)}, got {kind!r}")
        self.kind = kind

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(self._count(domain.dimension))

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return affine_displacement(self.voxel_matrix(theta, domain), domain.shape)

    def inverse_displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        """As in the base.

        Raises:
            ValueError: the matrix is singular.
        """
        return affine_displacement(invert_affine(self.voxel_matrix(theta, domain)), domain.shape)

    def voxel_matrix(self, theta: Tensor, domain: Domain) -> Tensor:
        """The homogeneous matrices `(B, D + 1, D + 1)` with `x + u(x) = A x + b` in voxels."""
        dims = domain.dimension
        check_theta("Affine", theta, (domain.batch, self._count(dims)))
        edges, half = domain.edges().to(theta.dtype), _half_extents(domain).to(theta.dtype)
        linear = self._linear(theta[:, :-dims], half)
        return about_centre(linear, theta[:, -dims:], domain.shape, edges)

    def parameters_of(self, matrix: Tensor, domain: Domain) -> Tensor:
        """The parameters `(B, P)` of homogeneous voxel matrices `(B, D + 1, D + 1)`.

        A kind that cannot express the whole takes the nearest rotation (polar decomposition), the geometric mean
        of the scale factors, and the translation of the centre.

        Raises:
            ValueError: a matrix of a kind with a rotation reverses orientation.
        """
        edges, half = domain.edges().to(matrix.dtype), _half_extents(domain).to(matrix.dtype)
        linear, offset = physical_about_centre(matrix, domain.shape, edges)
        return torch.cat((*self._linear_parameters(linear, half), offset), dim=1)

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        dims = domain.dimension
        check_theta("Affine", theta, (domain.batch, self._count(dims)))
        old, new = _half_extents(domain), _half_extents(finer)
        if self.kind == "affine":
            # Through the voxel matrix: exact even where the spacing of one grid does not follow from the other's.
            matrix, ratio = self.voxel_matrix(theta, domain), voxel_ratio(domain, finer).to(theta.dtype)
            scale = torch.cat((ratio, ratio.new_ones(1)))
            return self.parameters_of(matrix * scale[:, None] / scale, finer)
        moved = theta[:, -dims:] / domain.edges() * voxel_ratio(domain, finer) * finer.edges()
        turned = theta[:, :-dims] * (new.amax(dim=1) / old.amax(dim=1))[:, None]
        return torch.cat((turned, moved), dim=1).to(theta.dtype)

    def _count(self, dims: int) -> int:
        turns = dims * (dims - 1) // 2
        return dims + {"translation": 0, "rigid": turns, "similarity": turns + 1, "affine": dims * dims}[self.kind]

    def _linear(self, values: Tensor, half: Tensor) -> Tensor:
        """`A (B, D, D)` of the parameters without the translation."""
        dims = half.shape[1]
        eye = torch.eye(dims, dtype=values.dtype, device=values.device).expand(len(values), -1, -1)
        if self.kind == "translation":
            return eye
        if self.kind == "affine":
            return eye + values.reshape(-1, dims, dims) / half[:, None, :]
        scaled = values / half.amax(dim=1, keepdim=True)
        turns = dims * (dims - 1) // 2
        rotation = rotation_matrix(scaled[:, :turns])
        return rotation if self.kind == "rigid" else rotation * scaled[:, turns].exp()[:, None, None]

    def _linear_parameters(self, linear: Tensor, half: Tensor) -> list[Tensor]:
        """The parameters without the translation of `A (B, D, D)`."""
        dims = half.shape[1]
        if self.kind == "translation":
            return []
        if self.kind == "affine":
            eye = torch.eye(dims, dtype=linear.dtype, device=linear.device)
            return [((linear - eye) * half[:, None, :]).flatten(1)]
        determinant = torch.linalg.det(linear)
        if bool((determinant <= 0).any()):
            raise ValueError(f"Affine: {self.kind} needs a matrix that keeps orientation, got {linear.tolist()}")
        left, _, right = torch.linalg.svd(linear)
        radius = half.amax(dim=1, keepdim=True)
        angles = rotation_angles(left @ right) * radius
        return [angles] if self.kind == "rigid" else [angles, determinant.log()[:, None] / dims * radius]


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotations of angles `(B, 1)` from the first axis towards the second, `(B, 2, 2)`, or of rotation vectors
    `(B, 3)` in radians, `(B, 3, 3)`."""
    if angles.shape[1] == 1:
        c, s = angles[:, 0].cos(), angles[:, 0].sin()
        return torch.stack((c, -s, s, c), dim=1).reshape(-1, 2, 2)
    square = angles.square().sum(dim=1, keepdim=True)
    # Half the angle: a series near 0, where the root has no derivative.
    small = square < 1e-2
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    near = 0.5 - square / 48 + square**2 / 3840 - square**3 / 645120
    x, y, z = (angles * torch.where(small, near, (angle / 2).sin() / angle)).unbind(dim=1)
    near = 1 - square / 8 + square**2 / 384 - square**3 / 46080 + square**4 / 10321920
    w = torch.where(small, near, (angle / 2).cos())[:, 0]
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def rotation_angles(rotation: Tensor) -> Tensor:
    """The angle `(B, 1)` or the rotation vector `(B, 3)` of rotations `(B, D, D)`, with angles of at most pi."""
    if rotation.shape[1] == 2:
        return torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])[:, None]
    quaternion = _quaternion(rotation)
    vector = quaternion[:, 1:]
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    angle = 2 * torch.atan2(length, quaternion[:, :1])
    return torch.where(length > 0, vector / length.clamp(min=torch.finfo(length.dtype).tiny) * angle, 2 * vector)


def _quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions `(B, 4)`, real part first and not negative: Bar-Itzhack, J. Guidance 23 (2000), eq. 2.

    The eigenvector of the largest eigenvalue of a symmetric matrix that is linear in the rotation, accurate for
    every angle.
    """
    r = rotation.unbind(dim=1)
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(dim=1) for row in r)
    rows = (
        (a + e + i, h - f, c - g, d - b),
        (h - f, a - e - i, b + d, c + g),
        (c - g, b + d, e - a - i, f + h),
        (d - b, c + g, f + h, i - a - e),
    )
    symmetric = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    q = torch.linalg.eigh(symmetric)[1][:, :, -1]
    return torch.where(q[:, :1] < 0, -q, q)


def _half_extents(domain: Domain) -> Tensor:
    """Half the extent along each axis in mean voxel edges, `(B, D)`; half a voxel for an axis of length 1."""
    edges = domain.edges()
    return edges * edges.new_tensor([max(n - 1, 1) / 2 for n in domain.shape])
