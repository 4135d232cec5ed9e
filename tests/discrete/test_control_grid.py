"""Control grids and unary costs, against sums over voxels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reg_bench.cost_volume import difference_volume
from reg_bench.discrete import ControlGrid, Window, control_grid, unary_costs


def features(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fixed, moving = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def test_cells_hold_as_many_voxels_in_2d_and_3d() -> None:
    assert ControlGrid.over((65, 65), 64).step_voxels == (8.0, 8.0)
    assert ControlGrid.over((65, 65, 65), 64).step_voxels == (4.0, 4.0, 4.0)
    assert ControlGrid.over((17, 9), 1).shape == (17, 9)


def test_points_have_the_same_distance_in_space_but_never_below_a_voxel() -> None:
    grid = ControlGrid.over((97, 97, 33), 32, edges=(1.0, 1.0, 4.0))
    assert grid.step_voxels[0] == pytest.approx(grid.step_voxels[1])
    assert grid.step_voxels[0] == pytest.approx(4 * grid.step_voxels[2], rel=0.1)
    assert math.prod(grid.step_voxels) == pytest.approx(32, rel=0.1)
    thick = ControlGrid.over((97, 97, 10), 36, edges=(1.4, 1.4, 10.0))
    assert thick.step_voxels == (6.0, 6.0, 1.0)
    assert thick.closeness == pytest.approx((1.0, 1.0, 6 * 1.4 / 10))


def test_axes_of_one_voxel_have_one_point() -> None:
    grid = ControlGrid.over((33, 1, 33), 16)
    assert grid.shape == (9, 1, 9)
    assert grid.closeness == (1.0, 1.0, 1.0)
    assert ControlGrid.over((1, 1), 4).shape == (1, 1)


def cell_weights(n: int, m: int) -> Tensor:
    """Weights `(m, n)` of the voxels in the cells of the points, by looking at each pair."""
    weights = torch.zeros(m, n, dtype=torch.float64)
    for j in range(m):
        for x in range(n):
            distance = abs(x * (m - 1) / (n - 1) - j) if n > 1 else 0.0
            weights[j, x] = max(0.0, 1 - distance)
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("at_once", [1 << 24, 200])
@pytest.mark.parametrize(
    ("spatial", "radius", "step"), [((11, 8), (2, 1), 1), ((7, 6, 9), (1, 2, 1), 1), ((9, 1, 8), (1, 0, 1), 2)]
)
def test_costs_are_means_over_cells(
    spatial: tuple[int, ...], radius: tuple[int, ...], step: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_grid, "_CPU_COSTS", at_once)
    fixed, moving = features(2, 3, *spatial)
    grid, window = ControlGrid.over(spatial, 3), Window(radius, step)
    expected = difference_volume(fixed, moving, radius, step)
    for axis, (n, m) in enumerate(zip(spatial, grid.shape, strict=True), start=2):
        expected = torch.tensordot(cell_weights(n, m), expected, dims=([1], [axis])).movedim(0, axis)
    torch.testing.assert_close(unary_costs(fixed, moving, window, grid), expected)


def test_each_case_of_a_batch_comes_out_as_if_alone() -> None:
    fixed, moving = (t.float() for t in features(3, 4, 12, 9, 10))
    grid, window = ControlGrid.over((12, 9, 10), 8), Window((2, 1, 1))
    together = unary_costs(fixed, moving, window, grid)
    for k in range(3):
        assert torch.equal(together[k : k + 1], unary_costs(fixed[k : k + 1], moving[k : k + 1], window, grid))


def test_a_shift_costs_nothing_and_all_else_something() -> None:
    fixed, _ = features(1, 3, 20, 21)
    moving = torch.roll(fixed, (1, -2), (2, 3))
    window = Window((2, 2))
    costs = unary_costs(fixed, moving, window, ControlGrid.over((20, 21), 16))[..., 1:-1, 2:-1]
    best = window.offsets(costs).tolist().index([1, -2])
    assert float(costs[:, best].abs().max()) < 1e-12
    others = torch.cat([costs[:, :best], costs[:, best + 1 :]], dim=1)
    assert float(others.min()) > 0.05


def test_bad_input_is_named() -> None:
    fixed, moving = features(1, 3, 9, 8)
    with pytest.raises(ValueError, match="must fit"):
        unary_costs(fixed, moving, Window((1, 1)), ControlGrid.over((9, 9), 4))
    with pytest.raises(ValueError, match="must fit"):
        unary_costs(fixed, moving, Window((1, 1, 1)), ControlGrid.over((9, 8), 4))
    with pytest.raises(ValueError, match="cell_voxels must be"):
        ControlGrid.over((9, 9), 0.5)
    with pytest.raises(ValueError, match="positive lengths"):
        ControlGrid.over((9, 9), 4, edges=(1.0, 0.0))
