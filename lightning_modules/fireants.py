"""FireANTs, registration in torch, usually in a Python of its own because its pins exclude ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lightning_modules.peer_bridge import functions_of, registered
from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer(
    module="fireants",
    distribution="fireants",
    script=functions_of("fireants"),
    variable="REG_BENCH_PYTHON_FIREANTS",
    uses=("numpy", "torch", "SimpleITK"),
)


class FireAnts(RegistrationModule):
    """Diffeomorphic registration by adaptive steps on the group of diffeomorphisms: greedy or SyN (FireANTs).

    Jena et al., FireANTs: Adaptive Riemannian Optimization for Multi-Scale Diffeomorphic Registration, 2024
    (arXiv 2404.01249). Named uses: `fireants-greedy` and its like. Read FireANTs' own licence before you use it.

    Args:
        preset: name and version of this set of parameters, for the configuration of a result.
        algorithm: `greedy` or `syn` (symmetric).
        metric: `cc` (cross-correlation in a window), `mse` or `mi`.
        window: edge of the window of `cc`, in voxels.
        scales: by how much the images shrink at each level, coarse to fine; FireANTs keeps 32 voxels along an axis.
        iterations: per level.
        learning_rate: of Adam.
        gradient_sigma_voxels: Gaussian on every update; fluid-like. In voxels of the level.
        warp_sigma_voxels: Gaussian on the warp; diffusion-like. In voxels of the level.
        device: where FireANTs computes.
        interpreter: Python that has fireants; without it REG_BENCH_PYTHON_FIREANTS or this one.
    """

    licence: ClassVar[str] = "LicenseRef-FireANTs-1.0"

    def __init__(
        self,
        preset: str = "",
        algorithm: Literal["greedy", "syn"] = "greedy",
        metric: Literal["cc", "mse", "mi"] = "cc",
        window: int = 5,
        scales: Sequence[float] = (4, 2, 1),
        iterations: Sequence[int] = (100, 50, 20),
        learning_rate: float = 0.5,
        gradient_sigma_voxels: float = 1.0,
        warp_sigma_voxels: float = 0.5,
        device: str = "cpu",
        interpreter: str | None = None,
    ) -> None:
        super().__init__()
        if not scales or len(scales) != len(iterations) or min(scales) < 1 or min(iterations) < 0:
            raise ValueError(
                "fireants: scales (1 or more) and iterations need one entry per level, "
                f"got {list(scales)} and {list(iterations)}"
            )
        if window < 1 or not learning_rate > 0 or min(gradient_sigma_voxels, warp_sigma_voxels) < 0:
            raise ValueError(
                "fireants: window and learning_rate must be positive and sigmas not negative, "
                f"got {window}, {learning_rate}, {gradient_sigma_voxels} and {warp_sigma_voxels}"
            )
        self.preset = preset
        self.interpreter = interpreter
        self.settings: dict[str, Any] = {
            "algorithm": algorithm,
            "metric": metric,
            "window": window,
            "scales": list(scales),
            "iterations": list(iterations),
            "learning_rate": learning_rate,
            "gradient_sigma": gradient_sigma_voxels,
            "warp_sigma": warp_sigma_voxels,
            "device": device,
        }

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why `pair` cannot be taken, a missing package included, or `None`."""
        return super().accepts(pair) or PEER.refusal(self.interpreter)

    def software(self) -> dict[str, str]:
        """Versions of the package and its Python."""
        return PEER.software(self.interpreter)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return registered(pair, PEER, self.interpreter, self.settings)
