"""The Gaussian kernel that makes velocities of momenta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reg_bench import field

# The kernel is cut where it is 4e-6 of its peak: a kernel with visible ends is not positive.
_TRUNCATE = 5.0


@dataclass(frozen=True)
class GaussianKernel:
    """`v = K m`: the momentum smoothed by a Gaussian of sum 1, so that a constant momentum is its own velocity.

    The momentum is zero outside the grid. For a kernel with peak 1 instead of sum 1, multiply the momentum by
    `peak_scale`.

    Attributes:
        sigma_voxels: standard deviation along each axis.
        edges: what a voxel measures along each axis, in a unit common to both: momenta are densities against which
            velocities in voxels are integrated, so `v = G m / edges^2`. 1 for cubes.

    Raises:
        ValueError: a sigma or an edge is not positive and finite, or their numbers differ.
    """

    sigma_voxels: Sequence[float]
    edges: Sequence[float] | None = None

    def __post_init__(self) -> None:
        edges = self.edges or [1.0] * len(self.sigma_voxels)
        values = (*self.sigma_voxels, *edges)
        if len(edges) != len(self.sigma_voxels) or not all(math.isfinite(x) and x > 0 for x in values):
            raise ValueError(
                f"GaussianKernel: sigma_voxels and edges must be as many positive numbers, got {self.sigma_voxels} and "
                f"{self.edges}"
            )

    def __call__(self, momentum: Tensor) -> Tensor:
        """The velocity `(B, D, *S)` in voxels per unit time of a `momentum (B, D, *S)`; linear and symmetric."""
        velocity = field.gaussian(momentum, self.sigma_voxels, "zeros", truncate=_TRUNCATE)
        if self.edges is None or set(self.edges) == {1.0}:
            return velocity
        squares = velocity.new_tensor([e * e for e in self.edges])
        return velocity / squares.reshape(-1, *(1,) * len(self.edges))

    @property
    def peak_scale(self) -> float:
        """One over the largest weight, `(2 pi)^(D / 2)` times the sigmas."""
        return math.prod(math.sqrt(2 * math.pi) * s for s in self.sigma_voxels)
