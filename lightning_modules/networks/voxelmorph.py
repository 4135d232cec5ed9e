"""VoxelMorph: a U-Net that sees both images at once, with or without a velocity, with or without uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import VoxelMorphUNet
from torch import Tensor, nn

from reg_bench.field import exponential, resize, resize_image
from reg_bench.registration_network import LevelFlow, NetworkOutput, RegistrationNetwork

_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
# Log-variance of the velocity at the beginning: samples are then hardly off their mean.
_FIRST_LOG_VARIANCE = -10.0


class VoxelMorph(RegistrationNetwork):
    """MONAI's VoxelMorph U-Net under heads of our own, which start at the identity.

    Displacement: Balakrishnan et al., IEEE TMI 38(8), 2019. With `velocity` the network estimates a stationary velocity
    that is integrated by `reg_bench.field.exponential`; with `probabilistic` a normal distribution of it, of which
    training draws one sample and everything else takes the mean: Dalca et al., MedIA 57, 2019. In the output
    `velocity` is that mean.

    Args:
        dimension: 2 or 3.
        channels: of the U-Net, in pairs of the way down and the way up, from the finest level to the coarsest.
        final_channels: of the convolutions at full resolution behind it.
        velocity: whether a velocity is estimated, of which the displacement is the exponential.
        probabilistic: whether the velocity has a variance.
        shrink: how many times longer the voxels are of the grid that the field or velocity is estimated on; the final
            convolutions work there as well.
        steps: of scaling and squaring.
        image_channels: of each image.
        channels_last: the channels of a voxel lie beside each other in memory, which makes narrow layers faster.

    Raises:
        ValueError: numbers that make no network.
    """

    def __init__(
        self,
        dimension: int = 3,
        channels: Sequence[int] = (16, 32, 32, 32, 32, 32),
        final_channels: Sequence[int] = (16, 16),
        velocity: bool = False,
        probabilistic: bool = False,
        shrink: int = 1,
        steps: int = 7,
        image_channels: int = 1,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if dimension not in (2, 3) or len(channels) < 2 or len(channels) % 2 or not final_channels:
            raise ValueError(
                "VoxelMorph: needs dimension 2 or 3, channels in pairs and at least one of final_channels, got "
                f"{dimension}, {list(channels)} and {list(final_channels)}"
            )
        if shrink < 1 or steps < 0 or image_channels < 1:
            raise ValueError("VoxelMorph: shrink and image_channels must be at least 1, steps at least 0")
        if probabilistic and not velocity:
            raise ValueError("VoxelMorph: probabilistic is about the velocity: set velocity as well")
        self.dimension, self.multiple = dimension, 2 ** (len(channels) // 2)
        self.channels, self.velocity, self.shrink, self.steps = image_channels, velocity, shrink, steps
        whole = VoxelMorphUNet(dimension, 2 * image_channels, channels[1], channels, final_channels)
        self.unet, self.final = whole.net
        # The last convolution of MONAI's starts with a random field of several voxels.
        del self.final.final_conv_out
        self.mean = _head(dimension, final_channels[-1], 1e-5)
        self.log_variance = _head(dimension, final_channels[-1], 1e-10, _FIRST_LOG_VARIANCE) if probabilistic else None
        self._layout = _LAYOUTS[dimension] if channels_last else torch.contiguous_format
        self.to(memory_format=self._layout)

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        shape = fixed.shape[2:]
        features = self.unet(torch.cat([moving, fixed], dim=1).contiguous(memory_format=self._layout))
        if self.shrink > 1:
            features = resize_image(features, [-(-n // self.shrink) for n in shape])
        features = self.final(features.contiguous(memory_format=self._layout))
        mean = self.mean(features).contiguous()
        log_variance = None if self.log_variance is None else self.log_variance(features)
        estimate = mean
        if log_variance is not None and self.training:
            estimate = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        u = exponential(estimate, self.steps) if self.velocity else estimate
        # The one level is the grid that was estimated on.
        level = LevelFlow(u, velocity=estimate if self.velocity else None)
        if self.shrink > 1:
            u = resize(u, shape)
        return NetworkOutput(u, (level,), mean if self.velocity else None, log_variance)


def _head(dimension: int, channels: int, std: float, bias: float = 0.0) -> nn.Module:
    kind = nn.Conv2d if dimension == 2 else nn.Conv3d
    head = kind(channels, dimension, 3, padding=1)
    nn.init.normal_(head.weight, std=std)
    nn.init.constant_(head.bias, bias)  # type: ignore[arg-type]
    return head
