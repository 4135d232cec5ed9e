"""Motion against that of the neighbours: exact for affine motion, blind to none of the outliers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reg_bench.tracking import consistency, nearest_neighbours, neighbour_prediction


def points(count: int = 60, batch: int = 2) -> Tensor:
    return torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100


def affine(p: Tensor) -> Tensor:
    return p @ torch.tensor([[0.1, -0.2], [0.05, 0.15]], dtype=torch.float64) + torch.tensor([3.0, -2.0])


def test_neighbours_are_the_nearest_others() -> None:
    p = points(20, 1)
    found = nearest_neighbours(p, 5)[0]
    for i in range(20):
        order = sorted((math.dist(p[0, i].tolist(), p[0, j].tolist()), j) for j in range(20) if j != i)
        assert found[i].tolist() == [j for _, j in order[:5]]
    assert nearest_neighbours(p[:, :3], 8).shape == (1, 3, 2)


def test_affine_motion_is_predicted_up_to_the_ridge() -> None:
    p = points()
    near, weights = nearest_neighbours(p, 12), torch.ones(2, 60, dtype=torch.float64)
    assert (neighbour_prediction(p, affine(p), near, weights) - affine(p)).abs().max() < 0.1
    constant = torch.ones_like(p) * torch.tensor([4.0, -7.0])
    torch.testing.assert_close(neighbour_prediction(p, constant, near, weights), constant, atol=1e-4, rtol=0)


def test_outliers_are_told_and_do_not_spoil_their_neighbours() -> None:
    p = points()
    values = affine(p)
    wrong = torch.zeros(2, 60, dtype=torch.bool)
    wrong[:, ::6] = True
    values[wrong] += torch.tensor([9.0, -8.0])
    found = consistency(p, values, nearest_neighbours(p, 12), torch.ones(2, 60, dtype=torch.float64), scale=2.0)
    assert found[wrong].max() < 0.2
    assert (found[~wrong] > 0.5).double().mean() > 0.9


def test_neighbours_without_weight_have_no_say() -> None:
    p = points()
    values, weights = affine(p), torch.ones(2, 60, dtype=torch.float64)
    values[:, :30] += 50.0
    weights[:, :30] = 0
    predicted = neighbour_prediction(p, values, nearest_neighbours(p, 59), weights, scale=5.0, iterations=4)
    assert (predicted - affine(p)).abs()[:, 30:].max() < 2.0


def test_too_few_points_are_all_consistent() -> None:
    p = points(3, 1)
    assert torch.equal(consistency(p, p, nearest_neighbours(p, 8), torch.ones(1, 3), 1.0), torch.ones(1, 3))
