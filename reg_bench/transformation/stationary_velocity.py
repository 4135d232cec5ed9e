"""Stationary velocity fields: Arsigny et al., MICCAI 2006; thesis section 2.7.2."""

from __future__ import annotations

from torch import Tensor

from reg_bench import field
from reg_bench.transformation.base import Domain, Transformation, check_theta


class StationaryVelocity(Transformation):
    """The flow of a velocity that does not change in time, by scaling and squaring; its inverse is that of `-v`.

    `theta (B, D, *S')` is the velocity in voxels of its own grid per unit time.

    Args:
        steps: number of squarings, as in `field.exponential`.
        coarsening: how many times as long as those of the image the voxels of the velocity are. With 2 the exponential
            costs an eighth in 3-D; the displacement is then interpolated linearly, with an error that
            `field.flow_error` measures.
    """

    def __init__(self, steps: int = 7, coarsening: float = 1.0) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"StationaryVelocity: steps must be at least 0, got {steps}")
        if not coarsening >= 1:
            raise ValueError(f"StationaryVelocity: coarsening must be at least 1, got {coarsening}")
        self.steps, self.coarsening = steps, coarsening

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(*self.regularized_domain(domain).field_shape[1:])

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return self._displacement(self.regularized(theta, domain), domain)

    def inverse_displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return self._displacement(-self.regularized(theta, domain), domain)

    def regularized(self, theta: Tensor, domain: Domain) -> Tensor:
        """The velocity `(B, D, *S')`, voxels of its own grid per unit time."""
        return check_theta("StationaryVelocity", theta, self.regularized_domain(domain).field_shape)

    def regularized_domain(self, domain: Domain) -> Domain:
        return domain.coarsened(self.coarsening)

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        return field.resize(self.regularized(theta, domain), self.regularized_domain(finer).shape)

    def _displacement(self, velocity: Tensor, domain: Domain) -> Tensor:
        u = field.exponential(velocity, self.steps)
        return u if self.coarsening == 1 else field.resize(u, domain.shape)
