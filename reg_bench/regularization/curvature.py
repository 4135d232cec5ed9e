"""Curvature regularization: the mean squared Laplacian of a field."""

from __future__ import annotations

from torch import Tensor

from reg_bench.regularization.base import Regularizer, prepared
from reg_bench.regularization.stencils import BORDERED, Stencil, Term, along_axis, quadratic_energy, ratio


class Curvature(Regularizer):
    """`1/2 mean sum_c (Laplacian u_c)^2`, thesis equation 2.35; Fischer & Modersitzki, JMIV 18 (2003).

    Second differences over three voxels; at the first and last voxel of an axis they repeat those of the neighbour, as
    one-sided differences do, so that the value is exact for quadratic fields up to the border and corners count. Zero
    for affine fields, which plain curvature does not resist. An axis shorter than 3 contributes nothing.
    """

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        u, edges = prepared("Curvature", u, spacing_mm)
        dims = u.shape[1]
        terms = [
            Term(
                0.5,
                tuple(Stencil(c, along_axis(dims, (a, BORDERED)), ratio(edges, c, a, a)) for a in range(dims)),
            )
            for c in range(dims)
        ]
        return quadratic_energy(u, terms)
