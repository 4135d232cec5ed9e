"""From a level of the registration pyramid to the next finer one.

Repeating every voxel twice along each axis and convolving the result by 3 voxels is, for each of the 2^D places that a
fine voxel can have in a coarse one, a convolution of the coarse map by 2 voxels with sums of the kernel's entries. That
is done here: in 3-D 3.4 times fewer products, and the repeated map is never made.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.pyramid_blocks import convolution, full_precision
from reg_bench.field import resize

Doubling = Literal["convolution", "linear"]

# Entries of a kernel of 3 that fall on the two coarse voxels that a fine voxel sees, for its two places: (2, 2, 3).
_SEEN = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
# (C', C, *3) to (*place, C', C, *2)
_SUMS = {2: "oiab,pxa,qyb->pqoixy", 3: "oiabc,pxa,qyb,rzc->pqroixyz"}


def repeated_convolution(image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """`image` with every voxel repeated twice along each axis, convolved, zeros beyond the border.

    Args:
        image: `(B, C, *S)`.
        kernel: `(C', C, *3)`.
        bias: `(C',)`.

    Returns:
        `(B, C', *2 S)`.
    """
    dims = image.ndim - 2
    places = list(itertools.product(range(2), repeat=dims))
    convolve = F.conv3d if dims == 3 else F.conv2d
    summed = torch.einsum(_SUMS[dims], kernel, *[kernel.new_tensor(_SEEN)] * dims)
    # Place by place, one voxel too long: at place 0 a fine voxel sees coarse voxels x - 1 and x, at place 1 x, x + 1.
    dense = convolve(image, summed.flatten(0, dims), bias.repeat(len(places)), padding=1)
    pieces = []
    for place, piece in zip(places, dense.unflatten(1, (len(places), -1)).unbind(1), strict=True):
        for axis, (start, length) in enumerate(zip(place, image.shape[2:], strict=True), start=2):
            piece = piece.narrow(axis, start, length)
        pieces.append(piece)
    # (B, 2, 2, 2, C', D, H, W) to (B, C', D, 2, H, 2, W, 2)
    order = [0, dims + 1, *(k for axis in range(dims) for k in (dims + 2 + axis, 1 + axis))]
    woven = torch.stack(pieces, dim=1).unflatten(1, (2,) * dims).permute(order)
    return woven.reshape(len(image), -1, *(2 * n for n in image.shape[2:]))


class Upsampling(nn.Module):
    """The displacement, doubled, and features of the estimator for the next finer level.

    Args:
        dimension: 2 or 3.
        inputs: channels of the features.
        carried: channels that they become.
        doubling: of the displacement: repeated and convolved as in the paper, with a kernel that is the identity at
            first so that values stay voxels; or interpolated linearly.
    """

    def __init__(self, dimension: int, inputs: int, carried: int, doubling: Doubling) -> None:
        super().__init__()
        self.features = convolution(dimension, inputs, carried) if carried else None
        self.displacement: nn.Module | None = None
        if doubling == "convolution":
            self.displacement = convolution(dimension, dimension, dimension)
            nn.init.dirac_(self.displacement.weight)

    def forward(self, u: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """`u (B, D, *S)` in voxels to `(B, D, *2 S)` in voxels of that grid; parts `(B, C_i, *S)` to `(B, C, *2 S)`."""
        layer = self.features
        carried = None if layer is None else repeated_convolution(torch.cat(features, 1), layer.weight, layer.bias)
        with full_precision(u):
            if self.displacement is None:
                return resize(u, [2 * n for n in u.shape[2:]]), carried
            return 2 * repeated_convolution(u, self.displacement.weight, self.displacement.bias), carried
