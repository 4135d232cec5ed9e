"""Demons in torch: batched, on any device, in a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from reg_bench.demons import Composition, Course, Demons, Forces, Kernel, demons
from reg_bench.field import identity_grid, resize, warp
from reg_bench.intensities import unit_range
from reg_bench.method import RegistrationModule
from reg_bench.pyramid import distinct_levels, level_shapes, same_proportions, shrink
from reg_bench.transformation import Domain
from reg_bench.types import DisplacementField, RegistrationPair


class DemonsTorch(RegistrationModule):
    """Demons in a pyramid of three levels, in torch, batched, on any device.

    Forces push every voxel along the image gradient by the intensity difference, then the field is smoothed, level by
    level from coarse to fine (thesis equations 2.18-2.19, Algorithm 1). Intensities are scaled to 0..1 by their
    percentiles 0.1 and 99.9. On one level this is ITK's Demons with the same settings.

    Args:
        forces: `optical-flow`, `thirion` (stabilised) or `symmetric` (stabilised, by the gradients of both images).
        composition: of an update with the displacement: `additive`, `compositive`, or `diffeomorphic`, by exponentials
            of the updates, so that the field hardly folds.
        shrink_factors: of the levels, coarse to fine. Thick axes shrink less, none below `smallest_size` voxels, and
            levels that come out equal are run once.
        iterations: per level.
        sigma_voxels: standard deviation of the Gaussian that smooths the displacement after every iteration, in voxels
            of the level along each axis; 0 for none. Diffusion-like regularisation.
        update_sigma_voxels: the same for every update; fluid-like. 0 for none.
        step_voxels: upper limit of one update, in root-mean-square voxel edges; 0 for none, and no stabilisation.
        gradient_threshold: intensity per root-mean-square voxel edge below which a voxel feels no unstabilised force.
        kernel: `bessel`, ITK's discrete Gaussian, or `sampled`, a whole one: it smooths about a quarter further, which
            helps where the images are noisy.
        smallest_size: no axis is shrunk below this many voxels.
        energies: whether the course of the mean squared difference is kept in `course` for `reg-bench register` to
            write and plot.
    """

    name: ClassVar[str] = "demons-torch"

    def __init__(
        self,
        forces: Forces = "symmetric",
        composition: Composition = "additive",
        shrink_factors: Sequence[float] = (4.0, 2.0, 1.0),
        iterations: Sequence[int] = (40, 40, 40),
        sigma_voxels: float = 1.5,
        update_sigma_voxels: float = 0.0,
        step_voxels: float = 0.5,
        gradient_threshold: float = 1e-2,
        kernel: Kernel = "bessel",
        smallest_size: int = 16,
        energies: bool = True,
    ) -> None:
        super().__init__()
        self.settings = Demons(
            forces=forces,
            composition=composition,
            sigma_voxels=sigma_voxels,
            update_sigma_voxels=update_sigma_voxels,
            step=step_voxels,
            gradient_threshold=gradient_threshold,
            kernel=kernel,
        )
        factors = list(shrink_factors)
        if not factors or len(factors) != len(iterations):
            raise ValueError(
                "demons-torch: shrink_factors and iterations need one entry per level, "
                f"got {factors} and {list(iterations)}"
            )
        if min(factors) < 1 or factors != sorted(factors, reverse=True):
            raise ValueError(f"demons-torch: shrink_factors must descend to 1 or more, got {factors}")
        if min(iterations) < 0 or smallest_size < 2:
            raise ValueError(
                "demons-torch: iterations must be at least 0 and smallest_size at least 2, "
                f"got {list(iterations)} and {smallest_size}"
            )
        self.shrink_factors = tuple(factors)
        self.iterations = tuple(iterations)
        self.smallest_size = smallest_size
        self.energies = energies
        self.course: list[dict[str, Any]] = []
        """The energy after every iteration of the last call: `stage, level, case, iteration, energy, seconds`."""

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """All levels; cases of different proportions one by one."""
        self.course = []
        alike = same_proportions(pair.fixed_spacing_mm) and same_proportions(pair.moving_spacing_mm)
        cases = [pair] if alike else list(pair.split())
        u = torch.cat([self._displacement(case) for case in cases])
        return DisplacementField.for_pair(u.to(torch.promote_types(pair.fixed.dtype, torch.float32)), pair)

    def _displacement(self, pair: RegistrationPair) -> Tensor:
        fixed, moving = (unit_range(image) for image in (pair.fixed, pair.moving))
        domain = Domain.of(fixed, pair.fixed_spacing_mm)
        across = _across(pair, domain)
        if across is not None:
            moving = warp(moving, across)
        u = self._found(fixed, moving, domain, pair.case_ids)
        # The field across is linear, so this is `across` composed with `u`, beyond the grid as well.
        return u if across is None else u + across + u * _ratio(pair, domain).sub(1)

    def _found(self, fixed: Tensor, moving: Tensor, domain: Domain, case_ids: Sequence[str]) -> Tensor:
        """The displacement `(B, D, *S)` between two images on one grid, coarse to fine."""
        edges = None if domain.spacing_mm is None else domain.spacing_mm[0]
        shapes = level_shapes(domain.shape, self.shrink_factors, edges, self.smallest_size)
        u: Tensor | None = None
        for level, shape in distinct_levels(shapes):
            same = shape == domain.shape
            here = domain if same else domain.resized(shape)
            images = (fixed, moving) if same else (shrink(fixed, shape), shrink(moving, shape))
            u = here.zeros(here.dimension, *shape) if u is None else resize(u, shape)
            u, course = demons(*images, u, self.iterations[level], self.settings, here.spacing_mm)
            if self.energies:
                self.course += _rows(level, course, case_ids)
        assert u is not None
        return u if u.shape[2:] == fixed.shape[2:] else resize(u, domain.shape)


def _rows(level: int, course: Course, case_ids: Sequence[str]) -> list[dict[str, Any]]:
    columns = torch.stack(course.energies, dim=1).double().cpu().tolist()
    return [
        {"stage": 0, "level": level, "case": case, "iteration": k, "energy": energy, "seconds": course.seconds[k]}
        for case, energies in zip(case_ids, columns, strict=True)
        for k, energy in enumerate(energies)
    ]


def _ratio(pair: RegistrationPair, domain: Domain) -> Tensor:
    """Fixed over moving voxel edge, `(B, D, 1, ...)`; 1 where one of them is unknown."""
    shape = (domain.batch, domain.dimension, *(1,) * domain.dimension)
    if pair.fixed_spacing_mm is None or pair.moving_spacing_mm is None:
        return domain.zeros(*shape[1:]) + 1
    return (pair.fixed_spacing_mm / pair.moving_spacing_mm).to(domain.device, domain.dtype).reshape(shape)


def _across(pair: RegistrationPair, domain: Domain) -> Tensor | None:
    """The displacement from fixed to moving voxels at the same place in mm, or `None` where both grids are one."""
    rest = _ratio(pair, domain) - 1
    if pair.moving.shape[2:] == pair.fixed.shape[2:] and not bool(rest.any()):
        return None
    return identity_grid(domain.shape, domain.device, domain.dtype) * rest
