"""Symmetric normalisation of the Advanced Normalization Tools, through their Python package antspyx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lightning_modules.peer_bridge import functions_of, registered
from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer(
    module="ants",
    distribution="antspyx",
    script=functions_of("ants"),
    variable="REG_BENCH_PYTHON_ANTS",
    extra="ants",
)


class AntsSyn(RegistrationModule):
    """Symmetric diffeomorphic normalisation (SyN) of ANTs, with its own affine transform before it or without.

    Avants et al., Medical Image Analysis 12(1), 2008. Named uses: `ants-syn` and its like. The defaults are those of
    `ants.registration`, whose 40, 20, 0 iterations leave out the full resolution.

    Args:
        preset: name and version of this set of parameters, for the configuration of a result.
        affine: whether ANTs' affine transform comes first, from the centres of mass.
        metric: `CC` (cross-correlation in a window), `mattes` (mutual information), `meansquares` or `demons`.
        sampling: radius of the window of `CC` in voxels, number of bins of `mattes`.
        iterations: per level, coarse to fine; the image halves from level to level.
        gradient_step: length of an update.
        update_sigma_variance: variance of the Gaussian on every update, in voxels of the level; fluid-like.
        total_sigma_variance: the same for the whole field; diffusion-like.
        affine_metric, affine_iterations, affine_shrink_factors, affine_sigmas, affine_sampling_rate: of the affine
            stage; one entry per level, sigmas in voxels.
        seed: of the voxels that the affine stage draws.
        interpreter: Python that has antspyx; without it REG_BENCH_PYTHON_ANTS or this one.
    """

    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        preset: str = "",
        affine: bool = False,
        metric: Literal["CC", "mattes", "meansquares", "demons"] = "mattes",
        sampling: int = 32,
        iterations: Sequence[int] = (40, 20, 0),
        gradient_step: float = 0.2,
        update_sigma_variance: float = 3.0,
        total_sigma_variance: float = 0.0,
        affine_metric: Literal["mattes", "GC", "meansquares"] = "mattes",
        affine_iterations: Sequence[int] = (2100, 1200, 1200, 10),
        affine_shrink_factors: Sequence[int] = (6, 4, 2, 1),
        affine_sigmas: Sequence[float] = (3, 2, 1, 0),
        affine_sampling_rate: float = 0.2,
        seed: int = 1,
        interpreter: str | None = None,
    ) -> None:
        super().__init__()
        if not iterations or min(iterations) < 0 or min(sampling, seed) < 1 or not gradient_step > 0:
            raise ValueError(
                "ants: iterations must not be negative, sampling and seed at least 1 and gradient_step positive, "
                f"got {list(iterations)}, {sampling}, {seed} and {gradient_step}"
            )
        if len({len(affine_iterations), len(affine_shrink_factors), len(affine_sigmas)}) > 1:
            raise ValueError(
                "ants: affine_iterations, affine_shrink_factors and affine_sigmas need one entry per level, "
                f"got {list(affine_iterations)}, {list(affine_shrink_factors)} and {list(affine_sigmas)}"
            )
        self.preset = preset
        self.interpreter = interpreter
        self.settings: dict[str, Any] = {
            "affine": affine,
            "metric": metric,
            "sampling": sampling,
            "iterations": list(iterations),
            "gradient_step": gradient_step,
            "update_sigma_variance": update_sigma_variance,
            "total_sigma_variance": total_sigma_variance,
            "affine_metric": affine_metric,
            "affine_iterations": list(affine_iterations),
            "affine_shrink_factors": list(affine_shrink_factors),
            "affine_sigmas": list(affine_sigmas),
            "affine_sampling_rate": affine_sampling_rate,
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
