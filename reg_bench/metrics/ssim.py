"""Structural similarity after registration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from reg_bench.metrics.arrays import one_mask
from reg_bench.metrics.base import ALL, Better, Metric, MetricValue, Profile
from reg_bench.metrics.context import ScoringContext
from reg_bench.metrics.similarity_maps import channels_of, mean_of

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_SLAB_VOXELS = 1 << 18


def ssim(fixed: Tensor, warped: Tensor, mask: Tensor | None = None, data_range: float | None = None) -> float:
    """Mean structural similarity of two images `(1, C, *S)` (Wang et al. 2004); mean over channels.

    Gaussian window of 11 voxels per axis and σ = 1.5 voxels, K1 = 0.01, K2 = 0.03, population moments. Only
    voxels whose window lies inside the image count, and of those the ones in the mask. On an axis shorter than
    11 the window is the largest odd one that fits.

    Args:
        fixed, warped: the images.
        mask: `(*S)` or `(1, 1, *S)`.
        data_range: of the intensities; by default that of the fixed image, per channel.

    Returns:
        At most 1; NaN where no voxel is left or the fixed image is constant and no range is given.

    Raises:
        ValueError: shapes that do not fit.
    """
    return mean_of([_channel(a, b, mask, data_range) for a, b in channels_of("ssim", fixed, warped)])


def _channel(first: Tensor, second: Tensor, mask: Tensor | None, data_range: float | None) -> float:
    shape = tuple(first.shape)
    inside = one_mask("ssim", mask, shape)
    low = float(first.min())
    spread = float(first.max()) - low if data_range is None else data_range
    if spread <= 0:
        return math.nan
    kernels = [_gaussian(min(_WINDOW, n if n % 2 else n - 1)) for n in shape]
    margins = [len(k) // 2 for k in kernels]
    rows = shape[0] - 2 * margins[0]
    planes = max(4 * margins[0] + 1, _SLAB_VOXELS // max(1, math.prod(shape[1:])))
    total, count = 0.0, 0
    for start in range(0, rows, planes):
        stop = min(rows, start + planes)
        window = slice(start, stop + 2 * margins[0])
        # Brought to the range 0..1: the constants are then K1² and K2², and float32 keeps its digits.
        values = _ssim_map((first[window] - low) / spread, (second[window] - low) / spread, kernels, -low / spread)
        if inside is not None:
            centre = (slice(m, n - m) for m, n in zip(margins[1:], shape[1:], strict=True))
            values = values[inside[(slice(start + margins[0], stop + margins[0]), *centre)]]
        total += float(values.sum(dtype=torch.float64))
        count += values.numel()
    return total / count if count else math.nan


def _gaussian(length: int) -> list[float]:
    weights = [math.exp(-((i - length // 2) ** 2) / (2 * _SIGMA**2)) for i in range(length)]
    return [w / math.fsum(weights) for w in weights]


def _smooth(image: Tensor, kernels: list[list[float]]) -> Tensor:
    """Separable symmetric filter, only where it fits."""
    for axis, kernel in enumerate(kernels):
        half = len(kernel) // 2
        length = image.shape[axis] - 2 * half
        out = image.narrow(axis, half, length) * kernel[half]
        for tap in range(half):
            pair = image.narrow(axis, tap, length) + image.narrow(axis, 2 * half - tap, length)
            out.add_(pair, alpha=kernel[tap])
        image = out
    return image


def _ssim_map(a: Tensor, b: Tensor, kernels: list[list[float]], zero: float) -> Tensor:
    """SSIM of images scaled to 0..1, `zero` being the scaled value of intensity 0."""
    mean_a, mean_b = _smooth(a, kernels), _smooth(b, kernels)
    # Second moments about the window means do not depend on where zero lies; the means themselves do.
    variance = _smooth(a * a + b * b, kernels) - mean_a * mean_a - mean_b * mean_b
    covariance = _smooth(a * b, kernels) - mean_a * mean_b
    mean_a, mean_b = mean_a - zero, mean_b - zero
    luminance = (2 * mean_a * mean_b + _K1**2) / (mean_a * mean_a + mean_b * mean_b + _K1**2)
    return luminance * (2 * covariance + _K2**2) / (variance + _K2**2)


class StructuralSimilarity(Metric):
    """Mean SSIM of the fixed and the warped moving image, in the mask where there is one.

    Gaussian window of 11 voxels, σ = 1.5, range of the fixed image (Wang et al. 2004). The moving image is warped
    linearly, border values outside. Null where the fixed image is constant.
    """

    name: ClassVar[str] = "ssim"
    units: ClassVar[Mapping[str, str]] = {"strict": "1"}
    better: ClassVar[Better] = "higher"
    profiles: ClassVar[tuple[str, ...]] = ("strict",)

    def compute(self, context: ScoringContext, profile: Profile) -> list[MetricValue]:
        return self.values(profile, [(ALL, ssim(context.pair.fixed, context.warped, context.mask))])
