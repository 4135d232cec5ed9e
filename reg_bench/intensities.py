"""Intensities that methods compare: scaled to 0..1 by percentiles, or freed of their local mean and contrast."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field import gaussian

# The few brightest and darkest voxels are noise or vessels.
PERCENTILES = (0.1, 99.9)
# A constant image that was interpolated in float32 differs from a constant by less than this share.
ROUNDING = 1e-5


def unit_range(image: Tensor, percentiles: tuple[float, float] = PERCENTILES) -> Tensor:
    """Every channel of every case scaled linearly so that two percentiles become 0 and 1, and clipped there.

    A channel that is constant up to rounding becomes 0.

    Args:
        image: `(B, C, *S)`.
        percentiles: lower and upper, 0..100.

    Returns:
        `(B, C, *S)`, floating point.
    """
    values = image if image.is_floating_point() else image.float()
    flat = values.flatten(2)
    low, high = (_percentile(flat, p) for p in percentiles)
    least, most = flat.amin(2), flat.amax(2)
    narrow = high <= low
    low, high = torch.where(narrow, least, low), torch.where(narrow, most, high)
    constant = high - low <= ROUNDING * torch.maximum(low.abs(), high.abs())
    width = torch.where(constant, torch.ones_like(low), high - low)
    shape = (*low.shape, *(1,) * (values.ndim - 2))
    scaled = ((values - low.reshape(shape)) / width.reshape(shape)).clamp_(0, 1)
    return scaled.masked_fill_(constant.reshape(shape), 0)


def _percentile(flat: Tensor, percent: float) -> Tensor:
    """`(B, C)` of `(B, C, N)`, linear between neighbours as NumPy's; by selection, for `quantile` refuses volumes."""
    place = (flat.shape[2] - 1) * percent / 100
    below = int(place)
    first = flat.kthvalue(below + 1, dim=2).values
    if place == below:
        return first
    return torch.lerp(first, flat.kthvalue(below + 2, dim=2).values, place - below)


def locally_normalised(image: Tensor, sigma_voxels: float, floor: float = 0.05) -> Tensor:
    """The image less its local mean, over its local standard deviation: what local correlation compares.

    `(I - m) / sqrt(v + floor^2)` with the mean `m` and variance `v` under a Gaussian window. Squared differences of two
    such images are, up to a constant, twice one minus their local correlation, so a method of squared differences
    becomes indifferent to gain and offset that vary slowly.

    Args:
        image: `(B, C, *S)`, intensities of about 0..1.
        sigma_voxels: standard deviation of the window, above 0.
        floor: standard deviation below which variation counts as noise.

    Raises:
        ValueError: a window or floor that is not positive.
    """
    if not sigma_voxels > 0 or not floor > 0:
        raise ValueError(f"locally_normalised: needs sigma_voxels > 0 and floor > 0, got {sigma_voxels} and {floor}")
    mean = gaussian(image, sigma_voxels)
    variance = (gaussian(image * image, sigma_voxels) - mean * mean).clamp_(min=0)
    return (image - mean) / (variance + floor**2).sqrt_()
