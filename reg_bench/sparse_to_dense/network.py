"""The network of normalised convolutions that fills in displacements between points (Paper I, Figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_bench.coarse_threads import side_by_side
from reg_bench.field import sample
from reg_bench.field.checks import needs_graph
from reg_bench.narrow_convolution import convolve_same
from reg_bench.normalized_convolution import NormalizedConv
from reg_bench.sparse_to_dense.base import DenseField, Interpolation, usable_points
from reg_bench.sparse_to_dense.bspline import BSplineInterpolation
from reg_bench.sparse_to_dense.scattering import on_nearest_voxels
from reg_bench.sparse_to_dense.stamps import Stamps, stamps_of
from reg_bench.sparse_to_dense.weights import load_weights

# Confidence, or values times confidence, that stands for none; the result has some from 1e-19 on.
_NOTHING = 1e-25


@dataclass(frozen=True)
class Course:
    """What the network does for a confidence, whatever the values.

    Attributes:
        given: the confidence `(B, 1, *S)`.
        stamps: what the first three layers make of the voxels that have any, where these are few.
        layers: the confidence after every layer in the order of their use, down the pyramid and up again.
        chosen: voxels that are kept from level to level, as of `halved`.
        result: the confidence `(B, 1, *S)` of the result.
    """

    given: Tensor
    stamps: Stamps | None
    layers: tuple[Tensor, ...]
    chosen: tuple[Tensor, ...]
    result: Tensor


class NormalizedConvolution(Interpolation):
    """Seven layers of normalised convolution on a pyramid, which share four of them between the levels.

    Layers 1 to 3 smooth the points on the grid of the image; on every coarser level the most confident of each block
    of voxels is kept and smoothed by layers 2 and 3 again. From coarse to fine, what comes from the coarser level,
    enlarged, and what was there on the way down are joined by layers 4 and 5; layers 6 and 7 finish. All components of
    the displacement go through the same layers, each by itself. In 2-D it has 409 parameters.

    Averages of neighbours know no slope. Ours, beyond the paper, is the trend: a coarse B-spline near the points is
    taken off before the network and put back after it, so that only what is left has to be averaged. So are
    corrections.

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
        corrections: times that what the smooth field misses at the points is filled in as well and added. The
            confidence, and all that depends on it alone, is computed once.

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
        corrections: int = 0,
    ) -> None:
        super().__init__()
        if levels < 1 or corrections < 0:
            raise ValueError(
                "NormalizedConvolution: levels must be at least 1 and corrections at least 0, got "
                f"{levels} and {corrections}"
            )
        self.levels, self.dims, self.corrections = levels, dims, corrections
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
        grid = on_nearest_voxels(points, weights[:, :, None], weights, shape)[1]
        course = self.course(grid)
        u = self._once(points, values, weights, course)
        for _ in range(self.corrections):
            u = u + self._once(points, values - sample(u, points), weights, course)
        return DenseField(u, course.result)

    def _once(self, points: Tensor, values: Tensor, weights: Tensor, course: Course) -> Tensor:
        """The field `(B, D, *S)` of values at points, without correction."""
        shape = course.result.shape[2:]
        if self.trend is None:
            return self.values(on_nearest_voxels(points, values, weights, shape)[0], course)
        smooth = self.trend(points, values, weights, shape).u
        left = values - sample(smooth, points)
        return smooth + self.values(on_nearest_voxels(points, left, weights, shape)[0], course)

    def filled(self, values: Tensor, confidence: Tensor) -> DenseField:
        """The dense field of values on a grid, without trend and corrections.

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
        course = self.course(confidence)
        return DenseField(self.values(values, course), course.result)

    @property
    def _seven(self) -> list[NormalizedConv]:
        return cast(list[NormalizedConv], list(self.layers))

    def course(self, confidence: Tensor) -> Course:
        """The way of a confidence `(B, 1, *S)`, at least 0 and of any size, through the network."""
        layers: list[Tensor] = []
        chosen: list[Tensor] = []

        def passed_on(c: Tensor, layer: NormalizedConv) -> Tensor:
            layers.append(_convolved(c, layer))
            return layers[-1]

        def coarser(c: Tensor) -> Tensor:
            c, index = halved(c)
            chosen.append(index)
            return c

        # Voxels that are added know nothing, so they change nothing.
        padded = F.pad(confidence, self._padding(confidence.shape[2:]))
        stamps = self._stamps(padded)
        c = self._down_and_up(padded, stamps, passed_on, coarser)
        return Course(confidence, stamps, tuple(layers), tuple(chosen), _cropped(c, confidence.shape[2:]))

    def _stamps(self, confidence: Tensor) -> Stamps | None:
        beginning = self._seven[:3]
        if confidence.device.type != "cpu" or needs_graph(confidence, *self.parameters()):
            return None
        if any(layer.bias_if_any() is not None for layer in beginning):
            return None

        def layers(x: Tensor, mask: Tensor | None) -> Tensor:
            for layer in beginning:
                x = _convolved(x, layer) if mask is None else _convolved(x, layer) * mask
            return x

        return stamps_of(confidence, sum(layer.weight.shape[-1] // 2 for layer in beginning), layers)

    def values(self, values: Tensor, course: Course) -> Tensor:
        """The dense field `(B, C, *S)` of values on a grid, for a confidence whose way is known.

        What goes through the layers is values times confidence, see `NormalizedConv.shares`.
        """
        weighted = values * course.given
        # Every component by itself, on as many threads as there may be.
        tasks = [partial(self._sums, component, course) for component in torch.split(weighted, 1, dim=1)]
        graph = needs_graph(weighted, course.result, *self.parameters())
        sums = torch.cat([task() for task in tasks] if graph else side_by_side(tasks), dim=1)
        return sums / F.threshold(course.result, math.sqrt(torch.finfo(sums.dtype).tiny), 1.0)

    def _sums(self, weighted: Tensor, course: Course) -> Tensor:
        """Values times confidence `(B, 1, *S)` of the result, of one component."""
        shape = weighted.shape[2:]
        confidences, chosen = iter(course.layers), iter(course.chosen)

        def passed_on(x: Tensor, layer: NormalizedConv) -> Tensor:
            c, bias = next(confidences), layer.bias_if_any()
            x = _convolved(x, layer)
            return x if bias is None else torch.addcmul(x, c, bias.reshape(-1, *(1,) * self.dims))

        def coarser(x: Tensor) -> Tensor:
            return at_chosen(x, next(chosen)) / 2**self.dims

        padded = F.pad(weighted, self._padding(shape))
        return _cropped(self._down_and_up(padded, course.stamps, passed_on, coarser), shape)

    def _down_and_up(
        self,
        x: Tensor,
        stamps: Stamps | None,
        layer: Callable[[Tensor, NormalizedConv], Tensor],
        coarser: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The order of the layers (Figure 2), for images `(B, 1, *S)` of a size that can be halved on every level."""
        first, second, third, fourth, fifth, sixth, seventh = self._seven
        x = layer(layer(layer(x, first), second), third) if stamps is None else stamps.of(x)
        passed = []
        for _ in range(self.levels - 1):
            passed.append(x)
            x = layer(layer(coarser(x), second), third)
        for finer in reversed(passed):
            x = layer(layer(torch.cat((finer, doubled(x, self.dims)), dim=1), fourth), fifth)
        return layer(layer(x, sixth), seventh)

    def _padding(self, shape: Sequence[int]) -> list[int]:
        """To a size that can be halved on every level."""
        multiple = 2 ** (self.levels - 1)
        return [n for length in reversed(shape) for n in (0, (-length) % multiple)]


