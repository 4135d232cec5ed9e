"""Convolution of images with very few channels, as fast on a CPU as their number of operations allows.

A CPU computes 8 or 16 output channels at a time, so a convolution of 2 channels wastes most of what it does. Rows that
lie beneath each other are made channels: a few rows at once, with a kernel that holds every tap where it belongs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from reg_bench.field.checks import needs_graph

# How many channels need no such help.
_NARROW = 4
# Rows that become channels where a gradient is wanted, whose convolutions waste the most; and where none is, for large
# kernels only.
_ROWS, _ROWS_FORWARD, _LARGE = 4, 2, 5


def convolve_same(image: Tensor, kernel: Tensor) -> Tensor:
    """`image (B, C, *S)` correlated with `kernel (C', C, *k)` of odd lengths at stride 1, zeros beyond the border.

    The same as `torch.nn.functional.conv2d` or `conv3d` up to rounding.
    """
    pad = [k // 2 for k in kernel.shape[2:]]
    if len(pad) == 3:
        return F.conv3d(image, kernel, padding=pad)
    count = _rows(image, kernel)
    if count == 1:
        return F.conv2d(image, kernel, padding=pad)
    batch, channels, height, width = image.shape
    rows = image.reshape(batch, channels, height // count, count, width).transpose(2, 3)
    stacked = _stacked(kernel, count)
    out = F.conv2d(rows.reshape(batch, channels * count, -1, width), stacked, padding=(stacked.shape[2] // 2, pad[1]))
    return out.reshape(batch, -1, count, height // count, width).transpose(2, 3).reshape(batch, -1, height, width)


def _rows(image: Tensor, kernel: Tensor) -> int:
    """How many rows are made channels; 1 where that does not help."""
    graph = needs_graph(image, kernel)
    count = _ROWS if graph else _ROWS_FORWARD
    if image.device.type != "cpu" or max(kernel.shape[:2]) > _NARROW or image.shape[2] % count:
        return 1
    return count if graph or kernel.shape[2] >= _LARGE else 1


def _stacked(kernel: Tensor, rows: int) -> Tensor:
    """The kernel `(C' R, C R, k', w)` between stacks of R rows that does what `kernel (C', C, k, w)` does to rows."""
    places = _places(kernel.shape[2], rows, kernel.dtype)
    outputs, inputs, taps, width = kernel.shape
    spread = places.reshape(-1, taps) @ kernel.reshape(outputs * inputs, taps, width)
    spread = spread.reshape(outputs, inputs, *places.shape[:3], width).permute(0, 2, 1, 3, 4, 5)
    return spread.reshape(outputs * rows, inputs * rows, -1, width)


@lru_cache(maxsize=16)
def _places(taps: int, rows: int, dtype: torch.dtype) -> Tensor:
    """`(R, R, k', k)`: 1 where tap k of output row p falls on row q of the s-th stack."""
    reach = taps // 2
    stacks = -(-reach // rows)
    with torch.inference_mode(False):
        places = torch.zeros(rows, rows, 2 * stacks + 1, taps, dtype=dtype)
    for row in range(rows):
        for tap in range(taps):
            stack, other = divmod(row + tap - reach, rows)
            places[row, other, stack + stacks, tap] = 1
    return places
