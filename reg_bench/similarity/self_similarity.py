"""Self-similarity descriptors: how like each other the patches around a voxel are, whatever their contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import check_fixed
from reg_bench.similarity.box_sums import PaddedLayout, Slab, slabs, windows

# Bounds of a voxel's variance estimate, times its mean over the image.
_LEAST, _MOST = 1e-3, 1e3


def mind_descriptor(image: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """MIND-SSC, the self-similarity context of every voxel (Heinrich et al., MICCAI 2013).

    The neighbours of a voxel at distance `dilation` along the axes form pairs, one from each of two axes: 12 in 3-D, 4
    in 2-D. Each pair gives the mean squared difference `d` of the patches around its two neighbours, and an entry
    `exp(-(d - min d) / v)`, where `v`, the mean of `d - min d` over the pairs, is kept within 0.001 and 1000 times
    its mean over the image. Beyond its border the image continues with the values there. Entries lie in (0, 1], the
    largest is 1. Differentiable once, with that mean over the image held constant.

    Args:
        image: `(B, C, *S)`, 2-D or 3-D.
        radius: of the patches, voxels: they are `2 radius + 1` wide.
        dilation: distance of the neighbours, voxels.

    Returns:
        `(B, C K, *S)`, `K = 12` or 4 entries of the first channel, then those of the next, never below float32.

    Raises:
        ValueError: not a batch of images, a negative radius, or a dilation below 1.
    """
    check_fixed("mind_descriptor", image, "image")
    apply = cast(Callable[..., Tensor], _Describe.apply)
    return apply(image.to(at_least_float32(image)), Mind(tuple(image.shape[2:]), radius, dilation))


@dataclass(frozen=True)
class Exponents:
    """What the entries are `exp` of, negated: `(N, K, *S)`; the variance estimates, and where no bound holds them."""

    values: Tensor
    variance: Tensor
    free: Tensor


@dataclass(frozen=True)
class Mind:
    """The descriptors of volumes of one shape and their derivative, both slab by slab.

    Two pairs with the same difference vector see the same squared differences, only shifted: half the work. On flat
    memory of the image with its continued border, a shift is an offset and a patch is a sum of stretches of memory.
    """

    shape: tuple[int, ...]
    radius: int
    dilation: int

    def __post_init__(self) -> None:
        if self.radius < 0 or self.dilation < 1:
            raise ValueError(
                f"MIND: radius must be at least 0 and dilation at least 1, got {self.radius} and {self.dilation}"
            )

    @property
    def count(self) -> int:
        """How many entries a voxel has."""
        return 2 * len(self._vectors)

    @property
    def border(self) -> int:
        return self.radius + self.dilation

    @cached_property
    def layout(self) -> PaddedLayout:
        """How voxels with their continued border lie in memory: nothing between the rows."""
        extended = tuple(n + 2 * self.border for n in self.shape)
        return PaddedLayout(extended, (1,) * len(extended))

    @cached_property
    def _vectors(self) -> list[tuple[int, tuple[int, int]]]:
        """Difference vectors of pairs as distances in memory, each with where in it the patches of two pairs begin."""
        strides = [self.dilation * stride for stride in self.layout.strides]
        origin = sum(strides)
        vectors = []
        for first, second in combinations(strides, 2):
            vectors.append((first + second, (origin - first, origin - second)))
            vectors.append((first - second, (origin - first, origin + second)))
        return vectors

    def slabs(self, cases: int, device: torch.device) -> Iterator[Slab]:
        return slabs(PaddedLayout(self.shape, (1,) * len(self.shape)), cases, device)

    def extended(self, volumes: Tensor) -> Tensor:
        """Volumes `(N, *S)` with their border continued, flat: `(N, length)`."""
        sides = [self.border] * 2 * len(self.shape)
        return torch.nn.functional.pad(volumes[:, None], sides, mode="replicate").flatten(1)

    def folded(self, extended: Tensor) -> Tensor:
        """The adjoint of `extended`: what the border holds goes to the voxels that it continues."""
        volumes = extended.reshape(-1, *self.layout.shape)
        for dim, length in enumerate(self.shape, start=1):
            inner = volumes.narrow(dim, self.border, length)
            inner.select(dim, 0).add_(volumes.narrow(dim, 0, self.border).sum(dim=dim))
            inner.select(dim, length - 1).add_(volumes.narrow(dim, self.border + length, self.border).sum(dim=dim))
            volumes = inner
        return volumes

    def pieces(self, slab: Slab) -> Iterator[Slab]:
        """The slab in parts whose many entries still lie in the cache."""
        step = max(1, (slab.stop - slab.start) // self.count) if slab.cases.stop - slab.cases.start == 1 else 1
        for start in range(slab.start, slab.stop, step):
            yield Slab(slab.layout, slab.cases, start, min(slab.stop, start + step))

    def exponents(self, volumes: Tensor) -> Exponents:
        """The exponents of the descriptors of `volumes (N, *S)`."""
        extended = self.extended(volumes)
        values = volumes.new_empty((len(volumes), self.count, *self.shape))
        variance = torch.empty_like(volumes)
        for slab in self.slabs(len(volumes), volumes.device):
            self._fill_distances(slab, extended, within(values, slab))
            for piece in self.pieces(slab):
                part = within(values, piece)
                part -= part.amin(dim=1, keepdim=True)
                variance[piece.cases, piece.start : piece.stop] = part.mean(dim=1)
        mean = variance.flatten(1).mean(dim=1).reshape(-1, *(1,) * len(self.shape))
        low, high = (mean * bound for bound in (_LEAST, _MOST))
        free = (variance > low) & (variance < high)
        variance = variance.maximum(low).minimum(high).clamp_(min=torch.finfo(variance.dtype).tiny)
        values /= variance[:, None]
        return Exponents(values, variance, free)

    def pull_back(self, volumes: Tensor, exponents: Exponents, slope: Callable[[Slab], Tensor]) -> Tensor:
        """The derivative in `volumes (N, *S)` of what has the derivative `slope` in their exponents.

        Args:
            slope: of a slab, `(k, K, planes, *S[1:])`; may be overwritten.
        """
        extended = self.extended(volumes)
        out = torch.zeros_like(extended)
        for slab in self.slabs(len(volumes), volumes.device):
            of_distances = torch.empty_like(within(exponents.values, slab), memory_format=torch.contiguous_format)
            for piece in self.pieces(slab):
                part = self._of_distances(piece, exponents, slope(piece))
                of_distances[:, :, piece.start - slab.start : piece.stop - slab.start] = part
            self._pull_back_distances(slab, extended, of_distances, out)
        return self.folded(out)

    def _around(self, extended: Tensor, slab: Slab) -> Tensor:
        """The planes of the slab and of its border, `(k, length)`."""
        plane = self.layout.plane
        return extended[slab.cases, slab.start * plane : (slab.stop + 2 * self.border) * plane]

    def _voxels(self, flat: Tensor, offset: int, slab: Slab) -> Tensor:
        """The voxels of the slab, shifted by `offset`, in flat memory `(k, length)`, as a view."""
        shape = (len(flat), slab.stop - slab.start, *self.shape[1:])
        return flat.as_strided(shape, (flat.stride(0), *self.layout.strides), flat.storage_offset() + offset)

    def _fill_distances(self, slab: Slab, extended: Tensor, out: Tensor) -> None:
        """The sums of squared differences of the patches of every pair, into `out (k, K, planes, *S[1:])`.

        Sums serve as well as means: distances and their variance have the same unit.
        """
        around = self._around(extended, slab)
        for index, (vector, begins) in enumerate(self._vectors):
            sums = (around[:, vector:] - around[:, :-vector]).square_()
            for stride in self.layout.strides:
                sums = windows(sums, stride, 2 * self.radius + 1)
            for which, begin in enumerate(begins):
                out[:, 2 * index + which] = self._voxels(sums, begin, slab)

    def _of_distances(self, slab: Slab, exponents: Exponents, slope: Tensor) -> Tensor:
        """The derivative in the distances, `(k, K, planes, *S[1:])`, from that in the exponents."""
        values = within(exponents.values, slab)
        slope /= exponents.variance[slab.cases, None, slab.start : slab.stop]
        of_variance = (slope * values).mean(dim=1, keepdim=True)
        slope -= of_variance.mul_(exponents.free[slab.cases, None, slab.start : slab.stop])
        # The least distance is subtracted from all; equal ones share its derivative.
        least = (values == 0).to(slope.dtype)
        return slope.addcmul_(least, slope.sum(dim=1, keepdim=True) / least.sum(dim=1, keepdim=True), value=-1)

    def _pull_back_distances(self, slab: Slab, extended: Tensor, slope: Tensor, out: Tensor) -> None:
        around, target = self._around(extended, slab), self._around(out, slab)
        width = 2 * self.radius + 1
        reach = (width - 1) * sum(self.layout.strides)
        for index, (vector, begins) in enumerate(self._vectors):
            sums = around.new_zeros((len(around), around.shape[1] + reach))
            for which, begin in enumerate(begins):
                self._voxels(sums, reach + begin, slab).add_(slope[:, 2 * index + which])
            for stride in self.layout.strides:
                sums = windows(sums, stride, width)
            change = (around[:, vector:] - around[:, :-vector]).mul_(sums[:, : around.shape[1] - vector]).mul_(2)
            target[:, vector:] += change
            target[:, :-vector] -= change


def within(values: Tensor, slab: Slab) -> Tensor:
    """The slab of `values (N, K, *S)`, as a view `(k, K, planes, *S[1:])`."""
    return values[slab.cases, :, slab.start : slab.stop]


class _Describe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, mind: Mind) -> Tensor:
        exponents = mind.exponents(image.detach().flatten(0, 1))
        entries = exponents.values.neg_().exp_()
        ctx.mind = mind
        ctx.save_for_backward(image, entries, exponents.variance, exponents.free)
        return entries.reshape(image.shape[0], -1, *mind.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        image, entries, variance, free = ctx.saved_tensors
        given = upstream.reshape(entries.shape)
        # An entry that vanished has no slope, whatever its exponent was.
        exponents = Exponents(entries.clamp(min=torch.finfo(entries.dtype).tiny).log_().neg_(), variance, free)

        def slope(slab: Slab) -> Tensor:
            return within(given, slab) * within(entries, slab).neg()

        return ctx.mind.pull_back(image.flatten(0, 1), exponents, slope).reshape(image.shape), None
