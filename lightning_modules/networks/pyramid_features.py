"""Features of an image at every level of a registration pyramid, level 0 being the image itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_modules.networks.pyramid_blocks import Block, Normalisation
from reg_bench.pyramid import laplacian_pyramid


class LearnedFeatures(nn.Module):
    """Levels of convolutions, each at half the size of the one before (PAPERS.md 2.1).

    Args:
        dimension: 2 or 3.
        channels: of the image.
        filters: channels of each level, from the finest.
        blocks: convolutions of each level, the first with stride 2.
        normalisation: of the blocks.
    """

    def __init__(
        self, dimension: int, channels: int, filters: Sequence[int], blocks: int, normalisation: Normalisation | None
    ) -> None:
        super().__init__()
        self.widths = (channels, *filters)
        self.stages = nn.ModuleList()
        for inputs, outputs in zip(self.widths, filters, strict=False):
            first = Block(dimension, inputs, outputs, normalisation, stride=2)
            rest = (Block(dimension, outputs, outputs, normalisation) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *rest))

    def forward(self, image: Tensor) -> list[Tensor]:
        """`image (B, C, *S)` and its features `(B, C_l, *S / 2^l)`, finest first."""
        levels = [image]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels


class LaplacianFeatures(nn.Module):
    """The bands of the image's Laplacian pyramid, the paper's future work: nothing to learn.

    Every band is divided by its root mean square in the image, so that products of bands count alike at all levels.

    Args:
        channels: of the image.
        levels: beside the image's own.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.widths = (channels,) * (levels + 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The bands `(B, C, *S / 2^l)` of `image (B, C, *S)`, finest first."""
        return [_unit(band) for band in laplacian_pyramid(image, len(self.widths), smallest_size=1)]


def _unit(band: Tensor) -> Tensor:
    axes = tuple(range(1, band.ndim))
    return band / (band.square().mean(dim=axes, keepdim=True) + 1e-8).sqrt()
