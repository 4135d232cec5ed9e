"""Encoder and decoder of the Kalman VAE (Paper III), and the network of its first state.

Images and fields are `(N, C, size, size)`, with all frames of all sequences in `N`; only what is said of the reference
image is one per sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.kalman_vae_blocks import ResidualBlock

# Below a standard deviation of this, densities overflow.
LEAST_STD = 1e-7
_LAYOUT = torch.channels_last


class Trunk(nn.Module):
    """Residual blocks, each at half the resolution of the one before.

    Args:
        channels: of the images.
        filters: of the blocks.
    """

    def __init__(self, channels: int, filters: Sequence[int]) -> None:
        super().__init__()
        pairs = zip((channels, *filters[:-1]), filters, strict=True)
        self.blocks = nn.ModuleList(ResidualBlock(a, b, up=False) for a, b in pairs)
        self.to(memory_format=_LAYOUT)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of all blocks, the finest first."""
        maps, x = [], image.contiguous(memory_format=_LAYOUT)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class ImageEncoder(nn.Module):
    """q(x | y): mean and standard deviation of the latent variables of a frame.

    Args:
        size: of the image; a multiple of 2 to the number of filters.
        latents: number of latent variables.
        filters: of the blocks.
        channels: of what is encoded: a frame, or a frame and its reference.
    """

    def __init__(self, size: int, latents: int, filters: Sequence[int], channels: int = 1) -> None:
        super().__init__()
        self.trunk = Trunk(channels, filters)
        features = filters[-1] * (size >> len(filters)) ** 2
        self.mean, self.spread = nn.Linear(features, latents), nn.Linear(features, latents)
        for dense in (self.mean, self.spread):
            nn.init.xavier_normal_(dense.weight)
            nn.init.zeros_(dense.bias)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, C, size, size)` to two of `(N, latents)`."""
        features = self.trunk(image)[-1].float().flatten(1)
        return self.mean(features), F.softplus(self.spread(features)) + LEAST_STD


class FieldDecoder(nn.Module):
    """The mean of p(phi | x), or of an image: from latent variables up to `outputs` channels.

    Args:
        size: of what comes out, as of the encoder.
        latents: number of latent variables.
        filters: of the blocks of the encoder; here they come in the reverse order.
        outputs: channels: 2 of a displacement, 1 of an image.
        levels: how many of the blocks there are; fewer than filters give a coarser grid.
        reference: whether the maps of the trunk of the reference are added.
        first_std: of the last kernel at the beginning; `None` for that of Glorot.
    """

    def __init__(
        self,
        size: int,
        latents: int,
        filters: Sequence[int],
        outputs: int = 2,
        levels: int | None = None,
        reference: bool = False,
        first_std: float | None = None,
    ) -> None:
        super().__init__()
        self.coarse = size >> len(filters)
        widths = tuple(reversed(filters))
        self.width = widths[0]
        self.dense = nn.Linear(latents, widths[0] * self.coarse**2)
        nn.init.xavier_normal_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        used = widths[: len(widths) if levels is None else levels]
        pairs = zip((widths[0], *used[:-1]), used, strict=True)
        self.blocks = nn.ModuleList(ResidualBlock(a, b, up=True) for a, b in pairs)
        self.head = nn.Conv2d(used[-1], outputs, 3, padding=1)
        if first_std is None:
            nn.init.xavier_normal_(self.head.weight)
        else:
            nn.init.normal_(self.head.weight, std=first_std)
        nn.init.zeros_(self.head.bias)
        # The trunk has the maps of half the resolution of each block and below.
        joined = zip(widths, (widths[0], *used), strict=False) if reference else ()
        self.joins = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in joined)
        self.to(memory_format=_LAYOUT)

    def prepared(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the maps of the references, the finest first, add to each resolution: once per sequence."""
        return [join(m) for join, m in zip(self.joins, reversed(maps), strict=False)]

    def forward(self, x: Tensor, prepared: Sequence[Tensor] = ()) -> Tensor:
        """`(B, T, latents)` to `(B, T, outputs, H, W)`; `prepared` is of the references, `(B, …)` each."""
        batch, length = x.shape[:2]
        features = self.dense(x.flatten(0, 1)).unflatten(1, (self.width, self.coarse, self.coarse))
        features = features.contiguous(memory_format=_LAYOUT)
        added = [_repeated(p, length) for p in prepared]
        if added:
            features = features + added[0]
        for number, block in enumerate(self.blocks, start=1):
            features = block(features, added[number] if number < len(added) else None)
        return self.head(features).float().unflatten(0, (batch, length))


class InitialState(nn.Module):
    """p(z_1 | x_M): three layers from the latent variables of the reference to the first state of the dynamics.

    Args:
        latents: number of latent variables.
        states: dimensions of the state.
        width: of the two hidden layers.
    """

    def __init__(self, latents: int, states: int, width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.mean, self.spread = nn.Linear(width, states), nn.Linear(width, states)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, latents)` to mean and standard deviation `(B, states)`."""
        hidden = self.hidden(x)
        return self.mean(hidden), F.softplus(self.spread(hidden)) + LEAST_STD


def _repeated(per_sequence: Tensor, length: int) -> Tensor:
    """`(B, …)` to `(B * length, …)`, each sequence's own for all its frames."""
    if length == 1:
        return per_sequence
    return per_sequence.repeat_interleave(length, dim=0)
