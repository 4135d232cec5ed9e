"""What chooses among the displacements of a window so that neighbours agree: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from reg_bench.discrete.control_grid import ControlGrid
from reg_bench.discrete.window import Window


class Regularization(ABC):
    """Turns the costs of all displacements of all control points into one displacement for each."""

    @abstractmethod
    def __call__(self, costs: Tensor, window: Window, grid: ControlGrid) -> Tensor:
        """A field `(B, D, *M)` in voxels, below the steps of the window, of low cost and smooth.

        Differences count in space, so voxels that are thicker along an axis count more there.

        Args:
            costs: `(B, K, *M)`, means of squared differences of features in 0..1.
            window: the displacements.
            grid: where the control points lie.
        """
