"""When a recursion of covariances with constant coefficients has reached its fixed point.

The covariances of a detectable time-invariant model converge. Once they have, the rest of a sequence needs no more
work. With gradients to follow nothing is cut short: they converge later.
"""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from reg_bench.state_space.model import LinearGaussianModel


def needs_gradient(model: LinearGaussianModel) -> bool:
    """Whether derivatives with respect to `model` are wanted."""
    return torch.is_grad_enabled() and any(getattr(model, f.name).requires_grad for f in fields(model))


class Settling:
    """Watches successive matrices; `settled` once what all later changes could add up to is below the tolerance.

    Changes shrink geometrically in the end. How fast is measured while they are well above rounding errors, by
    successive ones; to save time two of four are looked at.

    Args:
        dtype: the tolerance is 32 rounding errors of it or 1e-10, relative to the variances.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.rounding = torch.finfo(dtype).eps
        self.tolerance = max(32 * self.rounding, 1e-10)
        self.reset()

    def reset(self) -> None:
        """The coefficients change: all begins anew."""
        self.settled, self._steps, self._last, self._rate = False, 0, math.inf, 1.0

    def look(self, previous: Tensor, current: Tensor) -> None:
        """Compares successive matrices, `(n, n)` or `(G, n, n)`."""
        self._steps += 1
        if self._steps % 4 < 2:
            return
        # Every entry by the standard deviations that it belongs to: a small variance must settle as well.
        deviation = current.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(current.dtype).tiny).sqrt()
        change = float(((current - previous) / deviation[..., None] / deviation[..., None, :]).abs().max())
        if self._steps % 4 == 3 and change > 16 * self.rounding:
            self._rate = min(change / self._last, 1.0) if self._last > 0 else 1.0
        self._last = change
        self.settled = change * self._rate <= self.tolerance * (1 - self._rate)
