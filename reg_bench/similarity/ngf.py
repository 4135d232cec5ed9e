"""Normalised gradient fields: edges that point the same way, whatever their contrast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import Analytic, Evaluate, Similarity, check_fixed, inverse_edges, mean_weights, share
from reg_bench.similarity.box_sums import PaddedLayout, Slab, slabs
from reg_bench.similarity.differences import add_adjoint, difference

# Keeps the unit vectors of an image without any gradient finite.
_LEAST_SQUARE = 1e-20


class NGF(Similarity):
    """One minus the squared cosine between the images' gradients, thesis (2.29)-(2.31); mean over channels.

    For images of different modalities, whose edges coincide. Gradients are divided by `sqrt(|∇I|² + ε²)`, so that
    weak ones, which are noise, count little; `ε` is `noise` times the mean gradient magnitude of the image over the
    voxels that count, thesis (2.31), and is differentiated as well. Strong parallel and antiparallel gradients give
    0, orthogonal ones and flat parts 1.

    Gradients are physical, in units of the geometric mean voxel edge: the unit of the spacing does not matter.

    Args:
        noise: `η` of (2.31); 1 takes gradients below the mean for noise.

    Raises:
        ValueError: noise that is not positive.
    """

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        if not noise > 0:
            raise ValueError(f"NGF: noise must be positive, got {noise}")
        self.noise = noise

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("NGF", fixed)
        weights = mean_weights("NGF", mask, fixed, at_least_float32(fixed))
        per_voxel = _edges_per_volume(inverse_edges("NGF", fixed, spacing_mm, at_least_float32(fixed)), fixed)
        return Analytic(
            "NGF", fixed, self._evaluate(weights, per_voxel, fixed), partial(self._evaluate, weights, per_voxel)
        )

    @torch.no_grad()
    def _evaluate(self, weights: Tensor | None, per_voxel: list[Tensor | None], fixed: Tensor) -> Evaluate:
        return _Bound(self.noise, fixed.detach(), weights, per_voxel).evaluate


def _edges_per_volume(edges: Tensor | None, fixed: Tensor) -> list[Tensor | None]:
    """The inverse edges along each axis for every volume, `(B C,)`."""
    if edges is None:
        return [None] * (fixed.ndim - 2)
    return list(edges.repeat_interleave(fixed.shape[1], dim=0).T)


class _Bound:
    """The fixed image's normalised gradients; all volumes are `(N, *S)`, `N` cases times channels.

    With `g` the gradient of the warped image, `u` the fixed normalised one, `s = |g|² + ε²` and `t = u·g / s`, a
    voxel's term is `(u·g)² / s = t u·g`, its derivative in `g` is `2 t u - 2 t² g`, and in `ε²` it is `-t²`.
    """

    def __init__(self, noise: float, fixed: Tensor, weights: Tensor | None, per_voxel: list[Tensor | None]) -> None:
        self._noise, self._shape, self._per_voxel = noise, fixed.shape, per_voxel
        self._dtype = at_least_float32(fixed)
        self._share = share(weights, fixed, self._dtype)
        each = fixed.new_tensor(1 / fixed[0, 0].numel(), dtype=self._dtype) if weights is None else weights
        self._weights = each.expand(fixed.shape).flatten(0, 1)
        volumes = fixed.to(self._dtype).flatten(0, 1)
        threshold, _ = self._thresholds(volumes, False)
        self._units = [torch.empty_like(volumes) for _ in range(fixed.ndim - 2)]
        for slab in self._slabs():
            gradients = self._gradients(volumes, slab)
            length = _squares(gradients).add_(_per_volume(threshold, slab).square()).clamp_(min=_LEAST_SQUARE).sqrt_()
            for unit, gradient in zip(self._units, gradients, strict=True):
                torch.div(gradient, length, out=_inside(unit, slab))

    def evaluate(self, warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        volumes = warped.to(self._dtype).flatten(0, 1)
        threshold, widening = self._thresholds(volumes, with_gradient)
        out = torch.zeros_like(volumes) if with_gradient else None
        terms, steepness = volumes.new_zeros((2, len(volumes)))
        for slab in self._slabs():
            more = self._terms(volumes, threshold, slab, out)
            terms[slab.cases] += more[0]
            steepness[slab.cases] += more[1]
        energy = self._share - terms.reshape(self._shape[:2]).mean(dim=1)
        if out is None or widening is None:
            return energy, None
        factor = 2 * self._noise * threshold * steepness
        out.addcmul_(widening, factor.reshape(-1, *(1,) * (out.ndim - 1))).div_(self._shape[1])
        return energy, out.reshape(self._shape).to(warped.dtype)

    def _slabs(self) -> Iterator[Slab]:
        spatial = tuple(self._shape[2:])
        layout = PaddedLayout(spatial, (1,) * len(spatial))
        return slabs(layout, self._shape[0] * self._shape[1], self._share.device)

    def _gradients(self, volumes: Tensor, slab: Slab) -> list[Tensor]:
        return [difference(volumes, axis, slab, factor) for axis, factor in enumerate(self._per_voxel)]

    def _add_adjoint(self, slopes: list[Tensor], slab: Slab, out: Tensor) -> None:
        for axis, (slope, factor) in enumerate(zip(slopes, self._per_voxel, strict=True)):
            add_adjoint(slope, axis, slab, out, factor)

    def _thresholds(self, volumes: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """`ε` of each volume, `(N,)`, and the derivative of the mean gradient magnitude if asked for, `(N, *S)`."""
        mean = volumes.new_zeros(len(volumes))
        out = torch.zeros_like(volumes) if with_gradient else None
        for slab in self._slabs():
            gradients, weights = self._gradients(volumes, slab), _inside(self._weights, slab)
            length = _squares(gradients).sqrt_()
            mean[slab.cases] += (length * weights).flatten(1).sum(dim=1)
            if out is not None:
                factor = weights / length.clamp_(min=torch.finfo(length.dtype).tiny)
                self._add_adjoint([g.mul_(factor) for g in gradients], slab, out)
        return self._noise * mean, out

    def _terms(self, volumes: Tensor, threshold: Tensor, slab: Slab, out: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sums of a slab's terms and of `t²`, `(k,)` each; adds the derivative at fixed `ε` to `out`."""
        gradients, weights = self._gradients(volumes, slab), _inside(self._weights, slab)
        square = _squares(gradients).add_(_per_volume(threshold, slab).square()).clamp_(min=_LEAST_SQUARE)
        units = [_inside(unit, slab) for unit in self._units]
        product = gradients[0] * units[0]
        for gradient, unit in zip(gradients[1:], units[1:], strict=True):
            product.addcmul_(gradient, unit)
        tangent = torch.div(product, square, out=square)
        weighted = tangent * weights
        total, steepness = (product.mul_(weighted), tangent * weighted)
        if out is not None:
            slopes = [g.mul_(tangent).sub_(u).mul_(weighted).mul_(2) for g, u in zip(gradients, units, strict=True)]
            self._add_adjoint(slopes, slab, out)
        return total.flatten(1).sum(dim=1), steepness.flatten(1).sum(dim=1)


def _squares(gradients: list[Tensor]) -> Tensor:
    total = gradients[0].square()
    for gradient in gradients[1:]:
        total.addcmul_(gradient, gradient)
    return total


def _inside(volumes: Tensor, slab: Slab) -> Tensor:
    return volumes[slab.cases, slab.start : slab.stop]


def _per_volume(values: Tensor, slab: Slab) -> Tensor:
    """`values (N,)` for the volumes of the slab, to multiply or add to `(k, planes, *S[1:])`."""
    return values[slab.cases].reshape(-1, *(1,) * len(slab.layout.shape))
