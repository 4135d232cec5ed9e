"""Mutual information: what the intensities of one image tell about those of the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import Analytic, Evaluate, Similarity, check_fixed, mean_weights, share
from reg_bench.similarity.parzen import (
    Parzen,
    Placed,
    Window,
    add_moments,
    chunks,
    empty_moments,
    joint_levels,
    place,
    slopes,
)

# Keeps logarithms of empty bins and quotients of vanishing entropies finite.
_EMPTY_BIN, _NO_ENTROPY = 1e-12, 1e-9


class MutualInformation(Similarity):
    """Minus the mutual information of the two images, thesis (2.26)-(2.28), in nats; mean over channels.

    For images of different modalities: blind to any one-to-one change of intensities. The densities are estimated
    with a Parzen window over equal bins between the least and the largest intensity of each image (of the voxels that
    count); the range is held constant in the derivative. The normalised energy is `-(H(F) + H(W)) / H(F, W)`, from -2
    for images that determine each other to -1 for independent ones, and -1 for constant ones.

    Args:
        bins: of each image. The cubic window leaves one empty at either end.
        window: `cubic` or `linear` B-spline, or `gaussian` with a standard deviation of half a bin.
        normalised: normalised mutual information, which does not favour a small overlap with the background.
        intensity_range: the same range for both images and all cases, instead of each one's own; intensities
            outside count as the ends.
        samples: share of the voxels to look at, drawn once per binding with equal draws for equal cases.
        seed: of these draws.

    Raises:
        ValueError: too few bins, an unknown window, an empty range, or a share that is not in (0, 1].
    """

    def __init__(
        self,
        bins: int = 32,
        *,
        window: Window = "cubic",
        normalised: bool = False,
        intensity_range: tuple[float, float] | None = None,
        samples: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise ValueError(f"MutualInformation: intensity_range must be (low, high), got {intensity_range}")
        if samples is not None and not 0 < samples <= 1:
            raise ValueError(f"MutualInformation: samples must be a share in (0, 1], got {samples}")
        self.parzen = Parzen(bins, window)
        self.normalised, self.intensity_range, self.samples, self.seed = normalised, intensity_range, samples, seed

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("MutualInformation", fixed)
        weights = mean_weights("MutualInformation", mask, fixed, at_least_float32(fixed))
        return Analytic("MutualInformation", fixed, self._evaluate(weights, fixed), partial(self._evaluate, weights))

    @torch.no_grad()
    def _evaluate(self, weights: Tensor | None, fixed: Tensor) -> Evaluate:
        return _Bound(self, fixed.detach(), weights).evaluate

    def chosen(self, weights: Tensor | None, size: int, device: torch.device) -> Tensor | None:
        """Which of the `size` voxels of a case to look at, in order; `None` means all."""
        inside = None if weights is None else weights.nonzero()[:, 0]
        if self.samples is None:
            return inside
        count = size if inside is None else len(inside)
        draw = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        draw = draw[: max(1, round(self.samples * count))].sort().values.to(device)
        return draw if inside is None else inside[draw]

    def placed(self, values: Tensor) -> tuple[Placed, Tensor]:
        """Intensities `(V,)` among the levels, and levels per unit of intensity, 0 for a constant image."""
        if self.intensity_range is None:
            low, high = values.aminmax() if len(values) else (values.new_zeros(()), values.new_zeros(()))
        else:
            low, high = (values.new_tensor(v) for v in self.intensity_range)
        levels = self.parzen.levels
        scale = torch.where(high > low, (levels - 1) / (high - low), 0)
        return place(values, low, scale, levels), scale


@dataclass(frozen=True)
class _Channel:
    """One channel of one fixed image: which voxels, their weights, where their rows of cells begin, their fractions."""

    chosen: Tensor | None
    weights: Tensor | None
    rows: Tensor
    fractions: Tensor


class _Bound:
    """The fixed image of mutual information, placed among the levels once."""

    def __init__(self, settings: MutualInformation, fixed: Tensor, weights: Tensor | None) -> None:
        self._settings, self._shape = settings, fixed.shape
        self._dtype = at_least_float32(fixed)
        self._share = share(weights, fixed, self._dtype)
        self._window = settings.parzen.matrix(fixed.device)
        self._channels: list[_Channel] = []
        for index, image in enumerate(fixed.to(self._dtype)):
            of_case = None if weights is None else weights[index].flatten()
            chosen = settings.chosen(of_case, image[0].numel(), fixed.device)
            if of_case is not None:
                of_case = of_case[chosen].to(self._window.dtype)
                of_case = of_case / of_case.sum().clamp(min=torch.finfo(of_case.dtype).tiny)
            for channel in image:
                placed, _ = settings.placed(_picked(channel, chosen))
                rows = placed.cell * (settings.parzen.levels - 1)
                self._channels.append(_Channel(chosen, of_case, rows, placed.fraction))

    def evaluate(self, warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        values = warped.to(self._dtype).flatten(0, 1)
        gradient = torch.zeros_like(values) if with_gradient else None
        slots = [None] * len(values) if gradient is None else list(gradient)
        energies = [self._energy(*one) for one in zip(self._channels, values, slots, strict=True)]
        channels = self._shape[1]
        energy = torch.stack(energies).reshape(self._shape[:2]).mean(dim=1).to(self._dtype) * self._share
        if gradient is None:
            return energy, None
        return energy, gradient.div_(channels).reshape(self._shape).to(warped.dtype)

    def _energy(self, channel: _Channel, image: Tensor, gradient: Tensor | None) -> Tensor:
        """The energy `()` of one channel `(*S)`; fills its gradient `(*S)` if asked for."""
        placed, scale = self._settings.placed(_picked(image, channel.chosen))
        cells = placed.cell.add_(channel.rows)
        moments = empty_moments(self._settings.parzen.levels, image.device)
        for part in chunks(len(cells), image.device):
            fractions = channel.fractions[part], placed.fraction[part]
            add_moments(moments, cells[part], *fractions, self._weights(channel, part))
        density = self._window @ joint_levels(moments) @ self._window.T
        energy, slope = information(density, self._settings.normalised)
        if gradient is not None:
            self._fill_gradient(channel, cells, slopes(self._window.T @ slope @ self._window * scale), gradient)
            if self._settings.intensity_range is not None:
                low, high = self._settings.intensity_range
                gradient.masked_fill_((image < low) | (image > high), 0)
        return energy

    def _weights(self, channel: _Channel, part: slice) -> Tensor:
        if channel.weights is not None:
            return channel.weights[part]
        return self._window.new_full(channel.rows[part].shape, 1 / len(channel.rows))

    def _fill_gradient(self, channel: _Channel, cells: Tensor, tables: tuple[Tensor, Tensor], out: Tensor) -> None:
        flat = out.view(-1)
        target = flat if channel.chosen is None else flat.new_empty(len(cells))
        steady, tilted = (table.to(out.dtype) for table in tables)
        for part in chunks(len(cells), out.device):
            value = tilted.index_select(0, cells[part]).mul_(channel.fractions[part])
            value += steady.index_select(0, cells[part])
            target[part] = value / len(cells) if channel.weights is None else value * channel.weights[part]
        if channel.chosen is not None:
            flat.index_copy_(0, channel.chosen, target)


def _picked(image: Tensor, chosen: Tensor | None) -> Tensor:
    return image.flatten() if chosen is None else image.flatten()[chosen]


def information(density: Tensor, normalised: bool) -> tuple[Tensor, Tensor]:
    """Minus the (normalised) mutual information of a joint density `(bins, bins)`: `()`, and its derivative."""
    joint, joint_slope = _negative_entropy(density)
    first, first_slope = _negative_entropy(density.sum(dim=1, keepdim=True))
    second, second_slope = _negative_entropy(density.sum(dim=0, keepdim=True))
    if not normalised:
        return first + second - joint, first_slope + second_slope - joint_slope
    upper, lower = first + second - _NO_ENTROPY, joint - _NO_ENTROPY
    return -upper / lower, (upper / lower * joint_slope - first_slope - second_slope) / lower


def _negative_entropy(density: Tensor) -> tuple[Tensor, Tensor]:
    logarithm = (density + _EMPTY_BIN).log()
    return (density * logarithm).sum(), logarithm + density / (density + _EMPTY_BIN)
