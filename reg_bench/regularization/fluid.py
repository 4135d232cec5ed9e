"""Viscous fluid: the elastic energy of a velocity instead of a displacement, and the smoothing that belongs to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reg_bench.regularization.base import Regularizer, prepared
from reg_bench.regularization.linear_elastic import check_moduli, elastic_energy


class Fluid(Regularizer):
    """The viscous-fluid energy of a velocity: thesis equation 2.36 applied to `v`; Christensen et al., 1996.

    The formula is that of `LinearElastic`; what differs is the field that it is given. A strain rate costs while it
    lasts and leaves no stress behind, so that large deformations stay affordable.

    `smooth` is the other side of the same operator: the velocity to which a force drives the fluid.
    """

    def __init__(self, mu: float = 1.0, lam: float = 0.0, mass: float = 0.01) -> None:
        """
        Args:
            mu, lam: viscosities, as in `LinearElastic`.
            mass: resistance to motion itself, above 0; only `smooth` has it, which needs it to have one solution.
        """
        super().__init__()
        check_moduli("Fluid", mu, lam)
        if not mass > 0:
            raise ValueError(f"Fluid: mass must be above 0, got {mass}")
        self.mu, self.lam, self.mass = mu, lam, mass

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        """The energy of the velocity `u (B, D, *S)`, voxels per unit time; see `Regularizer`."""
        u, edges = prepared("Fluid", u, spacing_mm)
        return elastic_energy(u, edges, self.mu, self.lam)

    def smooth(self, force: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        """The velocity `v` with `mass v - mu Laplacian v - (mu + lam) grad div v = force`: Green's function.

        The Laplacian is the one of neighbours and `grad div` made of central differences, on a grid that continues
        periodically: what happens at a border is felt at the opposite one.

        Args:
            force: `(B, D, *S)`, voxels of the grid (a displacement or velocity update, say).
            spacing_mm: `(B, D)`; `None` means isotropic.

        Returns:
            `(B, D, *S)`, in the same unit.
        """
        force, edges = prepared("Fluid", force, spacing_mm)
        dims, spatial = force.shape[1], force.shape[2:]
        edges = force.new_ones(force.shape[:2]) if edges is None else edges
        scale = edges.reshape(*edges.shape, *(1,) * dims)
        laplacian, central = _symbols(spatial, edges)
        axes = tuple(range(2, dims + 2))
        spectrum = torch.fft.rfftn(force * scale, dim=axes)
        # The inverse of a I + b q q^T (Sherman & Morrison).
        a, b = self.mass + self.mu * laplacian, self.mu + self.lam
        along = sum(central[axis] * spectrum[:, axis : axis + 1] for axis in range(dims))
        shared = b * along / (a + b * sum(q.square() for q in central))
        parts = [spectrum[:, axis : axis + 1] - central[axis] * shared for axis in range(dims)]
        velocity: Tensor = torch.fft.irfftn(torch.cat(parts, dim=1) / a, s=tuple(spatial), dim=axes)
        return velocity / scale


def _symbols(spatial: torch.Size, edges: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Eigenvalues of the negative Laplacian `(B, 1, *F)`, and of `-i` times the central difference along each axis."""
    laplacian, central = edges.new_zeros(()), []
    for axis, n in enumerate(spatial):
        last = axis == len(spatial) - 1
        turns = torch.arange(n // 2 + 1 if last else n, device=edges.device, dtype=edges.dtype) / n
        shape = [1, 1] + [-1 if a == axis else 1 for a in range(len(spatial))]
        angle = (2 * math.pi * turns).reshape(shape)
        edge = edges[:, axis].reshape(-1, *(1,) * (len(spatial) + 1))
        laplacian = laplacian + (2 * torch.sin(angle / 2) / edge).square()
        central.append(torch.sin(angle) / edge)
    return laplacian, central
