"""Convolutions of the Kalman VAE, each with its normalisation folded in once training is over."""

from __future__ import annotations

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
#: Epsilon of TensorFlow, in which the paper's network was written; its momentum of 0.01 is slow for short trainings.
_EPSILON, _MOMENTUM = 1e-3, 0.05


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes of a training, on CPUs too.

    n processes with batches of b then learn what one learns with batches of n b. All batches must be of one size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` of this process."""
        processes = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        if not self.training or processes == 1:
            return super().forward(x)
        values = x.float()
        moments = torch.stack([values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))])
        mean, square = _summed(moments) / processes
        variance = (square - mean.square()).clamp(min=0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = processes * x.numel() // x.shape[1]
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], values, scale[:, None, None]).to(x.dtype)


def _summed(values: Tensor) -> Tensor:
    """The sum over all processes, with gradients."""
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(values)
    return total


def seen_by_all(mask: Tensor) -> Tensor:
    """The union of the bool `mask` of every process."""
    if not distributed.is_available() or not distributed.is_initialized():
        return mask
    counts = mask.float()
    distributed.all_reduce(counts)
    return counts > 0


class NormalizedConvolution(nn.Module):
    """A 3x3 convolution and batch normalisation; `stride` 2 halves the image, `transposed` doubles it.

    Args:
        inputs, outputs: channels.
        stride: 1 or 2.
        transposed: whether the stride is that of a transposed convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, transposed: bool = False) -> None:
        super().__init__()
        self.stride, self.transposed = stride, transposed
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        self.weight = nn.Parameter(torch.empty(*shape, 3, 3))
        nn.init.xavier_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.norm = SharedBatchNorm(outputs, eps=_EPSILON, momentum=_MOMENTUM)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`(N, C, H, W)` to `(N, C', H', W')`; `added` joins after the normalisation."""
        if self.training:
            out = self.norm(self._convolved(x, self.weight, self.bias))
        else:
            # Its statistics are constants now: they become part of the kernel, and one pass over the image is saved.
            norm = self.norm
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = self.weight * (scale[:, None, None] if self.transposed else scale[:, None, None, None])
            out = self._convolved(x, weight, (self.bias - norm.running_mean) * scale + norm.bias)
        return out if added is None else out + added

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.transposed:
            return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        return F.conv2d(x, weight, bias, stride=self.stride, padding=1)


class ResidualBlock(nn.Module):
    """A convolution to another resolution, then two that are added to what came out of it.

    Args:
        inputs, outputs: channels.
        up: whether the resolution doubles; else it halves.
    """

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.scaling = NormalizedConvolution(inputs, outputs, stride=2, transposed=up)
        self.first = NormalizedConvolution(outputs, outputs)
        self.second = NormalizedConvolution(outputs, outputs)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`(N, C, H, W)` at half or double the resolution; `added` joins the result of the first convolution."""
        scaled = _activated(self.scaling(x, added), self.training)
        inner = _activated(self.first(scaled), self.training)
        return _activated(self.second(inner, scaled), self.training)


def _activated(x: Tensor, training: bool) -> Tensor:
    return F.leaky_relu(x, SLOPE, inplace=not (training and torch.is_grad_enabled()))
