"""Bending energy: the mean square of all second derivatives of a field."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from reg_bench.regularization.base import Regularizer, prepared
from reg_bench.regularization.stencils import DIFFERENCE, SECOND, Stencil, Term, along_axis, quadratic_energy, ratio


class BendingEnergy(Regularizer):
    """`1/2 mean sum_c sum_ab (d^2 u_c / dx_a dx_b)^2`: Rueckert et al., IEEE TMI 18 (1999), with the factor 1/2.

    Pure second differences where they exist; mixed ones over the four corners of a cell. Zero for affine fields only,
    unlike `Curvature`, whose Laplacian harmonic fields escape. `2 / D` times it is the usual mean over the components,
    as in MONAI, which takes mixed derivatives over wider central differences; for quadratic fields both are equal.
    """

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        u, edges = prepared("BendingEnergy", u, spacing_mm)
        return quadratic_energy(u, list(_terms(u.shape[1], edges)))


def _terms(dims: int, edges: Tensor | None) -> Iterator[Term]:
    for c in range(dims):
        for a in range(dims):
            yield Term(0.5, (Stencil(c, along_axis(dims, (a, SECOND)), ratio(edges, c, a, a)),))
            for b in range(a + 1, dims):
                mixed = along_axis(dims, (a, DIFFERENCE), (b, DIFFERENCE))
                # Both orders of the mixed derivative: twice one half.
                yield Term(1.0, (Stencil(c, mixed, ratio(edges, c, a, b)),))
