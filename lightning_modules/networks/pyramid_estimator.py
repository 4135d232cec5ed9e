"""The densely connected estimator of a level of the registration pyramid, and the network that looks around its result.

Every layer of a DenseNet reads the results of all layers before it. Instead of putting them together again and again,
each result is convolved once, as soon as it is there, with the kernels of all layers that will read it, and what they
get is added up. The numbers are the same; a graph keeps each result once instead of once per later layer, and the few
output channels of the late layers are computed along with the many of the early ones, where a processor is fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.pyramid_blocks import (
    Block,
    Normalisation,
    convolution,
    displacement_convolution,
    normalisation,
    rectified,
)


class DenseEstimator(nn.Module):
    """Blocks that each read the input and the results of all blocks before, then a convolution that reads everything.

    The channels are in the order of the paper, newest results first and the input last.

    Args:
        dimension: 2 or 3.
        inputs: channels of the input.
        growth: channels of the blocks.
        kind: normalisation of the blocks.
    """

    def __init__(self, dimension: int, inputs: int, growth: Sequence[int], kind: Normalisation | None) -> None:
        super().__init__()
        self.widths = (inputs, *growth)
        self.layers = nn.ModuleList()
        self.normalisations = nn.ModuleList()
        for width, outputs in zip(_sums(self.widths), growth, strict=False):
            self.layers.append(convolution(dimension, width, outputs))
            self.normalisations.append(normalisation(kind, dimension, outputs))
        self.displacement = displacement_convolution(dimension, self.outputs)

    @property
    def outputs(self) -> int:
        """Channels of the input and of all blocks."""
        return sum(self.widths)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The displacement `(B, D, *S)` and the results of all blocks, newest first, then `image (B, C, *S)` itself."""
        layers = cast(Sequence[nn.Conv3d], [*self.layers, self.displacement])
        bias = torch.cat([cast(Tensor, layer.bias) for layer in layers])
        ahead = self._convolved(image, 0, layers, bias)
        results = [image]
        for index, norm in enumerate(self.normalisations):
            width = self.widths[index + 1]
            results.insert(0, norm(rectified(ahead[:, :width])))
            ahead = self._convolved(results[0], index + 1, layers, None).add_(ahead[:, width:])
        return ahead, results

    def _convolved(self, part: Tensor, index: int, layers: Sequence[nn.Conv3d], bias: Tensor | None) -> Tensor:
        """Result number `index` (0 is the input) convolved with the kernels of all layers that read it."""
        # A layer's channels are ordered from the newest result it reads; newer ones than this come before.
        kernels = [
            layer.weight.narrow(1, sum(self.widths[index + 1 : k + 1]), self.widths[index])
            for k, layer in enumerate(layers)
            if k >= index
        ]
        convolve = F.conv3d if part.ndim == 5 else F.conv2d
        return convolve(part, torch.cat(kernels), bias, padding=1)


class ContextNetwork(nn.Module):
    """Dilated convolutions over the features of an estimator, whose result is added to its displacement.

    Args:
        dimension: 2 or 3.
        inputs: channels of the features.
        filters: channels of the layers.
        dilations: of the layers; the last convolution, to the displacement, has none.
        kind: normalisation.
    """

    def __init__(
        self,
        dimension: int,
        inputs: int,
        filters: Sequence[int],
        dilations: Sequence[int],
        kind: Normalisation | None,
    ) -> None:
        super().__init__()
        widths = (inputs, *filters)
        self.blocks = nn.Sequential(
            *(
                Block(dimension, a, b, kind, dilation=dilation)
                for a, b, dilation in zip(widths, filters, dilations, strict=False)
            )
        )
        self.displacement = displacement_convolution(dimension, widths[-1])

    def forward(self, features: Tensor) -> Tensor:
        """`(B, C, *S)` to `(B, D, *S)`."""
        return self.displacement(self.blocks(features))


def _sums(widths: Sequence[int]) -> list[int]:
    """Channels that each layer reads."""
    return [sum(widths[: k + 1]) for k in range(len(widths))]
