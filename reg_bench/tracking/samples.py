"""Training and search samples: spectra of patches whose mean is gone and whose channels are brought to one energy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reg_bench.tracking.band import Band
from reg_bench.tracking.features import Features
from reg_bench.tracking.patches import Augmentation, augmented, bordered, cut

# Pixels of the image computed beyond an augmented patch, so that no border of the features lies inside.
_MARGIN = 6
# Root mean square of a channel, in units of its range, below which it is taken for noise and not brought up.
_FLOOR = 0.01
# Trackers at a time on a CPU: their patches and spectra of ten channels fill its cache.
_TOGETHER = 80


@dataclass(frozen=True)
class Sampler:
    """Makes samples of images.

    Points here and in what samplers return are in pixels of the maps, see `to_maps`.

    Attributes:
        band: the frequencies and the window, in pixels of the maps.
        features: the channels.
        decimation: pixels of the image, along each axis, whose features are averaged to one pixel of the maps. Of
            patches whose highest frequencies are not used anyway it leaves what is used, at a fraction of the time.
    """

    band: Band
    features: Features
    decimation: int = 1

    def maps(self, images: Tensor) -> Tensor:
        """The feature maps of `images (B, C, H, W)`, ready for `around`."""
        return bordered(self._decimated(self.features(images)), self.band.size)

    def _decimated(self, maps: Tensor) -> Tensor:
        if self.decimation == 1:
            return maps
        for axis in (2, 3):
            maps = decimated(maps, self.decimation, axis)
        return maps

    def to_maps(self, points: Tensor) -> Tensor:
        """Points in voxels of the image, in pixels of the maps."""
        return (points - (self.decimation - 1) / 2) / self.decimation

    def to_image(self, points: Tensor) -> Tensor:
        """The inverse of `to_maps`."""
        return points * self.decimation + (self.decimation - 1) / 2

    def centres(self, maps: Tensor, points: Tensor) -> Tensor:
        """The pixels of `maps` that patches around `points (M, 2)` are centred on."""
        return torch.minimum(points.round().clamp(min=0), self.last(maps))

    def last(self, maps: Tensor) -> Tensor:
        """The highest pixel `(2,)` of `maps` along both axes."""
        return maps.new_tensor(maps.shape[2:]) - self.band.size

    def around(self, maps: Tensor, cases: Tensor, points: Tensor, window: Band | None = None) -> Tensor:
        """Samples `(M, K, 2 m + 1, m + 1)` of patches whose centres are the pixels nearest to `points (M, 2)`.

        The windows lie at the points themselves. `window` is a band of the same frequencies with another window.
        """
        band = self.band if window is None else window
        places = self.centres(maps, points)
        return self.normalised(cut(maps, cases, places, band.size), points - places, band)

    def changed(
        self, images: Tensor, maps: Tensor, cases: Tensor, points: Tensor, how: Augmentation
    ) -> tuple[Tensor, Tensor]:
        """Samples of changed patches of `images (B, C, H, W)`, whose maps are `maps`; and the offsets of the points."""
        shift = points.new_tensor(how.shift) / self.decimation
        if how.shifts_only:
            centres = torch.minimum((points - shift).clamp(min=0), self.last(maps))
            return self.around(maps, cases, centres), points - self.centres(maps, centres)
        margin = -(-_MARGIN // self.decimation)
        size = (self.band.size + 2 * margin) * self.decimation
        patches = augmented(images, cases, self.to_image(points), size, how, (self.decimation - 1) / 2)
        patches = self._decimated(self.features(patches))[..., margin:-margin, margin:-margin]
        return self.normalised(patches, torch.zeros_like(points), self.band), shift.expand_as(points)

    def training(
        self, images: Tensor, maps: Tensor, cases: Tensor, points: Tensor, augmentations: Sequence[Augmentation]
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Weights, samples and offsets `(M, 2)` of the points in them: unchanged patches, then changed ones."""
        yield 1.0, self.around(maps, cases, points), points - points.round()
        for how in augmentations:
            yield how.weight, *self.changed(images, maps, cases, points, how)

    def normalised(self, patches: Tensor, centres: Tensor, band: Band) -> Tensor:
        """Spectra of `patches (M, K, size, size)` less their mean under the window, each group of its energy.

        The energy is the sum of squares over the pixels of a patch, so that spectra are of the order of 1.
        """
        spectra = band.spectrum(patches, centres)
        window = band.window_spectrum(centres)
        mean = spectra[..., 0, 0].real / window[..., 0, 0].real
        spectra = spectra - scaled(window, mean[..., None, None])
        energies = band.energy(spectra)
        noise = (_FLOOR * band.size) ** 2 / 4
        scales, first = [], 0
        for channels, weight in self.features.groups:
            energy = energies[:, first : first + channels].sum(1, keepdim=True)
            scales.append((weight / (energy + noise)).sqrt().expand(-1, channels))
            first += channels
        return scaled(spectra, torch.cat(scales, dim=1)[..., None, None])


def bands(
    features: Features, size: int, limit: int, decimation: int, window: float, wide: float
) -> tuple[Sampler, Band]:
    """The sampler of a tracker, and the band of its wide search; all lengths in pixels of the image.

    Raises:
        ValueError: lengths that do not go together.
    """
    if decimation < 1 or size % (2 * decimation):
        raise ValueError(f"trackers: size must be a multiple of 2 * decimation, got {size} and {decimation}")
    narrow, broad = (Band(size // decimation, limit, width / decimation) for width in (window, wide))
    return Sampler(narrow, features, decimation), broad


def decimated(maps: Tensor, factor: int, axis: int) -> Tensor:
    """Every `factor` pixels along an axis made one, borders repeated: `ceil(n / factor)` of them.

    The weights are those of three averages over `factor` pixels one after the other, for 2 pixels 1, 3, 3, 1: an
    average alone would fold much of the higher frequencies into what is left. The first pixel of the result lies at
    `(factor - 1) / 2`.
    """
    box = [1.0 / factor] * factor
    weights = np.convolve(np.convolve(box, box), box)
    length = maps.shape[axis]
    count, before = -(-length // factor), factor - 1
    after = (count - 1) * factor + len(weights) - before - length
    borders = (0, 0, before, after) if axis == 2 else (before, after, 0, 0)
    padded = F.pad(maps, borders, mode="replicate")
    out: Tensor | None = None
    for k, weight in enumerate(weights):
        part = padded.narrow(axis, k, (count - 1) * factor + 1)
        part = part[:, :, ::factor] if axis == 2 else part[..., ::factor]
        out = part * float(weight) if out is None else out.add_(part, alpha=float(weight))
    assert out is not None
    return out


def scaled(spectra: Tensor, factor: Tensor) -> Tensor:
    """`factor * spectra` for a real factor, in half the time of a complex product."""
    return torch.view_as_complex(torch.view_as_real(spectra) * factor[..., None])


def blocks(count: int, device: torch.device) -> list[slice]:
    """All of `count` trackers, on a CPU a few at a time, so that what is made of them stays in the cache.

    There they are an even number and of nearly one size, so that two threads have the same to do.
    """
    number = 2 * math.ceil(count / (2 * _TOGETHER)) if device.type == "cpu" and count > 1 else 1
    bounds = [k * count // number for k in range(number + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(bounds) if last > first]
