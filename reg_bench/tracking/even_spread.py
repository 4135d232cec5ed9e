"""Few of many random points, without their crowds and gaps."""

from __future__ import annotations

import torch
from torch import Tensor

# Of circles packed as densely as they can be, at one per unit of area: the distance of their centres.
_DENSEST = (2 / 3**0.5) ** 0.5
_SHARPNESS = 8


def evenly_spread(points: Tensor, expected: Tensor, count: int) -> Tensor:
    """Which `count` of the points remain, in rising order, when the most crowded is left out again and again.

    Sample elimination of Yuksel, Computer Graphics Forum 34(2), 2015. Distances count in units of the local spacing,
    so that a density that varies is kept.

    Args:
        points: `(M, 2)`, at least `count`.
        expected: `(M,)`, of the points that remain, how many there should be per unit of area around each.
    """
    if len(points) == count:
        return torch.arange(count)
    places, density = points.double(), expected.double()
    squares = (places[:, None] - places[None]).square().sum(-1) * (density[:, None] * density[None]).sqrt()
    crowding = (1 - squares.sqrt() / _DENSEST).clamp(min=0) ** _SHARPNESS
    crowding.fill_diagonal_(0)
    total = crowding.sum(1)
    for _ in range(len(points) - count):
        worst = int(total.argmax())
        total -= crowding[worst]
        total[worst] = -torch.inf
    return torch.nonzero(total > -torch.inf)[:, 0]
