"""What every regularizer is: an energy of a field, independent of the unit of the spacing and of the image size."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from reg_bench.field.checks import at_least_float32, check_field


class Regularizer(nn.Module, ABC):
    """The energy of a displacement or velocity field, one value per case; lower is smoother.

    Derivatives are physical. Lengths count in units of the geometric mean voxel edge of the case, so that a value
    does not depend on the unit of the spacing and equals the voxel formula on isotropic grids: with
    `h = spacing_mm / geometric_mean(spacing_mm)`, component `c` is `u[c] h[c]` and the derivative along axis `a` is
    the difference along it divided by `h[a]`.
    """

    @abstractmethod
    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        """The energy, a mean over the grid.

        Args:
            u: `(B, D, *S)`, voxels of its grid (per unit time, for a velocity).
            spacing_mm: `(B, D)`; `None` means isotropic.

        Returns:
            `(B,)`, in the dtype of `u` and never below float32.

        Raises:
            ValueError: a wrong shape, or spacing that is not positive.
        """


def physical(name: str, u: Tensor, spacing_mm: Tensor | None) -> tuple[Tensor, Tensor]:
    """The components of a field and the voxel edges in units of the geometric mean edge.

    Args:
        name: who asks, for messages.
        u: `(B, D, *S)`, voxels.
        spacing_mm: `(B, D)`, or `None` for isotropic voxels.

    Returns:
        the field `(B, D, *S)` with each component times its edge, and the edges `(B, D)`.

    Raises:
        ValueError: a wrong shape, or spacing that is not positive and finite.
    """
    check_field(name, u)
    u = u.to(at_least_float32(u))
    batch, dims = u.shape[:2]
    if spacing_mm is None:
        return u, u.new_ones((batch, dims))
    if tuple(spacing_mm.shape) != (batch, dims):
        raise ValueError(f"{name}: spacing_mm must be (B, D) = {(batch, dims)}, got shape {tuple(spacing_mm.shape)}")
    spacing = spacing_mm.to(device=u.device, dtype=torch.float64 if u.device.type == "cpu" else u.dtype)
    if not bool((spacing.isfinite() & (spacing > 0)).all()):
        raise ValueError(f"{name}: spacing_mm must be positive and finite, got {spacing_mm.tolist()}")
    logs = spacing.log()
    edges = (logs - logs.mean(dim=1, keepdim=True)).exp().to(u.dtype)
    if bool((edges == 1).all()):
        return u, edges
    return u * edges.reshape(batch, dims, *(1,) * dims), edges


def mean_square(values: Tensor) -> Tensor:
    """The mean over the grid of the squares of `values (B, C, *S)`: `(B, C)`; 0 where an axis is empty."""
    flat = values.flatten(2)
    return flat.square().sum(dim=2) / max(1, flat.shape[2])


def derivative(u: Tensor, axis: int) -> Tensor:
    """The difference along spatial `axis` per voxel, at every voxel: `(B, C, *S)`.

    Central inside and one-sided at the border, as `numpy.gradient`; zero along an axis of length 1.
    """
    dim, length = axis + 2, u.shape[axis + 2]
    if length == 1:
        return torch.zeros_like(u)
    edges = u.diff(dim=dim)
    first, last = edges.narrow(dim, 0, 1), edges.narrow(dim, length - 2, 1)
    if length == 2:
        return torch.cat((first, last), dim=dim)
    inner = (u.narrow(dim, 2, length - 2) - u.narrow(dim, 0, length - 2)) / 2
    return torch.cat((first, inner, last), dim=dim)
