"""Joint densities of two images by Parzen windows, and their derivative, at the cost of a plain joint histogram.

An intensity falls between two of several levels per bin. The voxels of each cell of levels are counted with four
moments (1, the two fractions, their product), which is a joint histogram with bilinear weights; the window then acts on
the small table as a matrix. So every window costs the same, and it is the window tabulated at the levels, linear in
between: exact for the linear window, within 1 % of its peak for the others. The derivative is that of the
tabulated window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Window = Literal["cubic", "linear", "gaussian"]

# Levels per bin, and bins at either end that only the windows of the outermost intensities reach.
_LEVELS_PER_BIN = {"linear": 1, "cubic": 8, "gaussian": 8}
_MARGIN = {"linear": 0, "cubic": 1, "gaussian": 0}
# Voxels at a time: indices and weights should stay in the cache.
_CHUNK = {"cpu": 1 << 16}
_CHUNK_ELSEWHERE = 1 << 24


@dataclass(frozen=True)
class Parzen:
    """A window over the bins of intensities.

    Args:
        bins: how many.
        window: the cubic or linear B-spline, or a Gaussian whose standard deviation is half a bin.

    Raises:
        ValueError: an unknown window, or fewer bins than it needs.
    """

    bins: int
    window: Window

    def __post_init__(self) -> None:
        if self.window not in _MARGIN:
            raise ValueError(f"MutualInformation: window must be one of {sorted(_MARGIN)}, got {self.window!r}")
        if self.bins < 2 + 2 * _MARGIN[self.window]:
            least = 2 + 2 * _MARGIN[self.window]
            raise ValueError(f"MutualInformation: bins must be at least {least} here, got {self.bins}")

    @cached_property
    def levels(self) -> int:
        """How many levels the range of intensities has, both ends included."""
        return (self.bins - 1 - 2 * _MARGIN[self.window]) * _LEVELS_PER_BIN[self.window] + 1

    def matrix(self, device: torch.device) -> Tensor:
        """The weight of each bin at each level: `(bins, levels)`, summing to 1 over the bins."""
        dtype = table_dtype(device)
        at = _MARGIN[self.window] + torch.arange(self.levels, device=device, dtype=dtype) / _LEVELS_PER_BIN[self.window]
        distance = (torch.arange(self.bins, device=device, dtype=dtype)[:, None] - at).abs()
        if self.window == "linear":
            weights = (1 - distance).clamp(min=0)
        elif self.window == "cubic":
            # The four cubic pieces as a difference of truncated powers.
            weights = ((2 - distance).clamp(min=0) ** 3 - 4 * (1 - distance).clamp(min=0) ** 3) / 6
        else:
            weights = torch.exp(-2 * distance.square())
        return weights / weights.sum(dim=0)


@dataclass(frozen=True)
class Placed:
    """Intensities `(V,)` between levels: the level below and how far above it, in levels."""

    cell: Tensor
    fraction: Tensor


def place(values: Tensor, low: Tensor, levels_per_unit: Tensor, levels: int) -> Placed:
    """Where `values (V,)` lie; below and above all levels they count as the first and the last."""
    at = ((values - low) * levels_per_unit).clamp_(0, levels - 1)
    cell = at.long().clamp_(max=levels - 2)
    return Placed(cell, at.sub_(cell))


def chunks(size: int, device: torch.device) -> Iterator[slice]:
    step = _CHUNK.get(device.type, _CHUNK_ELSEWHERE)
    return (slice(start, min(size, start + step)) for start in range(0, size, step))


def table_dtype(device: torch.device) -> torch.dtype:
    """Counts of millions of voxels need double precision, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def empty_moments(levels: int, device: torch.device) -> Tensor:
    """The moments of no voxels, `(4, (levels - 1)²)`, rows: count, first fraction, second fraction, product."""
    return torch.zeros((4, (levels - 1) ** 2), device=device, dtype=table_dtype(device))


def add_moments(moments: Tensor, cells: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> None:
    """Counts voxels into `moments`: their joint cell and the fractions in the first and the second image, `(V,)`."""
    first, second = (f.to(moments.dtype) for f in (first, second))
    weighted = weights * second
    moments[0].scatter_add_(0, cells, weights)
    moments[1].scatter_add_(0, cells, weights * first)
    moments[2].scatter_add_(0, cells, weighted)
    moments[3].scatter_add_(0, cells, weighted.mul_(first))


def joint_levels(moments: Tensor) -> Tensor:
    """The histogram with bilinear weights over pairs of levels, `(levels, levels)`."""
    side = round(moments.shape[1] ** 0.5)
    count, first, second, both = moments.reshape(4, side, side)
    table = moments.new_zeros((side + 1, side + 1))
    table[:-1, :-1] += count - first - second + both
    table[1:, :-1] += first - both
    table[:-1, 1:] += second - both
    table[1:, 1:] += both
    return table


def slopes(table: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative of bilinear interpolation in a table `(levels, levels)` along its second axis.

    In a cell it is the first result plus the fraction along the first axis times the second; both `((levels - 1)²,)`.
    """
    along = table.diff(dim=1)
    return along[:-1].flatten(), along.diff(dim=0).flatten()
