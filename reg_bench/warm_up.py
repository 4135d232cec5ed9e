"""Before and after a timed call: a small piece of a case to warm up on, and whether images were written to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reg_bench.types import RegistrationPair

_LARGEST = {2: 64, 3: 32}


def central_crop(pair: RegistrationPair) -> RegistrationPair:
    """The middle of both images with what lies on their grids, at most 64² pixels or 32³ voxels.

    Points and affines are left out: the piece is registered to warm up, its field is thrown away.
    """
    size = _LARGEST[pair.dimension]
    fixed_grid = ("fixed", "fixed_labels", "mask", "true_displacement")
    moving_grid = ("moving", "moving_labels")
    changes: dict[str, Any] = {n: _middle(getattr(pair, n), size) for n in (*fixed_grid, *moving_grid)}
    return replace(pair, **changes, points=None, fixed_affine=None, moving_affine=None, scored=None)


def _middle(values: Tensor | None, size: int) -> Tensor | None:
    if values is None:
        return None
    for axis in range(2, values.ndim):
        length = min(size, values.shape[axis])
        values = values.narrow(axis, (values.shape[axis] - length) // 2, length)
    return values.clone()


def bit_sum(image: Tensor) -> int:
    """Changes when anything is written into `image`, also past torch (through NumPy views)."""
    if not image.is_floating_point():
        return int(image.sum())
    # Sums of 32-bit integers wrap around, which a fingerprint may, and are thirty times as fast as wider ones.
    words = image.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[image.element_size()])
    return int(words.sum(dtype=torch.int32 if image.element_size() == 4 else torch.int64))
