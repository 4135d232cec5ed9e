"""MONAI's networks for registration, LocalNet and GlobalNet, as networks of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks import nets
from torch import Tensor

from reg_bench.field import resize, resize_image
from reg_bench.registration_network import LevelFlow, NetworkOutput, RegistrationNetwork


class LocalNet(RegistrationNetwork):
    """MONAI's LocalNet: a displacement summed over the levels of its decoder (Hu et al., MedIA 49, 2018).

    Args:
        dimension: 2 or 3.
        first_channels: at full resolution; twice as many on each coarser level.
        levels: whose estimates are summed, 0 the finest; the largest is the depth.
        additive: whether the decoder adds what it upsamples.
        concatenate: whether skipped features are concatenated; otherwise they are added.
        initial: of the last layer: `zeros` starts at the identity; else `kaiming_uniform`, ... as of MONAI.
        image_channels: of each image.
    """

    def __init__(
        self,
        dimension: int = 3,
        first_channels: int = 16,
        levels: Sequence[int] = (0, 1, 2, 3),
        additive: bool = True,
        concatenate: bool = False,
        initial: str = "zeros",
        image_channels: int = 1,
    ) -> None:
        super().__init__()
        self.dimension, self.multiple, self.channels = dimension, 2 ** max(levels), image_channels
        self.net = nets.LocalNet(
            spatial_dims=dimension,
            in_channels=2 * image_channels,
            num_channel_initial=first_channels,
            extract_levels=tuple(levels),
            out_kernel_initializer=initial,
            out_channels=dimension,
            use_additive_sampling=additive,
            concat_skip=concatenate,
        )

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        u = self.net(torch.cat([moving, fixed], dim=1))
        return NetworkOutput(u, (LevelFlow(u),))


class GlobalNet(RegistrationNetwork):
    """MONAI's GlobalNet: an affine map, estimated on images of one size (Hu et al., ISBI 2018).

    Images of any size are brought to `size` for it and its field back, which loses nothing: it is linear.

    Args:
        size: of the images that it sees.
        first_channels: at full resolution; twice as many on each coarser level.
        depth: how often the images are halved; `size` must be divisible as often.
        image_channels: of each image.
    """

    def __init__(
        self, size: Sequence[int] = (64, 64, 64), first_channels: int = 8, depth: int = 4, image_channels: int = 1
    ) -> None:
        super().__init__()
        if len(size) not in (2, 3) or any(n % 2**depth for n in size):
            raise ValueError(f"GlobalNet: size must be 2 or 3 multiples of {2**depth}, got {list(size)}")
        self.dimension, self.channels, self.size = len(size), image_channels, tuple(size)
        self.net = nets.GlobalNet(
            image_size=list(size),
            spatial_dims=len(size),
            in_channels=2 * image_channels,
            num_channel_initial=first_channels,
            depth=depth,
        )

    def forward(self, fixed: Tensor, moving: Tensor) -> NetworkOutput:
        images = torch.cat([moving, fixed], dim=1)
        u = resize(self.net(resize_image(images, self.size)), fixed.shape[2:])
        return NetworkOutput(u, (LevelFlow(u),))
