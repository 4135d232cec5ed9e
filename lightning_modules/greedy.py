"""greedy of the Penn Image Computing and Science Laboratory, through its Python package picsl-greedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lightning_modules.peer_bridge import functions_of, registered
from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer(
    module="picsl_greedy",
    distribution="picsl-greedy",
    script=functions_of("greedy"),
    variable="REG_BENCH_PYTHON_GREEDY",
    extra="greedy",
    uses=("numpy", "SimpleITK"),
)


class Greedy(RegistrationModule):
    """Greedy diffeomorphic registration: smoothed gradients of the metric composed step by step (picsl-greedy).

    Yushkevich et al., Alzheimer's & Dementia 12(7S), 2016; Joshi et al., NeuroImage 23, 2004. Named uses:
    `greedy-ncc2` and its like.

    Args:
        preset: name and version of this set of parameters, for the configuration of a result.
        metric: `NCC` (in a window), `SSD`, `NMI` or `MI`.
        radius: of the window of NCC, in voxels.
        iterations: per level, coarse to fine; the image halves from level to level.
        gradient_sigma_voxels: Gaussian on every gradient; fluid-like. In voxels of the level.
        warp_sigma_voxels: Gaussian on the warp after every step; diffusion-like. In voxels of the level.
        step_voxels: length of the largest update of an iteration.
        scale_steps: `SCALE`: the largest update is always `step_voxels` long; `SCALEDOWN`: it is at most that.
        noise: standard deviation, as a share of the intensity range, of what greedy adds to the images for NCC.
            Its own default is 0.001, which sets constant background into motion.
        seed: of that noise.
        interpreter: Python that has picsl-greedy; without it REG_BENCH_PYTHON_GREEDY or this one.
    """

    licence: ClassVar[str] = "Apache-2.0"

    def __init__(
        self,
        preset: str = "",
        metric: Literal["NCC", "SSD", "NMI", "MI"] = "NCC",
        radius: int = 2,
        iterations: Sequence[int] = (40, 20, 10),
        gradient_sigma_voxels: float = 1.732,
        warp_sigma_voxels: float = 0.7071,
        step_voxels: float = 1.0,
        scale_steps: Literal["SCALE", "SCALEDOWN"] = "SCALE",
        noise: float = 0.0,
        seed: int = 1,
        interpreter: str | None = None,
    ) -> None:
        super().__init__()
        if not iterations or min(iterations) < 0 or min(radius, seed) < 1 or not step_voxels > 0:
            raise ValueError(
                "greedy: iterations must not be negative, radius and seed at least 1 and step_voxels positive, "
                f"got {list(iterations)}, {radius}, {seed} and {step_voxels}"
            )
        if min(gradient_sigma_voxels, warp_sigma_voxels, noise) < 0:
            raise ValueError(
                "greedy: sigmas and noise must not be negative, "
                f"got {gradient_sigma_voxels}, {warp_sigma_voxels} and {noise}"
            )
        self.preset = preset
        self.interpreter = interpreter
        self.settings: dict[str, Any] = {
            "metric": metric,
            "radius": radius,
            "iterations": list(iterations),
            "gradient_sigma": gradient_sigma_voxels,
            "warp_sigma": warp_sigma_voxels,
            "step": step_voxels,
            "scale_steps": scale_steps,
            "noise": noise,
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
