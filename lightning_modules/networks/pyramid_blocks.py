"""What the registration pyramid is built of: convolution, rectifier and normalisation, in this order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_bench.field.checks import needs_graph

Normalisation = Literal["batch", "instance"]

SLOPE = 0.2
"""Of the rectifier below zero."""

_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMALISATIONS: dict[tuple[str, int], type[nn.Module]] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}


def convolution(dimension: int, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A convolution by 3 voxels per axis that keeps the size, or divides it by `stride`; He's initialisation."""
    if dimension not in _CONVOLUTIONS:
        raise ValueError(f"the registration pyramid has 2 or 3 dimensions, got {dimension}")
    layer = _CONVOLUTIONS[dimension](inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def displacement_convolution(dimension: int, inputs: int) -> nn.Module:
    """The convolution that a displacement comes out of: nearly zero at first, so that training starts at identity."""
    layer = convolution(dimension, inputs, dimension)
    nn.init.normal_(layer.weight, std=1e-5)
    return layer


def normalisation(kind: Normalisation | None, dimension: int, channels: int) -> nn.Module:
    """Over the batch with running statistics (Keras' constants), over each image alone, or none."""
    if kind is None:
        return nn.Identity()
    if (kind, dimension) not in _NORMALISATIONS:
        raise ValueError(f"normalisation must be 'batch', 'instance' or None, got {kind!r}")
    options = {"momentum": 0.01} if kind == "batch" else {}
    return _NORMALISATIONS[kind, dimension](channels, eps=1e-3, affine=True, **options)


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Where displacements are computed: never in the half precision that mixed precision would use."""
    return torch.autocast(values.device.type, enabled=False)


def rectified(values: Tensor) -> Tensor:
    """The leaky rectifier; a graph keeps its result, which the normalisation keeps as well, and not its argument.

    `values` may be overwritten.
    """
    # What autograd may still need is copied.
    return F.leaky_relu_(values.clone() if needs_graph(values) else values, SLOPE)


class Block(nn.Module):
    """Convolution, rectifier, normalisation: `(B, inputs, *S)` to `(B, outputs, *S / stride)`."""

    def __init__(
        self,
        dimension: int,
        inputs: int,
        outputs: int,
        kind: Normalisation | None,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.convolution = convolution(dimension, inputs, outputs, stride=stride, dilation=dilation)
        self.normalisation = normalisation(kind, dimension, outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.normalisation(rectified(self.convolution(image)))
