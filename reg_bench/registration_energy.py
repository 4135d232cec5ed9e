"""The energy that variational registration minimises: similarity plus weighted regularizer, of a model's parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.field import warp
from reg_bench.optimization import LeastSquares, Linearisation, Objective, through_displacement
from reg_bench.regularization import Regularizer
from reg_bench.similarity import Similarity
from reg_bench.transformation import Domain, Transformation


@dataclass(frozen=True)
class Energy:
    """`E(theta) = D(F, M o phi_theta) + weight R(theta)`, thesis equation 2.21, before it meets images.

    Attributes:
        transformation: the model of `phi`.
        similarity: `D`.
        regularizer: `R`, of the displacement or of the velocity of a flow; `None` for none.
        weight: of the regularizer, and of the energy that the model itself has (LDDMM's geodesic length).
        symmetric: whether `D` is the mean of both directions, `D(F, M o phi)` and `D(M, F o phi^-1)`: exchanging the
            images then gives the inverse map. The model must have an inverse.
    """

    transformation: Transformation
    similarity: Similarity
    regularizer: Regularizer | None = None
    weight: float = 1.0
    symmetric: bool = False

    def penalty(self, theta: Tensor, domain: Domain, u: Tensor | None = None) -> Tensor | None:
        """`weight R`, `(B,)`; `u` is the displacement of `theta`, where it is at hand already."""
        model, total = self.transformation, None
        if self.regularizer is not None and self.weight > 0:
            acted_on = model.regularized_domain(domain)
            same = type(model).regularized is Transformation.regularized
            field = u if same and u is not None else model.regularized(theta, domain)
            total = self.weight * self.regularizer(field, acted_on.spacing_mm)
        own = model.energy(theta, domain) if self.weight > 0 else None
        if own is None:
            return total
        return self.weight * own if total is None else total + self.weight * own


@dataclass(frozen=True)
class Images:
    """The images of one level: `fixed (B, C, *S)` and `moving (B, C, *S_m)` with the weights `mask (B, 1, *S)`."""

    fixed: Tensor
    moving: Tensor
    mask: Tensor | None
    domain: Domain


class ImageObjective(Objective):
    """The energy of the parameters on one level of the images, for any similarity."""

    def __init__(self, energy: Energy, images: Images) -> None:
        self._energy, self._images = energy, images
        spacing = images.domain.spacing_mm
        self._bound = energy.similarity.bind(images.fixed, images.mask, spacing)
        # The mask lies on the fixed grid and says nothing about the moving image.
        self._back = energy.similarity.bind(images.moving, None, spacing) if energy.symmetric else None

    def energy(self, theta: Tensor) -> Tensor:
        """Of `theta (B, *P)`: `(B,)`."""
        u = self._energy.transformation.displacement(theta, self._images.domain)
        value = self._bound(warp(self._images.moving, u))
        if self._back is not None:
            inverse = self._energy.transformation.inverse_displacement(theta, self._images.domain)
            assert inverse is not None
            value = (value + self._back(warp(self._images.fixed, inverse))) / 2
        penalty = self._energy.penalty(theta, self._images.domain, u)
        return value if penalty is None else value + penalty


class SquaredDifferences(LeastSquares):
    """The same for the sum of squared differences, as residuals: what Gauss–Newton and Levenberg–Marquardt take.

    The residuals are `sqrt(w) (M o phi - F)` with weights `w` of sum 1 over the grid, so that their squares add up to
    the similarity `SSD`.
    """

    def __init__(self, energy: Energy, images: Images) -> None:
        self._energy, self._images = energy, images
        fixed = images.fixed
        shape = (fixed.shape[0], 1, *fixed.shape[2:])
        weights = fixed.new_ones(shape) if images.mask is None else images.mask.to(fixed).expand(shape)
        total = weights.flatten(1).sum(1).clamp(min=torch.finfo(fixed.dtype).tiny)
        total = total.reshape(-1, *(1,) * (fixed.ndim - 1))
        self._root = (weights / total / fixed.shape[1]).sqrt()

    def _displacement(self, theta: Tensor) -> Tensor:
        return self._energy.transformation.displacement(theta, self._images.domain)

    def _compare(self, u: Tensor) -> Tensor:
        return (warp(self._images.moving, u) - self._images.fixed) * self._root

    def residuals(self, theta: Tensor) -> Tensor:
        """`(B, N)` of `theta (B, *P)`."""
        return self._compare(self._displacement(theta)).flatten(1)

    def penalty(self, theta: Tensor) -> Tensor | None:
        """The weighted regularizer, `(B,)`."""
        return self._energy.penalty(theta, self._images.domain)

    def linearise(self, theta: Tensor) -> Linearisation:
        """By the gradient of the warped image, in closed form."""
        return through_displacement(self._displacement, self._compare, theta)
