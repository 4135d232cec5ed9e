"""Linear elasticity: the energy of small strains of an isotropic material."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from reg_bench.regularization.base import Regularizer, prepared
from reg_bench.regularization.stencils import (
    AVERAGE,
    DIFFERENCE,
    Stencil,
    Term,
    along_axis,
    quadratic_energy,
    ratio,
)


class LinearElastic(Regularizer):
    """`mean [mu / 4 sum_jk (d_j u_k + d_k u_j)^2 + lam / 2 (div u)^2]`, thesis equation 2.36.

    The elastic potential of Broit (1981) in the form of Modersitzki (2004), whose gradient is
    `-(mu Laplacian u + (mu + lam) grad div u)` divided by the number of voxels. Strains live where their differences
    are centred: normal ones between two voxels, shears in the middle of four, the divergence in the middle of a cell,
    so that no alternating field escapes and every term is a square. Zero for infinitesimal rigid motion, that is
    `u(x) = A x + b` with physically antisymmetric `A`.
    """

    def __init__(self, mu: float = 1.0, lam: float = 0.0) -> None:
        """
        Args:
            mu: shear modulus, Lamé's second constant, above 0.
            lam: Lamé's first constant, at least 0: resistance to changes of volume.
        """
        super().__init__()
        check_moduli("LinearElastic", mu, lam)
        self.mu, self.lam = mu, lam

    def forward(self, u: Tensor, spacing_mm: Tensor | None = None) -> Tensor:
        u, edges = prepared("LinearElastic", u, spacing_mm)
        return elastic_energy(u, edges, self.mu, self.lam)


def check_moduli(name: str, mu: float, lam: float) -> None:
    """Raises `ValueError` where the material would not resist deformation."""
    if not mu > 0 or not lam >= 0:
        raise ValueError(f"{name}: needs mu > 0 and lam >= 0, got mu {mu} and lam {lam}")


def elastic_energy(u: Tensor, edges: Tensor | None, mu: float, lam: float) -> Tensor:
    """The elastic energy `(B,)` of `u (B, D, *S)` in voxels, with edges as from `prepared`."""
    return quadratic_energy(u, list(_terms(u.shape[1], edges, mu, lam)))


def _terms(dims: int, edges: Tensor | None, mu: float, lam: float) -> Iterator[Term]:
    for j in range(dims):
        yield Term(mu, (Stencil(j, along_axis(dims, (j, DIFFERENCE))),))
        for k in range(j + 1, dims):
            shear = (
                Stencil(k, along_axis(dims, (j, DIFFERENCE), (k, AVERAGE)), ratio(edges, k, j)),
                Stencil(j, along_axis(dims, (k, DIFFERENCE), (j, AVERAGE)), ratio(edges, j, k)),
            )
            yield Term(mu / 2, shear)
    divergence = (Stencil(j, along_axis(dims, (j, DIFFERENCE), rest=AVERAGE)) for j in range(dims))
    yield Term(lam / 2, tuple(divergence))
