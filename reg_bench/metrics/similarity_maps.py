"""Two images of one case, channel by channel and block by block, for the similarity metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from reg_bench.metrics.arrays import one_mask
from reg_bench.metrics.label_maps import blocks


def channels_of(name: str, first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The channels `(*S)` of two images `(1, C, *S)` of one case, side by side.

    Raises:
        ValueError: several cases, or shapes that differ.
    """
    if first.ndim not in (4, 5) or first.shape[0] != 1 or first.shape != second.shape:
        raise ValueError(
            f"{name}: expected two images (1, C, *spatial), got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    return zip(first[0].detach().cpu(), second[0].detach().cpu(), strict=True)


def block_pairs(
    name: str, first: Tensor, second: Tensor, mask: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Two images `(*S)` block by block, flat and in double precision, with the mask as 0 and 1.

    Multiplying by it costs a fraction of selecting voxels.
    """
    inside = one_mask(name, mask, tuple(first.shape))
    for block in blocks(tuple(first.shape)):
        chosen = None if inside is None else inside[block].reshape(-1).to(torch.float64)
        yield first[block].reshape(-1).to(torch.float64), second[block].reshape(-1).to(torch.float64), chosen


def mean_of(values: list[float]) -> float:
    """Mean over channels; not a number as soon as one channel is not."""
    return math.fsum(values) / len(values) if values else math.nan
