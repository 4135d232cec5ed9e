"""Supervision by a field that is known, of synthetic pairs."""

from __future__ import annotations

from torch import Tensor

from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_network import NetworkOutput
from reg_bench.types import RegistrationPair


class EndPointError(LossTerm):
    """Mean distance of the field from the true one, in voxels; thesis equation 2.55.

    `None` where a pair has no true displacement. Only the pair's mask counts, where it has one.

    Args:
        weight: of the term.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        if pair.true_displacement is None:
            return None
        # Differentiable where the field is exact, too.
        error = (output.u - pair.true_displacement).square().sum(dim=1).add(1e-12).sqrt()
        if pair.mask is None:
            return self.weight * error.mean()
        inside = pair.mask[:, 0].to(error.dtype)
        of_case = (error * inside).flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1).clamp(min=1)
        return self.weight * of_case.mean()
