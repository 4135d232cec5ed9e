"""Supervision by a field that is known, of synthetic pairs."""

from __future__ import annotations

from torch import Tensor

from reg_bench.field import resize, resize_image
from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_loss.levels import sum_over_levels
from reg_bench.registration_network import LevelFlow, NetworkOutput
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
        mask = None if pair.mask is None else pair.mask.to(output.u.dtype)
        return self.weight * _mean_distance(output.u, pair.true_displacement, mask).mean()


class LevelEndPointError(LossTerm):
    """Mean distance from the true field at every level, in voxels of the level: `sum_l weight ratio^l E_l`.

    The true field and the mask are resized to the level; otherwise as `EndPointError`.

    Args:
        weight: of the finest level.
        ratio: of the weights of a level and the next finer one.
    """

    def __init__(self, weight: float = 1.0, ratio: float = 0.5) -> None:
        super().__init__()
        self.weight, self.ratio = weight, ratio

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        truth = pair.true_displacement
        if truth is None:
            return None
        mask = None if pair.mask is None else pair.mask.to(output.u.dtype)

        def energy(level: LevelFlow) -> Tensor:
            shape = level.u.shape[2:]
            return _mean_distance(level.u, resize(truth, shape), None if mask is None else resize_image(mask, shape))

        return sum_over_levels(output, self.weight, self.ratio, energy)


def _mean_distance(u: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """Of fields `(B, D, *S)`, weighted by `mask (B, 1, *S)`: `(B,)`."""
    # Differentiable where the field is exact, too.
    error = (u - truth).square().sum(dim=1).add(1e-12).sqrt()
    if mask is None:
        return error.flatten(1).mean(dim=1)
    weights = mask[:, 0]
    return (error * weights).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1).clamp(min=1)
