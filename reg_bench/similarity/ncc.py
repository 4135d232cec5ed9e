"""Global normalised cross-correlation."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import (
    Analytic,
    Evaluate,
    Similarity,
    check_fixed,
    expanded,
    mean_weights,
    rounding_variance,
    share,
    weighted,
)


class NCC(Similarity):
    """One minus the squared correlation of the two images, thesis (2.23)-(2.25); mean over channels.

    Images that are linear functions of each other have 0, also with inverted contrast; unrelated ones have 1, and so
    has a constant image, which correlates with nothing.

    Args:
        signed: the correlation itself, not its square: inverted contrast has 2.
    """

    def __init__(self, *, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("NCC", fixed)
        weights = mean_weights("NCC", mask, fixed, at_least_float32(fixed))
        return Analytic("NCC", fixed, self._evaluate(weights, fixed), partial(self._evaluate, weights))

    @torch.no_grad()
    def _evaluate(self, weights: Tensor | None, fixed: Tensor) -> Evaluate:
        centred, deviation = _centred(fixed.detach(), weights)
        probe = weighted(centred, weights).div_(expanded(deviation, fixed))

        def evaluate(warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            values, scale = _centred(warped, weights)
            correlation = (probe * values).flatten(2).sum(dim=2) / scale
            term = correlation if self.signed else correlation.square()
            energy = share(weights, warped, values.dtype) - term.mean(dim=1)
            if not with_gradient:
                return energy, None
            factor = (-1 if self.signed else -2 * correlation) / (scale * values.shape[1])
            gradient = probe.addcmul(weighted(values, weights), expanded(correlation / scale, values), value=-1)
            return energy, gradient.mul_(expanded(factor, values)).to(warped.dtype)

        return evaluate


def _centred(image: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The image less its mean `(B, C, *S)`, and its standard deviation `(B, C)`: infinite for constant images."""
    values = image.to(at_least_float32(image))
    mean = weighted(values, weights).flatten(2).sum(dim=2)
    values = values - expanded(mean, values)
    # The mean of large values is rounded, and what that leaves of it would count as variance.
    values = values.sub_(expanded(weighted(values, weights).flatten(2).sum(dim=2), values))
    variance = (weighted(values, weights) * values).flatten(2).sum(dim=2)
    return values, variance.masked_fill(variance <= rounding_variance(mean), torch.inf).sqrt()
