"""Line searches: their conditions, each case with its own step, few evaluations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.optimization.algebra import dot
from reg_bench.optimization.line_search import Point, backtrack
from reg_bench.optimization.wolfe import wolfe
from tests.optimization.objectives import Function, quadratic, rosenbrock

ACTIVE = torch.ones(4, dtype=torch.bool)


def wavy(x: Tensor) -> Tensor:
    """Many local minima along the way."""
    return (x.square() / 10 + (3 * x).sin()).sum(dim=1)


def start_of(objective: Function, theta: Tensor) -> tuple[Point, Tensor, Tensor]:
    point = Point(theta, *objective.energy_and_gradient(theta))
    direction = -point.gradient
    return point, direction, dot(point.gradient, direction)


@pytest.mark.parametrize("function", [rosenbrock, wavy])
@pytest.mark.parametrize("first", [1e-6, 1e-2, 1.0, 1e3])
def test_strong_wolfe_conditions(function: object, first: float) -> None:
    objective = Function(function)  # type: ignore[arg-type]
    theta = torch.tensor([[-1.2, 1.0], [2.0, 2.0], [0.3, -4.0], [7.0, 5.0]], dtype=torch.float64)
    point, direction, slope = start_of(objective, theta)
    move = wolfe(objective, point, direction, torch.full((4,), first, dtype=torch.float64), ACTIVE, 0.5, 40)
    assert move.found.all()
    assert (move.point.energy <= point.energy + 1e-4 * move.step * slope).all()
    assert (dot(move.point.gradient, direction).abs() <= 0.5 * slope.abs()).all()
    torch.testing.assert_close(move.point.theta, theta + move.step[:, None] * direction)
    energy, gradient = objective.energy_and_gradient(move.point.theta)
    torch.testing.assert_close(move.point.energy, energy)
    torch.testing.assert_close(move.point.gradient, gradient)


@pytest.mark.parametrize("first", [1e-3, 1.0, 1e4])
def test_armijo_condition(first: float) -> None:
    objective = Function(rosenbrock)
    theta = torch.tensor([[-1.2, 1.0], [2.0, 2.0], [0.3, -4.0], [1.0, 1.0]], dtype=torch.float64)
    point, direction, slope = start_of(objective, theta)
    steps = first * torch.tensor([1.0, 1e-3, 1e-5, 1.0], dtype=torch.float64)
    move = backtrack(objective, point, direction, steps, ACTIVE, trials=40)
    # The last case stands at the minimum.
    assert move.found.tolist() == [True, True, True, False]
    assert move.flat.tolist() == [False, False, False, True]
    assert (move.point.energy <= point.energy + 1e-4 * move.step * slope).all()
    energy, gradient = objective.energy_and_gradient(move.point.theta)
    torch.testing.assert_close(move.point.energy, energy)
    torch.testing.assert_close(move.point.gradient, gradient)


def test_a_good_first_step_costs_one_evaluation() -> None:
    objective = quadratic(3, 2, condition=1.0)
    point = Point(torch.zeros(3, 2, dtype=torch.float64), *objective.energy_and_gradient(torch.zeros(3, 2).double()))
    for search in (backtrack, wolfe):
        objective.evaluations = 0
        ones = torch.ones(3, dtype=torch.float64)
        move = search(objective, point, -point.gradient, ones, ACTIVE[:3])
        assert objective.evaluations == 1
        torch.testing.assert_close(move.point.theta, objective.solution())


def test_a_quadratic_takes_two_trials_whatever_the_first() -> None:
    objective = quadratic(2, 5)
    point = Point(torch.zeros(2, 5, dtype=torch.float64), *objective.energy_and_gradient(torch.zeros(2, 5).double()))
    direction = -point.gradient
    exact = dot(direction, direction) / torch.einsum("bi,bij,bj->b", direction, objective.matrix, direction)
    for factor in (0.2, 3.0):
        objective.evaluations = 0
        move = wolfe(objective, point, direction, factor * exact, ACTIVE[:2], curvature=1e-8)
        assert objective.evaluations == 2
        torch.testing.assert_close(move.step, exact)


def test_walls_of_nan_are_backed_away_from() -> None:
    objective = Function(lambda x: torch.where(x[:, 0] > 0.3, torch.nan, (x[:, 0] - 1).square()))
    theta = torch.zeros(1, 1, dtype=torch.float64)
    point, direction, _ = start_of(objective, theta)
    for search in (backtrack, wolfe):
        move = search(objective, point, direction, torch.ones(1, dtype=torch.float64), ACTIVE[:1])
        assert move.found.all()
        assert 0 < float(move.point.theta) <= 0.3
        assert move.point.energy.isfinite().all()
        assert move.point.gradient.isfinite().all()


def test_cases_that_are_not_active_stay() -> None:
    objective = Function(rosenbrock)
    theta = torch.tensor([[-1.2, 1.0], [2.0, 2.0]], dtype=torch.float64)
    point, direction, _ = start_of(objective, theta)
    for search in (backtrack, wolfe):
        ones = torch.ones(2, dtype=torch.float64)
        move = search(objective, point, direction, ones, torch.tensor([True, False]))
        assert move.found.tolist() == [True, False]
        assert move.step[1] == 0
        torch.testing.assert_close(move.point.theta[1], theta[1])


def test_an_ascending_direction_finds_nothing() -> None:
    objective = Function(rosenbrock)
    point, direction, _ = start_of(objective, torch.tensor([[-1.2, 1.0]], dtype=torch.float64))
    for search in (backtrack, wolfe):
        move = search(objective, point, -direction, torch.ones(1, dtype=torch.float64), ACTIVE[:1])
        assert not move.found.any()
        assert not move.flat.any()
