"""Pairs on a coarser or finer grid over the same extent, as methods of a fixed input size want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from reg_bench import field as fields
from reg_bench.types import PointPairs, RegistrationPair


def at_size(pair: RegistrationPair, size: Sequence[int]) -> RegistrationPair:
    """`pair` with both images at `size` voxels, to be scored on the pair itself.

    First and last voxel stay where they are (`align_corners`), so a field on the new grid becomes one on the old by
    `DisplacementField.on`. Images are interpolated linearly without low-pass filter, labels and mask by nearest
    neighbour; points, spacing and affine follow.

    Args:
        pair: any pair; its grids may differ in size.
        size: one length per spatial axis.

    Returns:
        The resampled pair, whose `scored` is `pair`.

    Raises:
        ValueError: another number of lengths, or an axis of length 1 that should become longer.
    """
    fixed = _ratio(pair.fixed.shape[2:], size)
    moving = _ratio(pair.moving.shape[2:], size)
    return replace(
        pair,
        fixed=fields.resize_image(pair.fixed, size),
        moving=fields.resize_image(pair.moving, size),
        fixed_labels=_nearest(pair.fixed_labels, size),
        moving_labels=_nearest(pair.moving_labels, size),
        mask=_nearest(pair.mask, size),
        fixed_spacing_mm=None if pair.fixed_spacing_mm is None else pair.fixed_spacing_mm * fixed.float(),
        moving_spacing_mm=None if pair.moving_spacing_mm is None else pair.moving_spacing_mm * moving.float(),
        fixed_affine=_stretched(pair.fixed_affine, fixed),
        moving_affine=_stretched(pair.moving_affine, moving),
        points={
            name: PointPairs(
                tuple(p / fixed.to(p) for p in sets.fixed),
                tuple(p / moving.to(p) for p in sets.moving),
            )
            for name, sets in (pair.points or {}).items()
        }
        or None,
        true_displacement=None if pair.true_displacement is None else fields.resize(pair.true_displacement, size),
        scored=pair,
    )


def _ratio(old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Voxels of the old grid per voxel of the new one, along each axis."""
    if len(old) != len(new):
        raise ValueError(f"at_size: {len(new)} lengths {tuple(new)} for {len(old)} spatial axes")
    if any(a == 1 and b > 1 for a, b in zip(old, new, strict=True)):
        raise ValueError(f"at_size: an axis of length 1 in {tuple(old)} has no extent to share among {tuple(new)}")
    pairs = zip(old, new, strict=True)
    return torch.tensor([(a - 1) / (b - 1) if b > 1 else 1.0 for a, b in pairs], dtype=torch.float64)


def _nearest(values: Tensor | None, size: Sequence[int]) -> Tensor | None:
    return None if values is None else fields.resize_image(values, size, mode="nearest")


def _stretched(affine: Tensor | None, ratio: Tensor) -> Tensor | None:
    if affine is None:
        return None
    return affine @ torch.diag(torch.cat((ratio, ratio.new_ones(1)))).to(affine)
