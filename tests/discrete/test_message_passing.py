"""Message passing against the enumeration of all labellings."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from reg_bench.discrete import ControlGrid, MessagePassing, Window, min_convolution, min_marginals
from reg_bench.discrete.message_passing import message


def costs_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_price(window: Window, weights: list[float], truncation: float) -> Tensor:
    """The price `(K, K)` of every pair of labels."""
    offsets = window.offsets(torch.zeros((), dtype=torch.float64))
    difference = offsets[:, None] - offsets
    return (difference.square() * torch.tensor(weights, dtype=torch.float64)).sum(-1).clamp(max=truncation)


def all_energies(costs: Tensor, window: Window, weights: list[list[float]], truncation: float) -> Tensor:
    """The energy of every labelling of one case `(K, m, n)`: one axis per point, each of length `K`."""
    count, rows, columns = costs.shape
    total = costs.new_zeros((count,) * (rows * columns))
    points = list(itertools.product(range(rows), range(columns)))
    for index, point in enumerate(points):
        shape = [1] * len(points)
        shape[index] = count
        total = total + costs[(slice(None), *point)].reshape(shape)
        for axis in range(2):
            neighbour = tuple(p + (a == axis) for a, p in enumerate(point))
            if neighbour in points:
                other = points.index(neighbour)
                shape = [1] * len(points)
                shape[index] = shape[other] = count
                total = total + pair_price(window, weights[axis], truncation).reshape(shape)
    return total


@pytest.mark.parametrize("weights", [[0.0], [0.4], [0.1, 0.7], [0.05, 0.3, 0.02]])
def test_lower_envelope_equals_all_pairs(weights: list[float]) -> None:
    window = Window((2, 1, 3)[: len(weights)])
    costs = costs_of(2, window.count, 5)
    pairs = costs[:, :, None] + pair_price(window, weights, math.inf)[..., None]
    found = min_convolution(costs.unflatten(1, window.labels), weights).flatten(1, len(weights))
    torch.testing.assert_close(found, pairs.amin(1))


def test_truncated_message_equals_all_pairs() -> None:
    window, weights = Window((2, 2)), [0.1, 0.3]
    costs = costs_of(2, window.count, 7)
    pairs = (costs[:, :, None] + pair_price(window, weights, 0.25)[..., None]).amin(1)
    found = message(costs.unflatten(1, window.labels), weights, 0.25).flatten(1, 2)
    torch.testing.assert_close(found, pairs - pairs.amin(1, keepdim=True))


@pytest.mark.parametrize("truncation", [math.inf, 0.3])
@pytest.mark.parametrize("grid", [(4, 1), (1, 4), (5, 1)])
def test_a_chain_is_solved_exactly(grid: tuple[int, int], truncation: float) -> None:
    window, weights = Window((1, 1), step=2), [[0.03, 0.05], [0.02, 0.04]]
    costs = costs_of(2, window.count, *grid)
    found = min_marginals(costs, window, weights, truncation=truncation, sweeps=1)
    for case in range(2):
        energies = all_energies(costs[case], window, weights, truncation)
        for index, point in enumerate(itertools.product(*(range(n) for n in grid))):
            others = tuple(a for a in range(energies.ndim) if a != index)
            exact = energies.amin(others)
            belief = found[(case, slice(None), *point)]
            torch.testing.assert_close(belief - belief.min(), exact - exact.min())


def test_more_sweeps_change_nothing_on_a_chain() -> None:
    window, weights = Window((2, 1)), [[0.1, 0.1]] * 2
    costs = costs_of(1, window.count, 9, 1)
    one, four = (min_marginals(costs, window, weights, sweeps=n) for n in (1, 4))
    torch.testing.assert_close(one, four)


def test_a_chain_in_3d_is_solved_exactly() -> None:
    window, row = Window((1, 0, 1)), [0.05, 0.1, 0.2]
    costs = costs_of(1, window.count, 1, 1, 4)
    found = min_marginals(costs, window, [row] * 3, sweeps=1)[0, :, 0, 0]
    energies = all_energies(costs[0, :, 0], window, [row] * 2, math.inf)
    for point in range(4):
        exact = energies.amin(tuple(a for a in range(4) if a != point))
        torch.testing.assert_close(found[:, point] - found[:, point].min(), exact - exact.min())


def test_on_a_grid_with_loops_the_labelling_is_nearly_the_best() -> None:
    window, weights = Window((1, 0)), [[0.15, 0.0]] * 2
    excess = []
    for seed in range(20):
        costs = costs_of(1, 3, 3, 3, seed=seed)
        energies = all_energies(costs[0], window, weights, math.inf)
        chosen = min_marginals(costs, window, weights, sweeps=4)[0].argmin(0).flatten()
        alone = costs[0].argmin(0).flatten()
        energy, greedy = (float(energies[tuple(c.tolist())]) for c in (chosen, alone))
        excess.append((energy - float(energies.min())) / (greedy - float(energies.min()) + 1e-12))
    assert sum(e < 1e-9 for e in excess) >= 15
    assert max(excess) < 0.5


def test_neighbours_correct_a_point_that_is_misled() -> None:
    window, grid = Window((2, 2)), ControlGrid((5, 5), (5, 5), (1.0, 1.0))
    offsets = window.offsets(torch.zeros((), dtype=torch.float64))
    costs = ((offsets - torch.tensor([1.0, -1.0])) ** 2).sum(1).mul(0.02).reshape(1, -1, 1, 1).repeat(1, 1, 5, 5)
    costs[0, :, 2, 2] = ((offsets - torch.tensor([-2.0, 2.0])) ** 2).sum(1).mul(0.02)
    found = MessagePassing(weight=0.1)(costs, window, grid)
    torch.testing.assert_close(found[0, :, 2, 2], torch.tensor([1.0, -1.0], dtype=torch.float64), atol=0.35, rtol=0)
    alone = MessagePassing(weight=0.0)(costs, window, grid)
    torch.testing.assert_close(alone[0, :, 2, 2], torch.tensor([-2.0, 2.0], dtype=torch.float64), atol=0.01, rtol=0)


def test_truncation_keeps_an_edge_between_two_motions() -> None:
    window, grid = Window((3, 0)), ControlGrid((12, 1), (12, 1), (1.0, 1.0))
    offsets = window.offsets(torch.zeros((), dtype=torch.float64))[:, 0]
    sides = [((offsets - c) ** 2 * 0.05).clamp(max=0.3) for c in (-2.0, 2.0)]
    costs = torch.stack([sides[x >= 6] for x in range(12)], dim=1)[None, :, :, None]
    smooth, edged = (MessagePassing(weight=0.1, truncation=t)(costs, window, grid)[0, 0, :, 0] for t in (math.inf, 0.2))
    assert float((smooth[6] - smooth[5]).abs()) < 2.0
    assert float((edged[6] - edged[5]).abs()) > 3.9


def test_nothing_to_see_is_no_motion() -> None:
    found = MessagePassing()(torch.ones(1, 25, 4, 4), Window((2, 2)), ControlGrid.over((13, 13), 16))
    assert float(found.abs().max()) < 1e-3


def test_thick_voxels_count_more_and_far_neighbours_less() -> None:
    """Two points, one sure and one not: how far the other is pulled along each axis of the displacement."""
    window = Window((3, 3))
    costs = torch.stack([((window.offsets(torch.zeros(1)) - c) ** 2).sum(1) * 0.01 for c in (3.0, 0.0)], dim=1)
    pulled = {}
    for name, edges in (("cubes", (1.0, 1.0)), ("thick", (2.0, 1.0))):
        grid = ControlGrid((1, 2), (1, 2), edges)
        pulled[name] = MessagePassing(weight=0.01, pull=0.0)(costs[None, :, None], window, grid)[0, :, 0, 1]
    assert float(pulled["cubes"][0]) == pytest.approx(float(pulled["cubes"][1]), abs=1e-4)
    assert float(pulled["thick"][0]) > float(pulled["thick"][1]) + 0.2


def test_each_case_of_a_batch_comes_out_as_if_alone() -> None:
    window, grid = Window((1, 1, 1)), ControlGrid((4, 3, 5), (4, 3, 5), (1.0, 1.0, 1.0))
    costs = costs_of(3, window.count, 4, 3, 5).float()
    together = MessagePassing()(costs, window, grid)
    for k in range(3):
        assert torch.equal(together[k : k + 1], MessagePassing()(costs[k : k + 1], window, grid))


def test_bad_input_is_named() -> None:
    costs = costs_of(1, 9, 4, 4)
    with pytest.raises(ValueError, match="weights must be 2 rows"):
        min_marginals(costs, Window((1, 1)), [[0.1, 0.1]])
    with pytest.raises(ValueError, match="truncation must be"):
        min_marginals(costs, Window((1, 1)), [[0.1, 0.1]] * 2, truncation=-1)
    with pytest.raises(ValueError, match="costs must be"):
        min_marginals(costs, Window((2, 1)), [[0.1, 0.1]] * 2)
    with pytest.raises(ValueError, match="at least one sweep"):
        MessagePassing(sweeps=0)
