"""Mean squared difference of intensities."""

from __future__ import annotations

from torch import Tensor

from reg_bench.field.checks import at_least_float32
from reg_bench.similarity.base import Analytic, Evaluate, Similarity, check_fixed, mean_weights, weighted


class SSD(Similarity):
    """The mean of the squared difference, thesis (2.22): for images of one modality and one intensity scale."""

    def bind(self, fixed: Tensor, mask: Tensor | None = None, spacing_mm: Tensor | None = None) -> Analytic:
        check_fixed("SSD", fixed)
        weights = mean_weights("SSD", mask, fixed, at_least_float32(fixed))
        return Analytic("SSD", fixed, _evaluate(fixed, weights), lambda w: _evaluate(w, weights))


def _evaluate(fixed: Tensor, weights: Tensor | None) -> Evaluate:
    fixed = fixed.detach().to(at_least_float32(fixed))

    def evaluate(warped: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        difference = warped.to(fixed.dtype) - fixed
        shares = weighted(difference, weights).div_(fixed.shape[1])
        energy = (shares * difference).flatten(1).sum(dim=1)
        return energy, shares.mul_(2).to(warped.dtype) if with_gradient else None

    return evaluate
