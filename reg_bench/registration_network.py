"""What a network that registers is: images in, a displacement out, with whatever its losses need beside it.

A network is an `nn.Module` and no more. Training, losses, checkpoints and the step from pairs to tensors are written
once, in `lightning_modules/learned.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class LevelFlow:
    """What a network estimated at one resolution.

    Attributes:
        u: `(B, D, *S_l)`, the displacement in voxels of this level.
        affine: `(B, D, *S_l)`, the field of the affine step alone in the same unit, where there is one.
        affine_input: `(B, D, *S_l)`, the field that the affine step was applied to.
        matrix: `(B, D, D + 1)`, the affine step as an offset from the identity, in normalised coordinates.
        velocity: `(B, D, *S_l)`, the stationary velocity that `u` is the exponential of, where there is one.
    """

    u: Tensor
    affine: Tensor | None = None
    affine_input: Tensor | None = None
    matrix: Tensor | None = None
    velocity: Tensor | None = None


@dataclass(frozen=True)
class NetworkOutput:
    """What a registration network returns.

    Attributes:
        u: `(B, D, *S)`, pull-back displacement in voxels of the fixed grid.
        levels: from the finest to the coarsest; a network without levels has the one.
        velocity: `(B, D, *S_v)`, the stationary velocity that `u` comes from, where there is one; its mean where the
            network is probabilistic.
        log_variance: `(B, D, *S_v)`, of the velocity, where the network is probabilistic.
    """

    u: Tensor
    levels: tuple[LevelFlow, ...] = ()
    velocity: Tensor | None = None
    log_variance: Tensor | None = None


class RegistrationNetwork(nn.Module, ABC):
    """Estimates the displacement between images of `dimension` axes. Subclasses are final.

    Attributes:
        dimension: 2 or 3.
        multiple: sizes of images that `forward` takes are multiples of this; whoever calls it pads.
        least: sizes are not below this; whoever calls `forward` pads.
        channels: of each image.
    """

    dimension: int = 3
    multiple: int = 1
    least: int = 1
    channels: int = 1

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        """The displacement on the grid of `fixed`; both `(B, C, *S)` of one shape, intensities in 0..1."""
