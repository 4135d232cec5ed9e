"""What a tracker of points is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tracks:
    """Where the points are in a frame.

    Attributes:
        positions: `(B, N, 2)` voxels of the frame, array axis order.
        confidence: `(B, N)`, 0 (lost) to 1.
    """

    positions: Tensor
    confidence: Tensor


class PointTracker(nn.Module, ABC):
    """Follows points from frame to frame. Subclasses are final.

    Nothing is remembered outside the state: stepping one state twice with one frame gives one result, and streams can
    interleave. Every point is followed as if it were alone, whatever else is in the batch.
    """

    @abstractmethod
    def start(self, reference: Tensor, points: Tensor) -> Any:
        """The state for `points (B, N, 2)`, in voxels, of `reference (B, C, H, W)`, intensities of about 0..1."""

    @abstractmethod
    def step(self, state: Any, frame: Tensor, expected: Tensor | None = None) -> tuple[Any, Tracks]:
        """The state after `frame (B, C, H, W)`, and where the points are in it.

        `expected (B, N, 2)` is where to search, in voxels; `None`: where the points were last. A point that is lost
        stays there and teaches its filter nothing.
        """

    @abstractmethod
    def moved(self, state: Any, which: Tensor, positions: Tensor, relearn: bool) -> Any:
        """The state with the trackers `which (B, N)` put to `positions (B, N, 2)`.

        With `relearn` they also forget what they learned since the reference.
        """


def chosen(which: Tensor, values: Tensor, first: Tensor) -> Tensor:
    """`first` for the trackers `which (B, N)`, else `values`; both `(B N, ...)`."""
    return torch.where(which.reshape(-1, *(1,) * (values.ndim - 1)), first, values)
