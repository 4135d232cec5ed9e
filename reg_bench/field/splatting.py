"""Forward mapping: every voxel is pushed where its displacement takes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32, check_field, check_image, identity_grid
from reg_bench.field.points import strides_of

# Less than this share of a voxel that arrives somewhere says nothing reliable about the intensity there.
_LEAST_DENSITY = 1e-4


def splat(image: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Pushes the voxels of an image along a displacement and adds up what arrives (thesis eq. 2.47).

    Voxel `x` lands at `x + u(x)` and is shared among the voxels around that place with linear weights, so that
    nothing is lost except what leaves the grid: `mass.sum() == image.sum()` as long as all voxels stay inside.
    Here `u` points from where the image is to where it goes; the field that pulls (`warp`) is its inverse.

    Args:
        image: `(B, C, *S)`.
        u: `(B, D, *S)`, voxels, on the grid of the image. A voxel whose displacement is NaN arrives nowhere.

    Returns:
        `mass (B, C, *S)`, the sum of weighted values, and `density (B, 1, *S)`, the sum of weights: 0 in a gap that
        no voxel reaches, above 1 where voxels overlap. Both in the wider dtype of the arguments and float32,
        differentiable in both.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_field("splat", u)
    check_image("splat", image, u.shape[0], u.ndim - 2)
    if image.shape[2:] != u.shape[2:]:
        raise ValueError(
            f"splat: image and u must share one grid, got {tuple(image.shape[2:])} and {tuple(u.shape[2:])}"
        )
    work = at_least_float32(image, u)
    spatial = tuple(u.shape[2:])
    values = torch.cat((image.to(work), torch.ones_like(u[:, :1], dtype=work)), dim=1).flatten(2)
    base, fraction = _landing(u.to(work), spatial)
    out = torch.zeros_like(values)
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        index, weight = _corner(base, fraction, corner, spatial)
        out.scatter_add_(2, index.expand_as(values), values * weight)
    out = out.reshape(*out.shape[:2], *spatial)
    return out[:, :-1], out[:, -1:]


def forward_warp(image: Tensor, u: Tensor, fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """An image mapped forward along a displacement: the weighted mean of the voxels that arrive at each place.

    Args:
        image, u: as in `splat`.
        fill: the value in gaps, where no voxel arrives.

    Returns:
        `values (B, C, *S)` and `density (B, 1, *S)` as in `splat`.
    """
    mass, density = splat(image, u)
    reached = density > _LEAST_DENSITY
    # The denominator is made harmless before the division: a gradient of 0 / 0 would be NaN even where masked.
    mean = mass / torch.where(reached, density, torch.ones_like(density))
    return torch.where(reached, mean, torch.full_like(mean, fill)), density


def _landing(u: Tensor, spatial: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the voxels land, `(B, D, N)`: the lower neighbour (long) and the fraction beyond it."""
    places = (identity_grid(spatial, u.device, u.dtype) + u).flatten(2)
    # One voxel beyond the ends is too far to touch the grid; what is farther must not overflow the integers.
    beyond = places.new_tensor([n + 1 for n in spatial])[:, None]
    nowhere = places.isnan().any(dim=1, keepdim=True)
    places = torch.minimum(places.masked_fill(nowhere, -2.0).clamp(min=-2.0), beyond)
    base = places.detach().floor()
    return base.long(), places - base


def _corner(base: Tensor, fraction: Tensor, corner: Sequence[int], spatial: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Flat index and weight `(B, 1, N)` of one of the `2^D` voxels around every landing place."""
    index = torch.zeros_like(base[:, 0])
    weight = torch.ones_like(fraction[:, 0])
    for axis, (bit, n, stride) in enumerate(zip(corner, spatial, strides_of(spatial), strict=True)):
        place = base[:, axis] + bit
        share = fraction[:, axis] if bit else 1 - fraction[:, axis]
        weight = weight * share * ((place >= 0) & (place < n))
        index = index + place.clamp(0, n - 1) * stride
    return index[:, None], weight[:, None]
