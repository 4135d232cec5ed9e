"""The stopping rule and the record."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.optimization import Adam, ConjugateGradient, GradientDescent, Stopping
from tests.optimization.objectives import Function, quadratic


def test_the_rule_by_hand() -> None:
    rule = Stopping(10, tolerance=0.1, patience=2)
    energies = [torch.tensor([10.0, 10.0, -10.0]), torch.tensor([9.5, 9.0, -10.5])]
    assert rule.converged(energies).tolist() == [False, False, False]
    energies.append(torch.tensor([9.2, 8.5, -12.0]))
    # 0.8 of 10 is below a tenth, 1.5 is not, 2 of 12 is not.
    assert rule.converged(energies).tolist() == [True, False, False]


def test_zero_tolerance_waits_for_a_standstill() -> None:
    rule = Stopping(10, tolerance=0.0, patience=1)
    assert rule.converged([torch.tensor([1.0, 0.0]), torch.tensor([1.0 - 1e-7, 0.0])]).tolist() == [False, True]


def test_rows_of_the_record() -> None:
    objective = quadratic(2, 4)
    start = torch.stack((torch.zeros(4, dtype=torch.float64), objective.solution()[1]))
    _, record = ConjugateGradient().minimise(objective, start, Stopping(3, 1e-12, 1))
    assert record.steps[0] == 3
    assert record.reason == ["iterations", "converged"]
    rows = record.table()
    assert [row["iteration"] for row in rows if row["case"] == 0] == [0, 1, 2, 3]
    assert len([row for row in rows if row["case"] == 1]) == record.steps[1] + 1 < 4
    assert rows[0]["energy"] == pytest.approx(float(objective.energy(start)[0]))
    seconds = [row["seconds"] for row in rows if row["case"] == 0]
    assert seconds == sorted(seconds)
    assert len(record.energies) == len(record.seconds) == 4


def test_no_iterations_return_the_start() -> None:
    start = torch.ones(1, 4, dtype=torch.float64)
    theta, record = Adam().minimise(quadratic(1, 4), start, Stopping(0))
    torch.testing.assert_close(theta, start)
    assert (record.reason, record.steps, len(record.energies)) == (["iterations"], [0], 1)


def test_patience_counts_the_best_energy_of_a_method_that_is_not_monotone() -> None:
    """Adam with a rate too large for the valley oscillates; it stops once no new best appears."""
    _, record = Adam(rate=3.0).minimise(quadratic(1, 2), torch.zeros(1, 2, dtype=torch.float64), Stopping(500, 0.0, 7))
    energies = torch.stack(record.energies)[:, 0]
    best = int(energies.argmin())
    assert record.reason == ["converged"]
    assert record.steps == [best + 7]


def test_a_wrong_gradient_is_no_descent() -> None:
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.square().sum(dim=1)

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return -gradients[0][:, None].expand(-1, 2)

    start = torch.ones(1, 2, dtype=torch.float64)
    theta, record = GradientDescent(trials=30).minimise(Function(Reversed.apply), start, Stopping(5))
    assert record.reason == ["no descent"]
    torch.testing.assert_close(theta, start)


def test_the_rule_is_checked() -> None:
    for wrong in ((-1, 0.1, 1), (1, -0.1, 1), (1, 0.1, 0)):
        with pytest.raises(ValueError, match="iterations >= 0, patience >= 1 and tolerance >= 0"):
            Stopping(*wrong)
