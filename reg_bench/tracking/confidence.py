"""How far a tracker is to be believed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Confidence:
    """Peak-to-sidelobe ratios as confidences of 0..1, linear between two ratios.

    Attributes:
        lost: ratio at which a tracker counts as lost.
        sure: ratio from which it is believed without reserve.
    """

    lost: float = 5.0
    sure: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.lost < self.sure:
            raise ValueError(f"Confidence: needs 0 <= lost < sure, got {self.lost} and {self.sure}")

    def of(self, ratio: Tensor) -> Tensor:
        """Confidences of ratios, same shape."""
        return ((ratio - self.lost) / (self.sure - self.lost)).clamp(0, 1)