def _convolved(x: Tensor, layer: NormalizedConv) -> Tensor:
    """Values times confidence, or confidence, after a layer without its bias."""
    # Far from all points numbers get so small that a CPU takes ten times as long for them.
    return F.hardshrink(convolve_same(x, layer.shares), _NOTHING)


def _cropped(x: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, length in enumerate(shape, start=2):
        x = x.narrow(axis, 0, length)
    return x


def halved(c: Tensor) -> tuple[Tensor, Tensor]:
    """The highest confidence of every block of two voxels along each axis, divided by their number; and which it is.

    Args:
        c: `(B, C, *S)` of even lengths; each channel chooses by itself, the first in order where several are equal.
    """
    dims = c.ndim - 2
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    largest, index = pool(c, 2, return_indices=True)
    return largest / 2**dims, index


def at_chosen(x: Tensor, chosen: Tensor) -> Tensor:
    """The values of the voxels that `halved` chose: of `x (B, C, *S)` by `chosen (B, C, *S / 2)`."""
    return x.flatten(2).gather(2, chosen.flatten(2)).reshape(chosen.shape)


def doubled(x: Tensor, dims: int) -> Tensor:
    """Every voxel twice along each of the last `dims` axes."""
    for axis in range(x.ndim - dims, x.ndim):
        x = x.repeat_interleave(2, dim=axis)
    return x
