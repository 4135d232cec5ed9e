"""A vector for every voxel: thesis section 2.2.2."""

from __future__ import annotations

from torch import Tensor

from reg_bench import field
from reg_bench.transformation.base import Domain, Transformation, check_theta


class Dense(Transformation):
    """The displacement itself: `theta (B, D, *S)` in voxels."""

    def identity(self, domain: Domain) -> Tensor:
        return domain.zeros(*domain.field_shape[1:])

    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        return check_theta("Dense", theta, domain.field_shape)

    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        return field.resize(check_theta("Dense", theta, domain.field_shape), finer.shape)
