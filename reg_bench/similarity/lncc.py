"""Local normalised cross-correlation: every voxel's window correlated on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Literal

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import (
    Analytic,
    Evaluate,
    Similarity,
    check_fixed,
    expanded,
    mean_weights,
    rounding_variance,
    share,
)
from reg_bench.similarity.box_sums import PaddedLayout, Slab, box_sum, slabs

Border = Literal["clip", "zeros"]


class LNCC(Similarity):
    """One minus the mean squared correlation of the two images in a box window around every voxel.

    Thesis (2.25) in a window, as VoxelMorph and MONAI have it: blind to intensities that change slowly over the
    image. 0 for images that are locally linear functions of each other, 1 for unrelated ones. A window in which an
    image is nearly flat tells nothing: its variance counts as at least `floor`. A mask weighs the voxels that windows
    stand on; windows look beyond it.

    The gradient is analytic (three box sums), what depends on the fixed image alone is computed once, and no
    temporary is larger than a few volumes.

    Args:
        window: odd extent in voxels, or one per axis.
        signed: the correlation itself, not its square: -1 (an energy of 2) for inverted contrast.
        border: what a window over the border holds: `clip`, the voxels inside, so that a constant added to an image
            changes nothing; `zeros`, as MONAI's `LocalNormalizedCrossCorrelationLoss`, whose value plus 1 this is
            then, with `floor` as its `smooth_dr`.
        floor: least variance in a window. With `clip`, as a share of the image's variance: neither image's unit of
            intensity matters. With `zeros`, times the voxels of the window, in squared intensities.

    Raises:
        ValueError: a window that is not odd, a floor that is not positive, an unknown border.
    """

    def __init__(
        self,
        window: int | Sequence[int] = 9,
        *,
        signed: bool = False,
        border: Border = "clip",
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        extents = (window,) if isinstance(window, int) else tuple(window)
        if any(w < 1 or w % 2 == 0 for w in extents) or max(extents, default=1) < 3:
            raise ValueError(f"LNCC: window must be odd and at least 3 along an axis, got {window}")
        if border not in ("clip", "zeros"):
            raise ValueError(f"LNCC: border must be 'clip' or 'zeros', got {border!r}")
        if not floor > 0:
            raise ValueError(f"LNCC: floor must be positive, got {floor}")
        self.window, self.signed, self.border, self.floor = window, signed, border, floor

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("LNCC", fixed)
        weights = mean_weights("LNCC", mask, fixed, at_least_float32(fixed))
        return Analytic("LNCC", fixed, self._evaluate(weights, fixed), partial(self._evaluate, weights))

    @torch.no_grad()
    def _evaluate(self, weights: Tensor | None, fixed: Tensor) -> Evaluate:
        return _Bound(self, fixed.detach(), weights).evaluate

    def layout(self, shape: Sequence[int]) -> PaddedLayout:
        """The layout of volumes `shape` with the window of each axis."""
        extents = (self.window,) * len(shape) if isinstance(self.window, int) else tuple(self.window)
        if len(extents) != len(shape):
            raise ValueError(f"LNCC: window must be one number or {len(shape)}, got {self.window}")
        return PaddedLayout(tuple(shape), extents)


class _Bound:
    """What LNCC needs of the fixed image: its local means and inverse variances, with the weights in them.

    With `F` and `W` the sums over a window of `f` and `w`, `n` its voxels, `c` the sum of `f w` less `F W / n` and
    `v` the variance sums, a window's term is `p = r c² / v_w` with `r = weight / v_f` or, signed, `p = r c / √v_w`
    with `r = weight / √v_f`. Everything is linear in the weights. With `u = p / c`, the derivative of the sum of all
    terms in `w` is, up to a factor of 2 for squares, `f Σu - w Σ(p / v_w) - Σ(u F - p W / v_w) / n`, sums over the
    window. Buffers are `(N, length)`, `N` cases times channels.
    """

    def __init__(self, settings: LNCC, fixed: Tensor, weights: Tensor | None) -> None:
        self._settings, self._shape = settings, fixed.shape
        self._layout = settings.layout(fixed.shape[2:])
        self._dtype = at_least_float32(fixed)
        self._share = share(weights, fixed, self._dtype)
        self._inverse_counts = self._counted(fixed.device)
        self._values, floor = self._prepared(fixed)
        self._mean, self._ratio = torch.zeros_like(self._values), torch.zeros_like(self._values)
        each = self._values.new_tensor(1 / fixed[0].numel()) if weights is None else weights / fixed.shape[1]
        each = each.expand(fixed.shape).flatten(0, 1)
        for slab in self._slabs():
            self._look_at_fixed(slab, floor, each)

    def evaluate(self, warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        values, floor = self._prepared(warped)
        maps = [self._layout.unwritten(values) for _ in range(3)] if with_gradient else None
        terms = values.new_zeros(len(values))
        for slab in self._slabs():
            terms[slab.cases] += self._terms(slab, values, floor, maps)
        energy = self._share - terms.reshape(self._shape[:2]).sum(dim=1)
        if maps is None:
            return energy, None
        return energy, self._gradient(values, maps).reshape(self._shape).to(warped.dtype)

    def _slabs(self) -> Iterator[Slab]:
        return slabs(self._layout, self._shape[0] * self._shape[1], self._share.device)

    def _counted(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """One over the voxels of a window, as the factor of the first axis and that of the others, `(plane,)`."""
        shape, window = self._layout.shape, self._layout.window
        if self._settings.border == "clip":
            counts = [self._layout.counts(axis) for axis in range(len(shape))]
        else:
            counts = [torch.full((n,), w) for n, w in zip(shape, window, strict=True)]
        first, *others = (c.to(device=device, dtype=self._dtype).reciprocal() for c in counts)
        plane = first.new_ones(1)
        for factor, radius in zip(others, self._layout.radii[1:], strict=True):
            plane = torch.outer(plane, torch.nn.functional.pad(factor, (0, radius))).flatten()
        return first, plane

    def _inverse_count(self, slab: Slab) -> Tensor:
        first, plane = self._inverse_counts
        return torch.outer(first[slab.start : slab.stop], plane).flatten()

    def _prepared(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The volumes in the padded layout, centred where the border allows, and the least variance sums `(N, 1)`."""
        volumes = image.to(self._dtype).flatten(0, 1)
        if self._settings.border == "zeros":
            nothing, floor = volumes.new_zeros(len(volumes)), volumes.new_full((len(volumes), 1), self._settings.floor)
            return self._layout.padded(volumes, nothing), floor
        mean = volumes.flatten(1).mean(dim=1)
        values = self._layout.padded(volumes, mean)
        variance = torch.linalg.vecdot(values, values) / volumes[0].numel()
        # A constant image correlates with nothing.
        variance = variance.masked_fill(variance <= rounding_variance(mean), torch.inf)
        return values, (self._settings.floor * prod(self._layout.window) * variance)[:, None]

    def _look_at_fixed(self, slab: Slab, floor: Tensor, weights: Tensor) -> None:
        around = slab.around(self._values)
        sums = box_sum(slab, around)
        mean = torch.mul(sums, self._inverse_count(slab), out=slab.inside(self._mean))
        variance = box_sum(slab, around.square()).addcmul_(mean, sums, value=-1).maximum(floor[slab.cases])
        inverse = variance.rsqrt() if self._settings.signed else variance.reciprocal()
        ratio = slab.voxels(slab.inside(self._ratio))
        torch.mul(slab.voxels(inverse), weights[slab.cases, slab.start : slab.stop], out=ratio)

    def _terms(self, slab: Slab, values: Tensor, floor: Tensor, maps: list[Tensor] | None) -> Tensor:
        """The sum of the slab's terms, `(k,)`; fills `u`, `p / v_w` and `(u F - p W / v_w) / n` if asked for."""
        around, ratio = slab.around(values), slab.inside(self._ratio)
        fixed_mean = slab.inside(self._mean)
        sums = box_sum(slab, around)
        mean = sums * self._inverse_count(slab)
        raw = box_sum(slab, around.square()).addcmul_(mean, sums, value=-1)
        variance = raw.maximum(floor[slab.cases])
        covariance = box_sum(slab, around * slab.around(self._values)).addcmul_(fixed_mean, sums, value=-1)
        slope = ratio * variance.rsqrt() if self._settings.signed else torch.div(ratio, variance).mul_(covariance)
        terms = covariance.mul_(slope)
        total = terms.sum(dim=1)
        if maps is not None:
            slab.inside(maps[0]).copy_(slope)
            # Where the floor stands in for the variance, that does not change with the image.
            decline = torch.mul(terms.div_(variance), raw > floor[slab.cases], out=slab.inside(maps[1]))
            torch.mul(slope, fixed_mean, out=slab.inside(maps[2])).addcmul_(decline, mean, value=-1)
        return total

    def _gradient(self, values: Tensor, maps: list[Tensor]) -> Tensor:
        """The derivative of one minus the sum of all terms, `(N, *S)`."""
        factor = -1 if self._settings.signed else -2
        gradient = values.new_empty((len(values), *self._layout.shape))
        along = values.new_zeros(len(values))
        for slab in self._slabs():
            slope, decline, mean = (box_sum(slab, slab.around(m)) for m in maps)
            inside = slab.inside(values)
            part = slope.mul_(slab.inside(self._values)).addcmul_(decline, inside, value=-1).sub_(mean).mul_(factor)
            gradient[slab.cases, slab.start : slab.stop] = slab.voxels(part)
            along[slab.cases] += torch.linalg.vecdot(part, inside)
        if self._settings.border == "zeros":
            return gradient
        # The floor grows with the image's variance, and so a mere change of contrast has no slope.
        share = along / torch.linalg.vecdot(values, values).clamp(min=torch.finfo(values.dtype).tiny)
        return gradient.addcmul_(self._layout.voxels(values), expanded(share, gradient), value=-1)
