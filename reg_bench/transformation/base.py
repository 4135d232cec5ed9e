"""What every transformation model is: a map from parameters to a displacement on the fixed grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Domain:
    """The fixed grid on which displacements live, for a batch of cases.

    Attributes:
        shape: voxels along each of the 2 or 3 axes.
        batch: number of cases B.
        spacing_mm: `(B, D)`; `None` means cubes (squares) of unknown size.
        device, dtype: of the parameters and the displacements.

    Raises:
        ValueError: an empty or wrong shape or batch, or spacing that does not fit or is not positive.
    """

    shape: tuple[int, ...]
    batch: int = 1
    spacing_mm: Tensor | None = None
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"Domain: shape must hold 2 or 3 positive lengths, got {self.shape}")
        if self.batch < 1:
            raise ValueError(f"Domain: batch must be at least 1, got {self.batch}")
        if not self.dtype.is_floating_point:
            raise ValueError(f"Domain: dtype must be floating point, got {self.dtype}")
        if self.spacing_mm is None:
            return
        expected = (self.batch, self.dimension)
        if tuple(self.spacing_mm.shape) != expected:
            raise ValueError(f"Domain: spacing_mm must be (B, D) = {expected}, got {tuple(self.spacing_mm.shape)}")
        if not bool((self.spacing_mm.isfinite() & (self.spacing_mm > 0)).all()):
            raise ValueError(f"Domain: spacing_mm must be positive and finite, got {self.spacing_mm.tolist()}")

    @classmethod
    def of(cls, image: Tensor, spacing_mm: Tensor | None = None) -> Domain:
        """The grid of a floating point image or field `(B, C, *S)`, with its device and dtype."""
        return cls(tuple(image.shape[2:]), image.shape[0], spacing_mm, image.device, image.dtype)

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """`(B, D, *S)`."""
        return (self.batch, self.dimension, *self.shape)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros `(B, *shape)` of the domain's device and dtype."""
        return torch.zeros((self.batch, *shape), device=self.device, dtype=self.dtype)

    def edges(self) -> Tensor:
        """The voxel edges of each case in units of their geometric mean: `(B, D)`, so independent of the unit."""
        if self.spacing_mm is None:
            return torch.ones((self.batch, self.dimension), device=self.device, dtype=self.dtype)
        logs = self.spacing_mm.to(self.device, torch.promote_types(self.dtype, self.spacing_mm.dtype)).log()
        return (logs - logs.mean(dim=1, keepdim=True)).exp().to(self.dtype)

    def voxels_of(self, length: float, unit: str) -> Tensor:
        """A length along each axis in voxels, `(B, D)`; `unit` is `voxel` or `mm`.

        Raises:
            ValueError: an unknown unit, or mm without a spacing.
        """
        if unit not in ("voxel", "mm"):
            raise ValueError(f"unit must be 'voxel' or 'mm', got {unit!r}")
        if unit == "voxel":
            return torch.full((self.batch, self.dimension), length, device=self.device, dtype=self.dtype)
        if self.spacing_mm is None:
            raise ValueError(f"a length of {length:g} mm needs the spacing of the image, which is not known")
        return length / self.spacing_mm.to(self.device, self.dtype)

    def resized(self, shape: Sequence[int]) -> Domain:
        """The grid of another shape over the same extent: first and last voxel coincide, as in `field.resize`.

        Without a spacing the voxels here count as cubes of 1 mm, so that the other grid knows its anisotropy.

        Raises:
            ValueError: an axis of length 1 that should become longer.
        """
        factors = []
        for axis, (old, new) in enumerate(zip(self.shape, shape, strict=True)):
            if old == 1 and new > 1:
                raise ValueError(f"Domain: axis {axis} has length 1 and no extent that {new} voxels could share")
            factors.append(max(old - 1, 1) / max(new - 1, 1))
        spacing = torch.ones((self.batch, self.dimension)) if self.spacing_mm is None else self.spacing_mm
        return replace(self, shape=tuple(shape), spacing_mm=spacing * spacing.new_tensor(factors))

    def coarsened(self, factor: float) -> Domain:
        """The grid over the same extent whose voxels are `factor` times as long, or slightly shorter."""
        if not factor >= 1:
            raise ValueError(f"Domain: factor must be at least 1, got {factor}")
        return self if factor == 1 else self.resized([math.ceil((n - 1) / factor) + 1 for n in self.shape])


class Transformation(nn.Module, ABC):
    """A transformation model: a description without state; its parameters `theta (B, *P)` come from outside.

    Each case depends on its own row of `theta` only. Parameters are scaled such that a unit change of one of them
    moves the image by about one voxel, so that an optimizer needs no scales of its own.
    """

    @abstractmethod
    def identity(self, domain: Domain) -> Tensor:
        """The parameters `(B, *P)` of the identity map."""

    @abstractmethod
    def displacement(self, theta: Tensor, domain: Domain) -> Tensor:
        """`u (B, D, *S)` in voxels with `warped(x) = moving(x + u(x))`, differentiable in `theta`.

        Raises:
            ValueError: `theta` has not the shape of `identity(domain)`.
        """

    def inverse_displacement(self, theta: Tensor, domain: Domain) -> Tensor | None:
        """The displacement `(B, D, *S)` of the inverse map on the same grid, or `None` where the model has none."""
        return None

    def regularized(self, theta: Tensor, domain: Domain) -> Tensor:
        """The field that a regularizer acts on: the displacement, or the velocity of a flow.

        Returns:
            `(B, D, *S')`, voxels of its grid, which is `regularized_domain`.
        """
        return self.displacement(theta, domain)

    def regularized_domain(self, domain: Domain) -> Domain:
        """The grid of `regularized`: the domain itself, or a coarser one over the same extent."""
        return domain

    def energy(self, theta: Tensor, domain: Domain) -> Tensor | None:
        """The energy `(B,)` that the model itself assigns to a map, or `None` where it has none."""
        return None

    @abstractmethod
    def resampled(self, theta: Tensor, domain: Domain, finer: Domain) -> Tensor:
        """The parameters of the same map on another grid over the same extent, such as a level of a pyramid.

        Returns:
            `(B, *P')` with `identity(finer)`'s shape.
        """

    def num_parameters(self, domain: Domain) -> int:
        """The number of parameters of a case, the first where they differ."""
        return self.identity(replace(domain, batch=1, spacing_mm=_first(domain.spacing_mm))).numel()


def _first(spacing_mm: Tensor | None) -> Tensor | None:
    return None if spacing_mm is None else spacing_mm[:1]


def check_theta(name: str, theta: Tensor, shape: Sequence[int]) -> Tensor:
    """`theta` if it is floating point and has the shape.

    Raises:
        ValueError: otherwise.
    """
    if tuple(theta.shape) != tuple(shape) or not theta.is_floating_point():
        raise ValueError(
            f"{name}: theta must be floating point of shape {tuple(shape)}, got {theta.dtype} {tuple(theta.shape)}"
        )
    return theta


def voxel_ratio(domain: Domain, other: Domain) -> Tensor:
    """`(D,)`: by what a displacement in voxels grows from one grid to another over the same extent."""
    ratios = [(b - 1) / (a - 1) if a > 1 and b > 1 else 1.0 for a, b in zip(domain.shape, other.shape, strict=True)]
    return torch.tensor(ratios, device=domain.device, dtype=domain.dtype)
