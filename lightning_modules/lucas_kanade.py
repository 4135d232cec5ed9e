"""Pyramidal Lucas-Kanade: Gauss-Newton with a least-squares problem of its own around every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from reg_bench.field import resize, warp
from reg_bench.intensities import locally_normalised, unit_range
from reg_bench.local_least_squares import follow
from reg_bench.method import RegistrationModule
from reg_bench.pyramid import distinct_levels, level_shapes, shrink
from reg_bench.transformation import Domain
from reg_bench.types import DisplacementField, RegistrationPair


class LucasKanade(RegistrationModule):
    """Dense Lucas-Kanade flow in a pyramid, composed and smoothed like Demons; fast and accurate.

    Demons moves a voxel by its own intensity difference along its own gradient, the normal flow of thesis equation
    2.17, and lets the smoothing find the rest. Here every step solves the flow equation by least squares over a
    Gaussian neighbourhood (Lucas and Kanade, IJCAI 1981), so that a corner gives the whole displacement at once and
    ten steps do the work of forty. The system depends on the fixed image alone and is set up once per level. Steps
    are composed, `phi o (id + v)`, and the field is smoothed (diffusion-like regularisation, thesis Algorithm 1).

    Args:
        shrink_factors: of the levels, coarse to fine; thick axes shrink less.
        iterations: per level.
        window_voxels: standard deviation of the neighbourhood, in edges of a cubic voxel of the same volume.
        smoothing_voxels: of the Gaussian that smooths the field after every step, in the same unit.
        damping: of the local systems, in squared intensities (0..1) per voxel.
        largest_step: of a step, in voxels.
        normalise_voxels: standard deviation of the window in which mean and contrast are normalised first, which makes
            the method follow local correlation instead of intensity; 0 for none.
        normalise_floor: contrast (standard deviation of intensities 0..1) below which that window shows noise.
        smallest_size: no axis is shrunk below this many voxels.
    """

    name: ClassVar[str] = "lucas-kanade"

    def __init__(
        self,
        shrink_factors: Sequence[float] = (4.0, 2.0, 1.0),
        iterations: Sequence[int] = (10, 10, 10),
        window_voxels: float = 2.0,
        smoothing_voxels: float = 1.2,
        damping: float = 1e-3,
        largest_step: float = 1.0,
        normalise_voxels: float = 0.0,
        normalise_floor: float = 0.05,
        smallest_size: int = 16,
    ) -> None:
        super().__init__()
        factors = list(shrink_factors)
        if not factors or len(factors) != len(iterations) or min(iterations) < 0:
            raise ValueError(
                "lucas-kanade: shrink_factors and iterations need one entry per level, got "
                f"{factors} and {list(iterations)}"
            )
        if min(factors) < 1 or factors != sorted(factors, reverse=True):
            raise ValueError(f"lucas-kanade: shrink_factors must descend to 1 or more, got {factors}")
        positive = {"window_voxels": window_voxels, "damping": damping, "largest_step": largest_step}
        for key, value in positive.items():
            if not value > 0:
                raise ValueError(f"lucas-kanade: {key} must be positive, got {value}")
        if smoothing_voxels < 0 or normalise_voxels < 0 or not normalise_floor > 0 or smallest_size < 2:
            raise ValueError(
                "lucas-kanade: smoothing_voxels and normalise_voxels must be at least 0, normalise_floor positive and "
                f"smallest_size at least 2, got {smoothing_voxels}, {normalise_voxels}, {normalise_floor} and "
                f"{smallest_size}"
            )
        self.shrink_factors, self.iterations = tuple(factors), tuple(iterations)
        self.window_voxels, self.smoothing_voxels = window_voxels, smoothing_voxels
        self.damping, self.largest_step = damping, largest_step
        self.normalise_voxels, self.normalise_floor = normalise_voxels, normalise_floor
        self.smallest_size = smallest_size

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """Each case on its own: cases may differ in the proportions of their voxels."""
        return DisplacementField.for_pair(torch.cat([self._displacement(case) for case in pair.split()]), pair)

    def _displacement(self, case: RegistrationPair) -> Tensor:
        fixed, moving = unit_range(case.fixed), unit_range(case.moving)
        domain = Domain.of(fixed, case.fixed_spacing_mm)
        u = fixed.new_zeros(domain.field_shape)
        if moving.shape != fixed.shape:
            moving = warp(moving, u)
        shapes = level_shapes(domain.shape, self.shrink_factors, case.fixed_spacing_mm, self.smallest_size)
        for level, shape in distinct_levels(shapes):
            there = domain if shape == domain.shape else domain.resized(shape)
            images = [self._prepared(image, shape) for image in (fixed, moving)]
            edges = there.edges()[0].tolist()
            u = follow(
                *images,
                resize(u, shape),
                iterations=self.iterations[level],
                window=[self.window_voxels / edge for edge in edges],
                smoothing=[self.smoothing_voxels / edge for edge in edges],
                damping=self.damping,
                largest=self.largest_step,
            )
        return u if u.shape[2:] == fixed.shape[2:] else resize(u, fixed.shape[2:])

    def _prepared(self, image: Tensor, shape: tuple[int, ...]) -> Tensor:
        small = image if shape == tuple(image.shape[2:]) else shrink(image, shape)
        if self.normalise_voxels == 0:
            return small
        return locally_normalised(small, self.normalise_voxels, self.normalise_floor)
