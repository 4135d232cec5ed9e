"""The network of normalised convolutions that fills in displacements between points (Paper I, Figure 2)."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_bench.coarse_threads import side_by_side
from reg_bench.field import sample
from reg_bench.field.checks import needs_graph
from reg_bench.narrow_convolution import convolve_same
from reg_bench.normalized_convolution import NormalizedConv
from reg_bench.sparse_to_dense.base import DenseField, Interpolation, usable_points
from reg_bench.sparse_to_dense.bspline import BSplineInterpolation, Spline
from reg_bench.sparse_to_dense.scattering import on_nearest_voxels
from reg_bench.sparse_to_dense.stamps import Stamps, stamps_of
from reg_bench.sparse_to_dense.weights import load_weights

# Confidence, or values times confidence, that stands for none; the result has some from 1e-19 on.
_NOTHING = 1e-25
# Voxels from which on a component is worth a thread; for fewer, one operation on all is faster.
_LARGE = 20_000


class Layer(NamedTuple):
    """What is convolved with `kernel (C', C, *k)`, as of `NormalizedConv.shares`, and the bias `(C',)` if any."""

    kernel: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Course:
    """What the network does for a confidence, whatever the values.

    Attributes:
        kernels: of the layers.
        given: the confidence `(B, 1, *S)`.
        stamps: what the first three layers make of the voxels that have any, where these are few.
        layers: the confidence after every layer in the order of their use, down the pyramid and up again.
        chosen: voxels that are kept from level to level, as of `halved`.
        result: the confidence `(B, 1, *S)` of the result.
    """

    kernels: tuple[Layer, ...]
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
        shape = tuple(shape)
        points, values, weights = usable_points("NormalizedConvolution", points, values, confidence, shape)
        grid = on_nearest_voxels(points, weights[:, :, None], weights, shape)[1]
        course = self.course(grid)
        left = values
        trends: list[Spline] = []
        fields: list[Tensor] = []
        for _ in range(1 + self.corrections):
            if fields:
                left = left - sample(fields[-1], points)
            if self.trend is not None:
                trend, left = self.trend.fitted(points, left, weights, shape)
                trends.append(trend)
            fields.append(self.values(on_nearest_voxels(points, left, weights, shape)[0], course))
        # Of the trends only the sum is wanted on the grid.
        smooth = [functools.reduce(operator.add, trends).on_grid(shape)] if trends else []
        return DenseField(functools.reduce(operator.add, [*fields, *smooth]), course.result)

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
        kernels = self._kernels()
        layers: list[Tensor] = []
        chosen: list[Tensor] = []

        def through(which: Sequence[int], *c: Tensor) -> Tensor:
            x = _joined(*c)
            for index in which:
                x = _convolved(x, kernels[index].kernel)
                layers.append(x)
            return x

        def coarser(c: Tensor) -> Tensor:
            c, index = halved(c)
            chosen.append(index)
            return c

        # Voxels that are added know nothing, so they change nothing.
        padded = F.pad(confidence, self._padding(confidence.shape[2:]))
        stamps = self._stamps(padded, kernels)
        c = self._down_and_up(padded, stamps, len(kernels), through, coarser)
        result = _cropped(c, confidence.shape[2:])
        return Course(kernels, confidence, stamps, tuple(layers), tuple(chosen), result)

    def _kernels(self) -> tuple[Layer, ...]:
        """Of the layers; the last two are one where nothing comes between them."""
        *layers, sixth, seventh = (Layer(layer.shares, layer.bias_if_any()) for layer in self._seven)
        if sixth.bias is None and seventh.bias is None:
            joined = (seventh.kernel.flatten(1) @ sixth.kernel.flatten(1)).reshape(1, *sixth.kernel.shape[1:])
            return (*layers, Layer(joined, None))
        return (*layers, sixth, seventh)

    def _stamps(self, confidence: Tensor, kernels: Sequence[Layer]) -> Stamps | None:
        beginning = kernels[:3]
        if confidence.device.type != "cpu" or needs_graph(confidence, *self.parameters()):
            return None
        if any(layer.bias is not None for layer in beginning):
            return None

        def layers(x: Tensor, mask: Tensor | None) -> Tensor:
            for layer in beginning:
                x = _convolved(x, layer.kernel) if mask is None else _convolved(x, layer.kernel) * mask
            return x

        return stamps_of(confidence, sum(layer.kernel.shape[-1] // 2 for layer in beginning), layers)

    def values(self, values: Tensor, course: Course) -> Tensor:
        """The dense field `(B, C, *S)` of values on a grid, for a confidence whose way is known.

        What goes through the layers is values times confidence, see `NormalizedConv.shares`.
        """
        batch, components, *shape = values.shape
        # Components are cases, the first component of all cases first.
        weighted = (values * course.given).transpose(0, 1).reshape(components * batch, 1, *shape)
        confidences, chosen = iter(course.layers), iter(course.chosen)
        plain = all(bias is None for _, bias in course.kernels)
        side = plain and not needs_graph(weighted, course.result, *self.parameters())

        def through(which: Sequence[int], *x: Tensor) -> Tensor:
            y = _joined(*x)
            for index in which:
                kernel, bias = course.kernels[index]
                y = _convolved(y, kernel)
                if not plain:
                    c = next(confidences).repeat(components, *(1,) * (self.dims + 1))
                    y = y if bias is None else y + c * bias.reshape(-1, *(1,) * self.dims)
            return y

        def by_parts(which: Sequence[int], *x: Tensor) -> Tensor:
            if not side or math.prod(x[0].shape[2:]) < _LARGE:
                return through(which, *x)
            cases = zip(*(torch.split(part, 1) for part in x), strict=True)
            return torch.cat(side_by_side([functools.partial(through, which, *case) for case in cases]))

        def coarser(x: Tensor) -> Tensor:
            return at_chosen(x, next(chosen).repeat(components, *(1,) * (self.dims + 1))) / 2**self.dims

        padded = F.pad(weighted, self._padding(shape))
        x = self._down_and_up(padded, course.stamps, len(course.kernels), by_parts, coarser)
        sums = _cropped(x, shape).reshape(components, batch, *shape).transpose(0, 1)
        return sums / F.threshold(course.result, math.sqrt(torch.finfo(sums.dtype).tiny), 1.0)

    def _down_and_up(
        self,
        x: Tensor,
        stamps: Stamps | None,
        layers: int,
        through: Callable[..., Tensor],
        coarser: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The order of the layers (Figure 2), for images `(B, 1, *S)` of a size that can be halved on every level.

        `through(which, finer)` and `through(which, finer, coarser)` lead through layers, by their numbers from 0.
        """
        x = through((0, 1, 2), x) if stamps is None else stamps.of(x)
        passed = []
        for _ in range(self.levels - 1):
            passed.append(x)
            x = through((1, 2), coarser(x))
        last = tuple(range(5, layers))
        for level, finer in reversed(list(enumerate(passed))):
            x = through((3, 4) if level else (3, 4, *last), finer, x)
        return x if passed else through(last, x)

    def _padding(self, shape: Sequence[int]) -> list[int]:
        """To a size that can be halved on every level."""
        multiple = 2 ** (self.levels - 1)
        return [n for length in reversed(shape) for n in (0, (-length) % multiple)]


def _joined(finer: Tensor, coarser: Tensor | None = None) -> Tensor:
    return finer if coarser is None else torch.cat((finer, doubled(coarser, finer.ndim - 2)), dim=1)


def _convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Values times confidence, or confidence, after a layer without its bias."""
    # Far from all points numbers get so small that a CPU takes ten times as long for them.
    return F.hardshrink(convolve_same(x, kernel), _NOTHING)


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
    shape = x.shape[-dims:]
    for axis in range(dims):
        x = x.unsqueeze(x.ndim - 2 * axis)
    twice = [n for length in shape for n in (length, 2)]
    return x.expand(*x.shape[: -2 * dims], *twice).reshape(*x.shape[: -2 * dims], *(2 * n for n in shape))
