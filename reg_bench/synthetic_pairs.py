"""Real images under known random diffeomorphisms: pairs whose displacement is exact (thesis section 2.7.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from reg_bench.caching import PairTransform
from reg_bench.errors import ConfigError
from reg_bench.field import identity_grid, warp
from reg_bench.random_diffeomorphisms import random_diffeomorphisms
from reg_bench.types import RegistrationPair, collate_pairs

Image = Literal["fixed", "moving", "either"]


class SyntheticWarp(PairTransform):
    """Makes a pair of one image of a pair: moving is the image itself, fixed what a random map makes of it.

    The maps come from geodesic shooting (`reg_bench.random_diffeomorphisms`). `true_displacement` is the map, `mask`
    holds where it leads to within the image; labels follow by nearest neighbour, points are left out. Everything is
    drawn from torch's random state.

    Args:
        sigma: smallest and largest standard deviation of the kernel, as shares of the shortest side.
        distance: smallest and largest standard deviation of each component of the displacement, in voxels.
        image: whose copies are registered.

    Raises:
        ConfigError: ranges that do not rise from positive numbers.
    """

    def __init__(
        self,
        sigma: tuple[float, float] = (0.12, 0.3),
        distance: tuple[float, float] = (0.0, 4.0),
        image: Image = "either",
    ) -> None:
        if not 0 < sigma[0] <= sigma[1] or not 0 <= distance[0] <= distance[1]:
            raise ConfigError(
                f"SyntheticWarp: sigma and distance must rise from positive numbers, got {sigma} and {distance}"
            )
        self.sigma, self.distance, self.image = sigma, distance, image

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        return collate_pairs([self._element(single) for single in pair.split()])

    def _element(self, pair: RegistrationPair) -> RegistrationPair:
        of_fixed = self.image == "fixed" or (self.image == "either" and float(torch.rand(())) < 0.5)
        image, labels = (pair.fixed, pair.fixed_labels) if of_fixed else (pair.moving, pair.moving_labels)
        spacing = pair.fixed_spacing_mm if of_fixed else pair.moving_spacing_mm
        affine = pair.fixed_affine if of_fixed else pair.moving_affine
        shape = tuple(image.shape[2:])
        sigma, distance = (_drawn(ends) for ends in (self.sigma, self.distance))
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        drawn = random_diffeomorphisms(shape, [sigma * min(shape)], [distance], generator, with_inverse=False)
        u = drawn.displacement.to(image)
        return replace(
            pair,
            fixed=warp(image, u),
            moving=image,
            fixed_labels=None if labels is None else warp(labels, u, mode="nearest"),
            moving_labels=labels,
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            points=None,
            mask=_inside(u),
            true_displacement=u,
            scored=None,
        )


def _drawn(ends: tuple[float, float]) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(torch.rand(()))


def _inside(u: Tensor) -> Tensor:
    """`(B, 1, *S)`: where the displacement leads to within the image."""
    reached = identity_grid(tuple(u.shape[2:]), u.device)[None] + u
    last = reached.new_tensor(u.shape[2:]).reshape(1, -1, *[1] * (u.ndim - 2)) - 1
    return ((reached >= 0) & (reached <= last)).all(dim=1, keepdim=True)
