"""Convolution of images with very few channels, as fast on a CPU as their number of operations allows.

A CPU computes 8 or 16 output channels at a time, so a convolution of 2 channels wastes most of what it does. Rows that
lie beneath each other are made channels: a few rows at once, with a kernel that holds every tap where it belongs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that become channels, and how many channels need no such help.
_ROWS, _NARROW = 4, 4


def convolve_same(image: Tensor, kernel: Tensor) -> Tensor:
    """`image (B, C, *S)` correlated with `kernel (C', C, *k)` of odd lengths at stride 1, zeros beyond the border.

    The same as `torch.nn.functional.conv2d` or `conv3d` up to rounding.
    """
    pad = [k // 2 for k in kernel.shape[2:]]
    if len(pad) == 3:
        return F.conv3d(image, kernel, padding=pad)
    narrow = max(kernel.shape[:2]) <= _NARROW and image.shape[2] % _ROWS == 0 and image.device.type == "cpu"
    if not narrow:
        return F.conv2d(image, kernel, padding=pad)
    batch, channels, height, width = image.shape
    rows = image.reshape(batch, channels, height // _ROWS, _ROWS, width).transpose(2, 3)
    stacked = _stacked(kernel)
    out = F.conv2d(rows.reshape(batch, channels * _ROWS, -1, width), stacked, padding=(stacked.shape[2] // 2, pad[1]))
    return out.reshape(batch, -1, _ROWS, height // _ROWS, width).transpose(2, 3).reshape(batch, -1, height, width)


def _stacked(kernel: Tensor) -> Tensor:
    """The kernel `(C' R, C R, k', w)` between stacks of R rows that does what `kernel (C', C, k, w)` does to rows."""
    places = _places(kernel.shape[2], kernel.dtype)
    outputs, inputs, taps, width = kernel.shape
    spread = places.reshape(-1, taps) @ kernel.reshape(outputs * inputs, taps, width)
    spread = spread.reshape(outputs, inputs, *places.shape[:3], width).permute(0, 2, 1, 3, 4, 5)
    return spread.reshape(outputs * _ROWS, inputs * _ROWS, -1, width)


@lru_cache(maxsize=16)
def _places(taps: int, dtype: torch.dtype) -> Tensor:
    """`(R, R, k', k)`: 1 where tap k of output row p falls on row q of the s-th stack."""
    reach = taps // 2
    stacks = -(-reach // _ROWS)
    with torch.inference_mode(False):
        places = torch.zeros(_ROWS, _ROWS, 2 * stacks + 1, taps, dtype=dtype)
    for row in range(_ROWS):
        for tap in range(taps):
            stack, other = divmod(row + tap - reach, _ROWS)
            places[row, other, stack + stacks, tap] = 1
    return places
