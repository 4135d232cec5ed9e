"""ConvexAdam of the Learn2Reg challenge, through its Python package convexAdam."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_modules.peer_bridge import functions_of, registered
from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer(
    module="convexAdam",
    distribution="convexAdam",
    script=functions_of("convexadam"),
    variable="REG_BENCH_PYTHON_CONVEXADAM",
    extra="convexadam",
    uses=("numpy", "torch"),
)


class ConvexAdam(RegistrationModule):
    """Coupled convex optimisation over a window of displacements on MIND features, refined by Adam (convexAdam).

    Siebert et al., IEEE Transactions on Medical Imaging 44(2), 2025. Made for large motion; 3-D only. The moving
    image is resampled onto the fixed grid where its own differs. Where torch finds an accelerator ConvexAdam uses it.

    Args:
        preset: name and version of this set of parameters, for the configuration of a result.
        mind_radius, mind_dilation: of the MIND features, in voxels.
        regularisation: weight of the diffusion term of the Adam stage.
        grid_voxels: edge of a cell of the discrete stage.
        half_width: of the window of displacements, in cells.
        iterations: of Adam.
        smoothing: edge of the box that smooths the final field, odd; 0 for none.
        adam_grid_voxels: edge of a cell of the Adam stage.
        inverse_consistent: whether the discrete stage runs both ways and is made consistent.
        interpreter: Python that has convexAdam; without it REG_BENCH_PYTHON_CONVEXADAM or this one.
    """

    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        preset: str = "",
        mind_radius: int = 1,
        mind_dilation: int = 2,
        regularisation: float = 1.25,
        grid_voxels: int = 6,
        half_width: int = 4,
        iterations: int = 80,
        smoothing: int = 0,
        adam_grid_voxels: int = 2,
        inverse_consistent: bool = True,
        interpreter: str | None = None,
    ) -> None:
        super().__init__()
        positive = (mind_radius, mind_dilation, grid_voxels, half_width, iterations, adam_grid_voxels)
        if min(positive) < 1 or not regularisation > 0:
            raise ValueError(
                "convexadam: mind_radius, mind_dilation, grid_voxels, half_width, iterations, adam_grid_voxels and "
                f"regularisation must be positive, got {', '.join(map(str, positive))} and {regularisation}"
            )
        if smoothing < 0 or (smoothing > 0 and smoothing % 2 == 0):
            raise ValueError(f"convexadam: smoothing must be 0 or odd, got {smoothing}")
        self.preset = preset
        self.interpreter = interpreter
        self.settings: dict[str, Any] = {
            "mind_radius": mind_radius,
            "mind_dilation": mind_dilation,
            "regularisation": regularisation,
            "grid": grid_voxels,
            "half_width": half_width,
            "iterations": iterations,
            "smoothing": smoothing,
            "adam_grid": adam_grid_voxels,
            "inverse_consistent": inverse_consistent,
        }

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why `pair` cannot be taken, a missing package included, or `None`."""
        return super().accepts(pair) or PEER.refusal(self.interpreter)

    def software(self) -> dict[str, str]:
        """Versions of the package and its Python."""
        return PEER.software(self.interpreter)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return registered(pair, PEER, self.interpreter, self.settings, one_grid=True)
