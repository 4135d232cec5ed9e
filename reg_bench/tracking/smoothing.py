"""Gaussian smoothing of many small patches at once; `reg_bench.field.gaussian` is for few large images."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F


def smooth(values: Tensor, sigma_voxels: float) -> Tensor:
    """`values (M, K, H, W)` under a Gaussian sampled up to `int(3 sigma + 0.5)` pixels, borders repeated."""
    reach = int(3 * sigma_voxels + 0.5)
    if reach < 1:
        return values
    taps = [math.exp(-0.5 * (k / sigma_voxels) ** 2) for k in range(reach + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    # Shifted sums: a convolution of few channels takes three times as long.
    for dim, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded, n = F.pad(values, border, mode="replicate"), values.shape[dim]
        values = padded.narrow(dim, reach, n) * (taps[0] / total)
        for k, tap in enumerate(taps[1:], start=1):
            values = values.add_(padded.narrow(dim, reach - k, n), alpha=tap / total)
            values = values.add_(padded.narrow(dim, reach + k, n), alpha=tap / total)
    return values
