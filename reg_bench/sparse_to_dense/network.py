"""The network of normalised convolutions that fills in displacements between points (Paper I, Figure 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_bench.field import sample
from reg_bench.normalized_convolution import NormalizedConv
from reg_bench.sparse_to_dense.base import DenseField, Interpolation, usable_points
from reg_bench.sparse_to_dense.bspline import BSplineInterpolation
from reg_bench.sparse_to_dense.scattering import on_nearest_voxels
from reg_bench.sparse_to_dense.weights import load_weights


class NormalizedConvolution(Interpolation):
    """Seven layers of normalised convolution on a pyramid, which share four of them between the levels.

    Layers 1 to 3 smooth the points on the grid of the image; on every coarser level the most confident of each block
    of voxels is kept and smoothed by layers 2 and 3 again. From coarse to fine, what comes from the coarser level,
    enlarged, and what was there on the way down are joined by layers 4 and 5; layers 6 and 7 finish. All components of
    the displacement go through the same layers, each by itself. In 2-D it has 409 parameters.

    Averages of neighbours know no slope. Ours, beyond the paper, is the trend: a coarse B-spline near the points is
    taken off before the network and put back after it, so that only what is left has to be averaged.

    For a given confidence the field is linear in the values (where biases are not 0: affine). Where no point is in
    reach, which is a matter of levels, field and confidence are 0.

    Args:
        weights: name of weights that come with the package (those of `nconv` are for 2-D), or a file that `reg-bench
            fit` wrote; `None` begins with random ones.
        levels: of the pyramid, each half as fine; the paper's 5 reach over a few hundred voxels.
        bias: whether the biases of the layers are learned; otherwise they stay 0, and a constant displacement stays
            what it is. Loaded ones are kept.
        dims: 2 or 3 spatial axes.
        trend: the distance of the control points of the trend, in voxels; `None` for the paper's network alone.

    Raises:
        ValueError: wrong arguments, or weights of another network; names the file.
    """

    def __init__(
        self,
        weights: str | Path | None = "nconv",
        levels: int = 5,
        bias: bool = True,
        dims: int = 2,
        trend: float | None = 40.0,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"NormalizedConvolution: levels must be at least 1, got {levels}")
        self.levels, self.dims = levels, dims
        self.trend = None if trend is None else BSplineInterpolation(trend, levels=3)
        layout = ((1, 2, 5), (2, 2, 5), (2, 2, 5), (4, 2, 3), (2, 2, 3), (2, 2, 3), (2, 1, 1))
        self.layers = nn.ModuleList(NormalizedConv(i, o, size, dims) for i, o, size in layout)
        for layer in self.layers:
            layer.bias.requires_grad_(bias)
        if weights is not None:
            load_weights(self, weights)

    def forward(self, points: Tensor, values: Tensor, confidence: Tensor | None, shape: Sequence[int]) -> DenseField:
        """The field on a grid, as of `Interpolation`, and its confidence."""
        points, values, weights = usable_points("NormalizedConvolution", points, values, confidence, shape)
        if self.trend is None:
            return self.filled(*on_nearest_voxels(points, values, weights, shape))
        smooth = self.trend(points, values, weights, shape).u
        left = values - sample(smooth, points)
        rest = self.filled(*on_nearest_voxels(points, left, weights, shape))
        return DenseField(smooth + rest.u, rest.confidence)

    def filled(self, values: Tensor, confidence: Tensor) -> DenseField:
        """The dense field of values on a grid.

        Args:
            values: `(B, C, *S)` of any size; those without confidence do not matter.
            confidence: `(B, 1, *S)`, at least 0.
        """
        shape = values.shape[2:]
        if len(shape) != self.dims or confidence.shape != (len(values), 1, *shape):
            raise ValueError(
                f"NormalizedConvolution: values must be (B, C, *S) with {self.dims} spatial axes and confidence "
                f"(B, 1, *S), got {tuple(values.shape)} and {tuple(confidence.shape)}"
            )
        multiple = 2 ** (self.levels - 1)
        # Voxels that are added know nothing, so they change nothing.
        missing = [(-n) % multiple for n in reversed(shape)]
        padding = [n for m in missing for n in (0, m)]
        x, c = F.pad(values, padding)[:, :, None], F.pad(confidence, padding)
        x, c = self._down_and_up(x, c)
        inside: tuple[Any, ...] = (..., *(slice(n) for n in shape))
        return DenseField(x[:, :, 0][inside], c[inside])

    def _down_and_up(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Values `(B, K, 1, *S)` and confidence `(B, 1, *S)` of a size that can be halved on every level."""
        first, second, third, fourth, fifth, sixth, seventh = self.layers
        x, c = third(*second(*first(x, c)))
        passed = []
        for _ in range(self.levels - 1):
            passed.append((x, c))
            x, c = third(*second(*halved(x, c)))
        for finer_x, finer_c in reversed(passed):
            x, c = (
                torch.cat((finer_x, doubled(x, self.dims)), dim=2),
                torch.cat((finer_c, doubled(c, self.dims)), dim=1),
            )
            x, c = fifth(*fourth(x, c))
        x, c = seventh(*sixth(x, c))
        return x, c


def halved(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The most confident of every block of two voxels along each axis, its confidence divided by their number.

    Args:
        x: `(B, K, C, *S)` of even lengths.
        c: `(B, C, *S)`; each channel chooses by itself, the first in order where several are equal.
    """
    dims = c.ndim - 2
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    largest, index = pool(c, 2, return_indices=True)
    chosen = index.flatten(2)[:, None].expand(-1, x.shape[1], -1, -1)
    values = x.flatten(3).gather(3, chosen)
    return values.reshape(*x.shape[:3], *largest.shape[2:]), largest / math.prod([2] * dims)


def doubled(x: Tensor, dims: int) -> Tensor:
    """Every voxel twice along each of the last `dims` axes."""
    for axis in range(x.ndim - dims, x.ndim):
        x = x.repeat_interleave(2, dim=axis)
    return x
