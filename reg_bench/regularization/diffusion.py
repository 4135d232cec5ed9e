"""Diffusion regularization: the mean squared gradient of a field."""

from __future__ import annotations

from torch import Tensor

from reg_bench.regularization.base import Regularizer, prepared
from reg_bench.regularization.stencils import DIFFERENCE, Stencil, Term, along_axis, quadratic_energy, ratio


class Diffusion(Regularizer):
    """`1/2 mean sum_c |grad u_c|^2`, thesis equation 2.34.

    Differences of neighbours, averaged over the pairs of each axis, so that an affine field has its exact value. The
    gradient is the negative Laplacian with Neumann borders, divided by the number of pairs. Zero for constants.
    `2 / D` times it is the usual mean over the components, as in MONAI, which takes central differences instead: those
    do not see a field that alternates from voxel to voxel.
    """

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        u, edges = prepared("Diffusion", u, spacing_mm)
        dims = u.shape[1]
        terms = [
            Term(0.5, (Stencil(c, along_axis(dims, (a, DIFFERENCE)), ratio(edges, c, a)),))
            for c in range(dims)
            for a in range(dims)
        ]
        return quadratic_energy(u, terms)
