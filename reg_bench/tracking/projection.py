"""Fewer channels for every tracker, by a factorised projection (Danelljan et al., CVPR 2017, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.tracking.band import Band
from reg_bench.tracking.spatial_penalty import SpatialPenalty

# Of a Gauss-Newton step, before it is given up.
_HALVINGS = 5


def project(samples: Tensor, projection: Tensor) -> Tensor:
    """`z_c = sum_k P_kc x_k`: samples `(M, K, ...)` by projections `(M, K, C)` to `(M, C, ...)`."""
    flat = torch.view_as_real(samples).flatten(2)
    out = (projection.transpose(1, 2) @ flat).reshape(*projection.shape[::2], *samples.shape[2:], 2)
    return torch.view_as_complex(out)


def principal_projection(band: Band, samples: Tensor, channels: int) -> Tensor:
    """The projections `(M, K, C)` onto the strongest principal components of the channels of `samples (M, K, ...)`."""
    if not 1 <= channels <= samples.shape[1]:
        raise ValueError(f"principal_projection: channels must lie in 1..{samples.shape[1]}, got {channels}")
    flat = torch.view_as_real(samples * (band.multiplicity(samples) / band.size**2)).flatten(2)
    covariance = flat @ torch.view_as_real(samples).flatten(2).transpose(1, 2)
    return torch.linalg.eigh(covariance).eigenvectors[..., -channels:].flip(-1)


@dataclass(frozen=True)
class FirstFrame:
    """Filter and projection learned together on the samples of the reference: `|y - f * (P x)|^2` and both penalties.

    Attributes:
        band: of the spectra.
        samples: `x (M, K, 2 m + 1, m + 1)`.
        label: `y`, broadcast to `(M, 2 m + 1, m + 1)`.
        penalty: of the filters.
        weight: of the squared projection.
    """

    band: Band
    samples: Tensor
    label: Tensor
    penalty: SpatialPenalty
    weight: float

    def loss(self, filters: Tensor, projection: Tensor) -> Tensor:
        """`(M,)`."""
        missing = self.label.conj() - self._response(filters, projection)
        data = self.band.inner(missing, missing)
        spatial = self.band.inner(filters, self.penalty.times(filters)).sum(1)
        return data + spatial + self.weight * projection.square().sum((1, 2))

    def refined(self, filters: Tensor, projection: Tensor, steps: int, iterations: int) -> tuple[Tensor, Tensor]:
        """Gauss-Newton steps, each by so many conjugate gradients, halved for every tracker until they help it."""
        loss = self.loss(filters, projection)
        for _ in range(steps):
            step = self._gauss_newton(filters, projection, iterations)
            length = torch.ones_like(loss)
            for _ in range(_HALVINGS):
                tried = _plus((filters, projection), length, step)
                better = self.loss(*tried) < loss
                length = torch.where(better, length, length / 2)
            tried = _plus((filters, projection), torch.where(better, length, 0.0), step)
            filters, projection, loss = *tried, self.loss(*tried)
        return filters, projection

    def _response(self, filters: Tensor, projection: Tensor) -> Tensor:
        """The conjugate response `z^H f (M, ...)`."""
        return (project(self.samples, projection).conj() * filters).sum(1)

    def _gauss_newton(self, filters: Tensor, projection: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        missing = self.label.conj() - self._response(filters, projection)
        up, across = self._adjoint(missing, filters, projection)
        residual = (up - self.penalty.times(filters), across - self.weight * projection)
        step = (torch.zeros_like(filters), torch.zeros_like(projection))
        direction, slope = residual, self._product(residual, residual)
        for _ in range(iterations):
            image = self._normal(direction, filters, projection)
            curvature = self._product(direction, image)
            length = slope / curvature.clamp(min=torch.finfo(slope.dtype).tiny)
            step, residual = _plus(step, length, direction), _plus(residual, -length, image)
            new = self._product(residual, residual)
            direction = _plus(residual, new / slope.clamp(min=torch.finfo(slope.dtype).tiny), direction)
            slope = new
        return step

    def _normal(self, step: tuple[Tensor, Tensor], filters: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
        """The Gauss-Newton matrix times a step."""
        change = self._response(step[0], projection) + self._response(filters, step[1])
        up, across = self._adjoint(change, filters, projection)
        return up + self.penalty.times(step[0]), across + self.weight * step[1]

    def _adjoint(self, residual: Tensor, filters: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
        """From conjugate responses `(M, ...)` back to filters and projections."""
        up = project(self.samples, projection) * residual[:, None]
        weighted = (filters.conj() * residual[:, None]) * (self.band.multiplicity(filters) / self.band.size**2)
        left = torch.view_as_real(self.samples).flatten(2)
        right = torch.view_as_real(weighted.conj().resolve_conj()).flatten(2)
        return up, left @ right.transpose(1, 2)

    def _product(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
        return self.band.inner(a[0], b[0]).sum(1) + (a[1] * b[1]).sum((1, 2))


def _plus(a: tuple[Tensor, Tensor], factor: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return a[0] + factor[:, None, None, None] * b[0], a[1] + factor[:, None, None] * b[1]
