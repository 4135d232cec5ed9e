"""Normalised convolution: filtering data of which only parts are known.

Knutsson and Westin, CVPR 1993; with non-negative kernels that are learned and a confidence that is passed on:
Eldesokey, Felsberg and Khan, BMVC 2018; thesis equations 2.63a (whose denominator lacks the applicability as printed)
and 2.63b.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg_bench.field.checks import needs_graph
from reg_bench.narrow_convolution import convolve_same

# Of the softplus that keeps kernels positive.
BETA = 10.0


def normalized_convolution(
    values: Tensor, confidence: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`conv(x c, w) / conv(c, w) + b` and `conv(c, w) / sum(w)`, at stride 1 with zeros beyond the border.

    The sum of the weights of an output channel runs over the kernel and the input channels, so that full confidence
    stays full and none exceeds the largest that goes in. Where no confidence is in reach the result is 0, without the
    bias, and the gradient is finite: the division is left out, where the printed constant of 1e-20 would overflow.

    Args:
        values: `(B, C, *S)` with 2 or 3 spatial axes, or `(B, K, C, *S)`: K fields that share their confidence.
        confidence: `(B, C, *S)`, or `(B, 1, *S)` for all channels, which costs one channel; at least 0. Only ratios
            matter for the data; a reach of less than `sqrt(tiny)` of the dtype (1e-19) is none.
        kernel: `w (C', C, *k)`, at least 0, of odd lengths; correlated with the data, as everywhere in torch.
        bias: `(C',)`.

    Returns:
        the values `(B, C', *S)` (or `(B, K, C', *S)`) and their confidence `(B, C', *S)`.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(values, confidence, kernel)
    shared = values.ndim == confidence.ndim + 1
    weighted = values * (confidence[:, None] if shared else confidence)
    images = weighted.flatten(0, 1) if shared else weighted
    if confidence.shape[1] == kernel.shape[1]:
        both = convolve_same(torch.cat((images, confidence)), kernel)
        sums, reach = both[: len(images)], both[len(images) :]
    else:
        # One confidence for all channels meets the sum of their weights: expanded it would cost as much as the data.
        sums, reach = convolve_same(images, kernel), convolve_same(confidence, kernel.sum(dim=1, keepdim=True))
    per_channel = (-1, *(1,) * (kernel.ndim - 2))
    # What is out of reach is divided by 1 and so stays 0; the gradient of that 1 is none.
    faintest = math.sqrt(torch.finfo(reach.dtype).tiny)
    divisor = F.threshold(reach, faintest, 1.0)
    if shared:
        sums = sums.reshape(*values.shape[:2], *sums.shape[1:])
        divisor = divisor[:, None]
    if bias is None and not needs_graph(values, confidence, kernel):
        # Fresh memory costs more than the division.
        return sums.div_(divisor), reach.div_(kernel.flatten(1).sum(dim=1).reshape(per_channel))
    mean = sums / divisor
    if bias is not None:
        known = (reach > faintest).to(mean)
        mean = torch.addcmul(mean, known[:, None] if shared else known, bias.reshape(per_channel))
    return mean, reach / kernel.flatten(1).sum(dim=1).reshape(per_channel)


def _check(values: Tensor, confidence: Tensor, kernel: Tensor) -> None:
    dims = kernel.ndim - 2
    if dims not in (2, 3) or any(k % 2 == 0 for k in kernel.shape[2:]):
        raise ValueError(
            f"normalized_convolution: kernel must be (C', C, *k) with 2 or 3 odd lengths, got {tuple(kernel.shape)}"
        )
    channels = kernel.shape[1]
    of_one = values[:, 0] if values.ndim == dims + 3 else values
    if of_one.ndim != dims + 2 or of_one.shape[1] != channels:
        raise ValueError(
            f"normalized_convolution: values must be (B, {channels}, *S) or (B, K, {channels}, *S) with {dims} "
            f"spatial axes, got {tuple(values.shape)}"
        )
    expected = (of_one.shape[0], *of_one.shape[2:])
    if confidence.ndim != dims + 2 or (confidence.shape[0], *confidence.shape[2:]) != expected:
        raise ValueError(
            f"normalized_convolution: confidence must be (B, C, *S) for values {tuple(values.shape)}, got "
            f"{tuple(confidence.shape)}"
        )
    if confidence.shape[1] not in (1, channels):
        raise ValueError(
            f"normalized_convolution: confidence must have 1 or {channels} channels, got {confidence.shape[1]}"
        )


class NormalizedConv(nn.Module):
    """A layer of normalised convolution whose kernels are kept positive by `softplus(10 W) / 10`.

    The parameters themselves are free; the softplus is applied on every use and never written back.

    Args:
        inputs, outputs: channels.
        size: of the kernel along every axis, odd.
        dims: 2 or 3 spatial axes.
        bias: without it, constants stay constant.
    """

    def __init__(self, inputs: int, outputs: int, size: int, dims: int = 2, bias: bool = True) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"NormalizedConv: dims must be 2 or 3, got {dims}")
        if min(inputs, outputs, size) < 1 or size % 2 == 0:
            raise ValueError(
                "NormalizedConv: inputs, outputs and size must be positive and size odd, got "
                f"{inputs}, {outputs} and {size}"
            )
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(size,) * dims))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    @property
    def kernel(self) -> Tensor:
        """The positive weights `(C', C, *k)`."""
        return F.softplus(self.weight, beta=BETA)

    @property
    def shares(self) -> Tensor:
        """The weights `(C', C, k)` divided by their sum for each output channel.

        What is convolved with them as it is, in values times confidence as in confidence, is values times confidence
        and confidence of the result, since `x' c' = conv(x c, w) / conv(c, w) * conv(c, w) / sum(w)`: through several
        layers there is one division, at the end. A bias adds itself times the confidence.
        """
        kernel = self.kernel
        return kernel / kernel.flatten(1).sum(dim=1).reshape(-1, *(1,) * (kernel.ndim - 1))

    def forward(self, values: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Values and confidence as of `normalized_convolution`."""
        return normalized_convolution(values, confidence, self.kernel, self.bias_if_any())

    def bias_if_any(self) -> Tensor | None:
        """The bias; `None` where it is 0 and nobody asks for its gradient, which saves passes over the image."""
        if self.bias is None or needs_graph(self.bias) or bool(self.bias.any()):
            return self.bias
        return None
