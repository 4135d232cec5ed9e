"""Coupled-convex regularisation against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.discrete import ControlGrid, CoupledConvex, Window
from reg_bench.discrete.coupled_convex import coupled, coupled_convex


def bowls(window: Window, centres: Tensor, bend: float = 1.0) -> Tensor:
    """Costs `(B, K, *M)` that are least at `centres (B, D, *M)`."""
    offsets = window.offsets(centres).reshape(1, window.count, -1, *(1,) * (centres.ndim - 2))
    return bend * (offsets - centres[:, None]).square().sum(2)


def test_coupling_adds_the_squared_distance_up_to_a_constant_per_point() -> None:
    window = Window((1, 2), step=2)
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(2, window.count, 3, 4, generator=generator, dtype=torch.float64)
    field = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64)
    offsets = window.offsets(costs).reshape(1, -1, 2, 1, 1)
    expected = costs + ((offsets - field[:, None]).square() * weights.reshape(2, 1, 1)).sum(2)
    found = coupled(costs, window, field, weights)
    torch.testing.assert_close(found - found[:, :1], expected - expected[:, :1])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_constant_field_is_found_as_the_alternation_says(dims: int) -> None:
    """With costs `|o - c|^2`: `v = (c + a u) / (1 + a)` for a coupling `a`, and smoothing keeps constants."""
    centre = torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64)[:dims]
    centres = centre.reshape(1, -1, *(1,) * dims).expand(1, dims, *(6, 5, 4)[:dims])
    window = Window((3,) * dims)
    found = coupled_convex(bowls(window, centres), window, (0.1, 0.5), sigma=1.0)
    first = centre / 1.1
    expected = (centre + 0.5 * first) / 1.5
    torch.testing.assert_close(found, expected.reshape(1, -1, *(1,) * dims).expand_as(found))


def test_metric_holds_back_displacements_along_thick_voxels() -> None:
    centres = torch.full((1, 2, 4, 4), 1.0, dtype=torch.float64)
    window = Window((2, 2))
    found = coupled_convex(bowls(window, centres), window, (0.25,), sigma=0.0, metric=(4.0, 1.0))
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.5, 0.8], dtype=torch.float64))


def test_neighbours_correct_a_point_that_is_misled() -> None:
    centres = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    centres[:, 0], centres[:, 1] = 1.0, -1.0
    centres[0, :, 4, 4] = torch.tensor([-2.0, 2.0])
    window = Window((2, 2))
    costs = bowls(window, centres, bend=0.02)
    found = CoupledConvex(couplings=(0.003, 0.03, 0.3), sigma=1.0)(
        costs, window, ControlGrid((9, 9), (9, 9), (1.0, 1.0))
    )
    torch.testing.assert_close(found[0, :, 4, 4], torch.tensor([1.0, -1.0], dtype=torch.float64), atol=0.4, rtol=0)


def test_smoothing_reaches_less_far_where_points_are_further_apart() -> None:
    centres = torch.zeros(1, 2, 9, 9)
    centres[0, 0, 4, 4] = 2.0
    window, grid = Window((2, 2)), ControlGrid((9, 9), (9, 9), (1.0, 3.0))
    found = CoupledConvex(couplings=(1e-6,), sigma=1.0)(bowls(window, centres), window, grid)[0, 0]
    assert float(found[3, 4]) > 5 * float(found[4, 3].abs())


def test_nothing_to_see_is_no_motion() -> None:
    found = CoupledConvex()(torch.ones(1, 25, 4, 4), Window((2, 2)), ControlGrid.over((13, 13), 16))
    assert float(found.abs().max()) < 1e-3


def test_each_case_of_a_batch_comes_out_as_if_alone() -> None:
    window, grid = Window((1, 1, 1)), ControlGrid((4, 3, 5), (4, 3, 5), (1.0, 1.0, 1.0))
    costs = torch.rand(3, window.count, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    together = CoupledConvex()(costs, window, grid)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], CoupledConvex()(costs[k : k + 1], window, grid))


def test_bad_input_is_named() -> None:
    for couplings in ((), (0.0, 0.1), (0.2, 0.1)):
        with pytest.raises(ValueError, match="couplings must ascend"):
            CoupledConvex(couplings=couplings)
    with pytest.raises(ValueError, match="sigma must be"):
        CoupledConvex(sigma=-1.0)
    with pytest.raises(ValueError, match="costs must be"):
        coupled_convex(torch.zeros(1, 9, 4, 4), Window((2, 1)), (0.1,), 1.0)
