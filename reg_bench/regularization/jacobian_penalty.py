"""Penalties on the Jacobian determinant: against folding, and against changes of volume."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from reg_bench.field.jacobian import jacobian_determinant
from reg_bench.regularization.base import Regularizer, prepared

Kind = Literal["folding", "volume"]


class JacobianPenalty(Regularizer):
    """The mean over the grid of a function of `det(I + grad u)`, thesis equation 2.54.

    `folding`: `max(0, eps - det)^2`, zero where no voxel is compressed below `eps`. `volume`: `log(det)^2`, zero where
    volumes are kept, alike for halving and doubling; below `eps` it goes on along its tangent, so that folded voxels
    have a finite value and are pushed back. The determinant is that of `field.jacobian_determinant`, which the metrics
    count; it does not depend on the spacing.
    """

    def __init__(self, kind: Kind = "folding", eps: float = 0.05) -> None:
        """
        Args:
            kind: which function.
            eps: the determinant below which a voxel counts as folding, in (0, 1).
        """
        super().__init__()
        if kind not in ("folding", "volume"):
            raise ValueError(f"JacobianPenalty: kind must be folding or volume, got {kind!r}")
        if not 0 < eps < 1:
            raise ValueError(f"JacobianPenalty: eps must lie in (0, 1), got {eps}")
        self.kind, self.eps = kind, eps

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        u, _ = prepared("JacobianPenalty", u, spacing_mm)
        determinant = jacobian_determinant(u).flatten(1)
        penalty = folding_penalty if self.kind == "folding" else volume_penalty
        return penalty(determinant, self.eps).mean(dim=1)


def folding_penalty(determinant: Tensor, eps: float) -> Tensor:
    """`max(0, eps - det)^2`, elementwise."""
    return torch.relu(eps - determinant).square()


def volume_penalty(determinant: Tensor, eps: float) -> Tensor:
    """`log(det)^2`, elementwise, continued below `eps` by its tangent there; convex up to `det = e`."""
    squared = determinant.clamp(min=eps).log().square()
    slope = 2 * math.log(eps) / eps
    return squared + slope * (determinant - eps).clamp(max=0)
