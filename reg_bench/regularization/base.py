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
    `h = spacing_mm / geometric_mean(spacing_mm)`, component `c` is `u[c] h[c]` and a derivative along axis `a` is
    the difference along it divided by `h[a]`. An axis of length 1 contributes no derivative.
    """

    @abstractmethod
    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        """The energy, a mean over the grid.

        Args:
            u: `(B, D, *S)`, voxels of its grid (per unit time, for a velocity).
            spacing_mm: `(B, D)`; `None` means isotropic.

        Returns:
            `(B,)`, in the dtype of `u` and never below float32; differentiable in `u`, twice as well.

        Raises:
            ValueError: a wrong shape, or spacing that is not positive and finite.
        """


def prepared(name: str, u: Tensor, spacing_mm: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A field in the dtype to compute in, and its voxel edges in units of their geometric mean.

    Args:
        name: who asks, for messages.
        u: `(B, D, *S)`, voxels.
        spacing_mm: `(B, D)`, or `None` for isotropic voxels.

    Returns:
        `u` in at least float32, and the edges `(B, D)` in its dtype, or `None` where every case is isotropic.

    Raises:
        ValueError: a wrong shape, or spacing that is not positive and finite.
    """
    check_field(name, u)
    u = u.to(at_least_float32(u))
    if spacing_mm is None:
        return u, None
    if tuple(spacing_mm.shape) != tuple(u.shape[:2]):
        raise ValueError(
            f"{name}: spacing_mm must be (B, D) = {tuple(u.shape[:2])}, got shape {tuple(spacing_mm.shape)}"
        )
    # Not every device has float64; on the host these few numbers cost nothing.
    spacing = spacing_mm.detach().to(device="cpu", dtype=torch.float64)
    if not bool((spacing.isfinite() & (spacing > 0)).all()):
        raise ValueError(f"{name}: spacing_mm must be positive and finite, got {spacing.tolist()}")
    logs = spacing.log()
    edges = (logs - logs.mean(dim=1, keepdim=True)).exp()
    # Equal edges leave rounding errors of the logarithm, which are no anisotropy.
    if bool(((edges - 1).abs() < 1e-12).all()):
        return u, None
    return u, edges.to(device=u.device, dtype=u.dtype)
