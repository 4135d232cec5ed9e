"""B-spline free-form deformation of elastix, through its Python package itk-elastix."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning_modules.peer_bridge import functions_of, registered
from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer(
    module="itk",
    distribution="itk-elastix",
    script=functions_of("elastix"),
    variable="REG_BENCH_PYTHON_ELASTIX",
    extra="elastix",
    uses=("numpy", "itk-core"),
)
_METRICS = {
    "mattes": "AdvancedMattesMutualInformation",
    "meansquares": "AdvancedMeanSquares",
    "correlation": "AdvancedNormalizedCorrelation",
}


class ElastixBSpline(RegistrationModule):
    """B-spline free-form deformation of elastix, by adaptive stochastic gradient descent (itk-elastix).

    Klein et al., IEEE Transactions on Medical Imaging 29(1), 2010; Klein et al., International Journal of Computer
    Vision 81, 2009. Named uses: `elastix-bspline` and its like. The defaults are those of elastix' parameter map
    `bspline`.

    Args:
        preset: name and version of this set of parameters, for the configuration of a result.
        metric: `mattes` (mutual information), `meansquares` or `correlation`.
        bins: of the histogram of `mattes`.
        bending_weight: of the bending energy beside the metric; 0 for none.
        grid_voxels: distance of the control points at the finest resolution, in the smallest fixed voxel edges.
        resolutions: levels of smoothing and of the control grid.
        iterations: per resolution.
        samples: positions that the metric looks at in every iteration, drawn anew.
        seed: of these draws.
        interpreter: Python that has itk-elastix; without it REG_BENCH_PYTHON_ELASTIX or this one.
    """

    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        preset: str = "",
        metric: Literal["mattes", "meansquares", "correlation"] = "mattes",
        bins: int = 32,
        bending_weight: float = 1.0,
        grid_voxels: float = 10.0,
        resolutions: int = 4,
        iterations: int = 256,
        samples: int = 2048,
        seed: int = 1,
        interpreter: str | None = None,
    ) -> None:
        super().__init__()
        if min(bins, resolutions, iterations, samples, seed) < 1 or not grid_voxels > 0 or bending_weight < 0:
            raise ValueError(
                "elastix: bins, resolutions, iterations, samples, seed and grid_voxels must be positive and "
                f"bending_weight not negative, got {bins}, {resolutions}, {iterations}, {samples}, {seed}, "
                f"{grid_voxels} and {bending_weight}"
            )
        self.preset = preset
        self.interpreter = interpreter
        self.settings: dict[str, Any] = {
            "metric": _METRICS[metric],
            "bins": bins,
            "bending_weight": bending_weight,
            # Lengths are in the smallest fixed voxel edges, see `peer_bridge`.
            "grid": grid_voxels,
            "resolutions": resolutions,
            "iterations": iterations,
            "samples": samples,
            "seed": seed,
        }

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why `pair` cannot be taken, a missing package included, or `None`."""
        return super().accepts(pair) or PEER.refusal(self.interpreter)

    def software(self) -> dict[str, str]:
        """Versions of the package and its Python."""
        return PEER.software(self.interpreter)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return registered(pair, PEER, self.interpreter, self.settings)
