"""Volumes convolved one at a time as fast as several.

On one thread torch convolves a single volume with a kernel of at most 20,480 weights by a loop over matrices
(`slow_conv3d`), which takes 4 to 20 times as long as what it calls for everything else (oneDNN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reg_bench.field.checks import needs_graph


class DirectConvolutions(TorchFunctionMode):
    """Inside, `torch.nn.functional.conv3d`, and with it `torch.nn.Conv3d`, calls oneDNN where it applies.

    That is for float32 on a CPU where no gradient is wanted; everything else goes its usual way. Results are those of
    `conv3d` up to rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.conv3d:
            result = _direct(*args, **kwargs)
            if result is not None:
                return result
        return func(*args, **kwargs)


def _direct(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution by oneDNN, or `None` where it does not apply."""
    plain = image.ndim == 5 and image.dtype == weight.dtype == torch.float32 and image.device.type == "cpu"
    if not plain or isinstance(padding, str) or not image.numel() or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    if needs_graph(image, weight, *([] if bias is None else [bias])) or torch.is_autocast_enabled("cpu"):
        return None
    lengths = (padding, stride, dilation)
    given = [[n] * 3 if isinstance(n, int) else [int(k) for k in n] for n in lengths]
    if any(len(n) != 3 for n in given):
        return None
    result: Tensor = torch.mkldnn_convolution(image, weight, bias, given[0], given[1], given[2], groups)
    return result
