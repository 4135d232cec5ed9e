"""One scale of intensities for a whole stream, from its reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.intensities import PERCENTILES, ROUNDING


@dataclass(frozen=True)
class IntensityScale:
    """Brings two percentiles of the reference to 0 and 1; frames that are brighter go beyond.

    Attributes:
        low, width: `(B, C, 1, 1)`.
    """

    low: Tensor
    width: Tensor

    @classmethod
    def of(cls, reference: Tensor) -> IntensityScale:
        """The scale of each channel of `reference (B, C, H, W)`; a constant channel keeps its contrast of none."""
        flat = reference.flatten(2).double()
        low, high = (flat.quantile(p / 100, dim=2) for p in PERCENTILES)
        width = high - low
        constant = width <= ROUNDING * torch.maximum(low.abs(), high.abs())
        width = torch.where(constant, torch.ones_like(width), width)
        return cls(*(x[..., None, None].to(reference.dtype) for x in (low, width)))

    def apply(self, frame: Tensor) -> Tensor:
        """`frame (B, C, H, W)` in the unit of the reference."""
        return (frame - self.low) / self.width
