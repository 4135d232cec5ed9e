"""Training and search samples: spectra of patches whose mean is gone and whose channels are brought to one energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.tracking.band import Band
from reg_bench.tracking.features import Features
from reg_bench.tracking.patches import Augmentation, augmented, bordered, cut

# Pixels beyond an augmented patch that are computed with it, so that no border of the features lies inside.
_MARGIN = 6
# Root mean square of a channel, in units of its range, below which it is taken for noise and not brought up.
_FLOOR = 0.01
# Trackers at a time on a CPU: their patches and spectra of ten channels fill its cache.
_TOGETHER = 32


@dataclass(frozen=True)
class Sampler:
    """Makes samples of images.

    Attributes:
        band: the frequencies and the window.
        features: the channels.
    """

    band: Band
    features: Features

    def maps(self, images: Tensor) -> Tensor:
        """The feature maps of `images (B, C, H, W)`, ready for `around`."""
        return bordered(self.features(images), self.band.size)

    def around(self, maps: Tensor, cases: Tensor, points: Tensor, window: Band | None = None) -> Tensor:
        """Samples `(M, K, 2 m + 1, m + 1)` of patches whose centres are the pixels nearest to `points (M, 2)`.

        The windows lie at the points themselves. `window` is a band of the same frequencies with another window.
        """
        band = self.band if window is None else window
        return self.normalised(cut(maps, cases, points, band.size), points - points.round(), band)

    def changed(
        self, images: Tensor, maps: Tensor, cases: Tensor, points: Tensor, how: Augmentation
    ) -> tuple[Tensor, Tensor]:
        """Samples of changed patches of `images (B, C, H, W)`, whose maps are `maps`; and the offsets of the points."""
        shift = points.new_tensor(how.shift)
        if how.shifts_only:
            last = points.new_tensor(maps.shape[2:]) - self.band.size
            centres = torch.minimum((points - shift).clamp(min=0), last)
            return self.around(maps, cases, centres), points - centres.round()
        inside = slice(_MARGIN, -_MARGIN)
        patches = augmented(images, cases, points, self.band.size + 2 * _MARGIN, how)
        patches = self.features(patches)[..., inside, inside]
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


def scaled(spectra: Tensor, factor: Tensor) -> Tensor:
    """`factor * spectra` for a real factor, in half the time of a complex product."""
    return torch.view_as_complex(torch.view_as_real(spectra) * factor[..., None])


def blocks(count: int, device: torch.device) -> list[slice]:
    """All of `count` trackers, on a CPU a few at a time, so that what is made of them stays in the cache."""
    together = _TOGETHER if device.type == "cpu" else max(count, 1)
    return [slice(k, k + together) for k in range(0, count, together)]
