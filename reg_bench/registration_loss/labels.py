"""Weak supervision: labels and points that correspond, where a pair has them."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_bench.field import sample, warp
from reg_bench.registration_loss.base import LossTerm
from reg_bench.registration_network import NetworkOutput
from reg_bench.similarity import SoftDice, one_hot
from reg_bench.types import RegistrationPair


class LabelDice(LossTerm):
    """One minus the mean soft Dice of the labels that the fixed map has, background left out.

    Labels are warped as one channel each by linear interpolation. Where the pair names its labels only those count.
    `None` where a pair has no labels.

    Args:
        weight: the paper's is 5.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        if pair.fixed_labels is None or pair.moving_labels is None:
            return None
        present = {int(value) for value in torch.unique(pair.fixed_labels)} - {0}
        values = sorted(present if pair.label_names is None else present & set(pair.label_names))
        if not values:
            return None
        warped = warp(one_hot(pair.moving_labels, values), output.u)
        return self.weight * SoftDice(values)(pair.fixed_labels, warped).mean()


class PointDistance(LossTerm):
    """Mean distance of corresponding points under the field, in voxels of the fixed grid.

    Args:
        points: which set of the pair's points; `None` where a pair does not have it.
        weight: of the term.
    """

    def __init__(self, points: str = "keypoints", weight: float = 1.0) -> None:
        super().__init__()
        self.points, self.weight = points, weight

    def forward(self, output: NetworkOutput, pair: RegistrationPair) -> Tensor | None:
        pairs = (pair.points or {}).get(self.points)
        if pairs is None:
            return None
        distances = []
        for case, (fixed, moving) in enumerate(zip(pairs.fixed, pairs.moving, strict=True)):
            if len(fixed):
                here = fixed.to(output.u)[None]
                moved = here + sample(output.u[case : case + 1], here)
                distances.append((moved[0] - moving.to(output.u)).square().sum(dim=1).add(1e-12).sqrt().mean())
        return self.weight * torch.stack(distances).mean() if distances else None
