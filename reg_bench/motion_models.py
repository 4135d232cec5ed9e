"""What becomes of the coordinates of motion: their principal components, dynamic modes, autoregression.

All take the fields so far, at equal intervals, and tell the one `(N,)` a number of intervals after the last, which need
not be whole; at 0 it is the model's own version of the last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from reg_bench.autoregression import fit_autoregression
from reg_bench.dynamic_modes import delayed, dynamic_modes
from reg_bench.motion_history import MotionHistory
from reg_bench.principal_components import principal_components

# Fields below which nothing is said about how coefficients follow one another.
FEWEST = 6


class MotionModel(ABC):
    """A model of motion that takes all it needs from the fields so far, or knew it before."""

    @abstractmethod
    def __call__(self, history: MotionHistory, steps: float) -> Tensor:
        """The field `(N,)` after `steps >= 0` intervals."""


@dataclass(frozen=True)
class HeldComponents(MotionModel):
    """The last coordinates on their first principal components, held.

    Args:
        rank: how many components.
    """

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"principal components: rank must be at least 1, got {self.rank}")

    def __call__(self, history: MotionHistory, steps: float) -> Tensor:
        return history.field(self._ahead(history.coordinates.double(), steps))

    def _ahead(self, coordinates: Tensor, steps: float) -> Tensor:
        found = principal_components(coordinates, self.rank)
        return found.reconstruct(found.coefficients(coordinates[-1:]))[0]


@dataclass(frozen=True)
class AutoregressiveComponents(MotionModel):
    """Coefficients of principal components that follow their own past.

    Args:
        rank: how many components.
        order: how many intervals back. The last is held until there are twice as many equations as this, and
            `FEWEST` fields.
        ridge: see `fit_autoregression`.
        coupled: whether each coefficient is predicted from the past of all.
    """

    rank: int
    order: int
    ridge: float = 1e-4
    coupled: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or self.order < 1 or not self.ridge >= 0:
            raise ValueError(
                "autoregression of components: rank and order must be at least 1, ridge not negative, "
                f"got {self.rank}, {self.order} and {self.ridge}"
            )

    def __call__(self, history: MotionHistory, steps: float) -> Tensor:
        return history.field(self._ahead(history.coordinates.double(), steps))

    def _ahead(self, coordinates: Tensor, steps: float) -> Tensor:
        found = principal_components(coordinates, self.rank)
        series = found.coefficients(coordinates)
        if steps > 0 and found.rank and len(series) >= max(3 * self.order, FEWEST):
            model = fit_autoregression(series, self.order, ridge=self.ridge, coupled=self.coupled).stable()
            values = model.after(series, steps)
        else:
            values = series[-1]
        return found.reconstruct(values[None])[0]


@dataclass(frozen=True)
class EvolvingModes(MotionModel):
    """Dynamic modes, each with its frequency and decay.

    Args:
        rank: how many modes.
        delays: of how many successive fields a snapshot consists; fewer while there are less than twice as many. 1 is
            standard dynamic mode decomposition.
    """

    rank: int
    delays: int = 1

    def __post_init__(self) -> None:
        if self.rank < 1 or self.delays < 1:
            raise ValueError(f"dynamic modes: rank and delays must be at least 1, got {self.rank} and {self.delays}")

    def __call__(self, history: MotionHistory, steps: float) -> Tensor:
        return history.field(self._ahead(history.coordinates.double(), steps))

    def _ahead(self, coordinates: Tensor, steps: float) -> Tensor:
        delays = max(min(self.delays, (len(coordinates) - 1) // 2), 1)
        if len(coordinates) <= delays or not coordinates.shape[1]:
            return coordinates[-1]
        snapshots = delayed(coordinates, delays)
        found = dynamic_modes(snapshots, self.rank)
        if not len(found.eigenvalues):
            return coordinates[-1]
        return found.forecast(snapshots[-1], coordinates.new_tensor([steps]))[0, 0]
