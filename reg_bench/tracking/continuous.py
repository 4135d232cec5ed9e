"""Samples interpolated to a continuous domain, which is a factor for every frequency (Danelljan et al., ECCV 2016)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reg_bench.tracking.band import Band


def cubic_kernel(distance: Tensor, a: float = -0.75) -> Tensor:
    """Cubic convolution with the free parameter `a` (Keys, IEEE Trans. ASSP 29, 1981), of distances in pixels."""
    t = distance.abs()
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def interpolation_spectrum(band: Band, like: Tensor) -> Tensor:
    """The Fourier transform of the cubic kernel at the frequencies of `band`, `(2 m + 1, m + 1)` real."""
    half = torch.tensor(_along_axis(band.size, band.limit), dtype=like.real.dtype, device=like.device)
    return torch.cat((half, half[1:]))[:, None] * half[None]


@lru_cache(maxsize=32)
def _along_axis(size: int, limit: int) -> tuple[float, ...]:
    """By Gauss' quadrature on the three pieces of the kernel, which is symmetric."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    places = torch.from_numpy(np.concatenate([(nodes + 1) / 2 + piece for piece in (0, 1)]))
    values = cubic_kernel(places) * torch.from_numpy(np.concatenate([weights, weights]))
    return tuple(float((values * torch.cos(2 * math.pi * k / size * places)).sum()) for k in range(limit + 1))
