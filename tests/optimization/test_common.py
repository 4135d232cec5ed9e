"""What holds for every optimizer: minima, independent cases, the start never made worse, NaN, shapes, messages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reg_bench.optimization import (
    BFGS,
    DFP,
    LBFGS,
    Adam,
    ConjugateGradient,
    GaussNewton,
    GradientDescent,
    LevenbergMarquardt,
    Optimizer,
    Stopping,
)
from tests.optimization.objectives import Function, Rosenbrock, quadratic, rosenbrock

GENERAL: list[Optimizer] = [
    GradientDescent(),
    ConjugateGradient(),
    BFGS(),
    DFP(),
    LBFGS(),
    Adam(rate=0.05, decay=0.99),
]
SQUARES: list[Optimizer] = [
    GaussNewton(),
    GaussNewton("matrix-free", tolerance=1e-8),
    LevenbergMarquardt(),
    LevenbergMarquardt(solver="matrix-free", tolerance=1e-8),
]
MONOTONE = [o for o in GENERAL + SQUARES if o.monotone]


def name(member: object) -> str:
    options = getattr(member, "options", None)
    return type(member).__name__ + (f"-{options.solver}" if options else "")


@pytest.mark.parametrize("optimizer", GENERAL, ids=name)
def test_a_quadratic_is_minimised(optimizer: Optimizer) -> None:
    objective = quadratic(2, 6, condition=20)
    theta, record = optimizer.minimise(objective, torch.zeros(2, 6, dtype=torch.float64), Stopping(300, 1e-14, 60))
    torch.testing.assert_close(theta, objective.solution(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        objective.energy(theta), record.energies[-1].minimum(torch.stack(record.energies).amin(0))
    )


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
def test_a_batch_equals_single_runs(optimizer: Optimizer) -> None:
    """Starts from which the cases need different steps and stop at different times."""
    start = torch.tensor([[-1.2, 1.0], [0.9, 0.8], [3.0, -4.0], [1.0, 1.0]], dtype=torch.float64)
    stopping = Stopping(12, 1e-2, 2)
    theta, record = optimizer.minimise(Rosenbrock(), start, stopping)
    assert len(set(record.steps)) > 1
    for case in range(4):
        alone, own = optimizer.minimise(Rosenbrock(), start[case : case + 1], stopping)
        torch.testing.assert_close(alone[0], theta[case], rtol=1e-6, atol=1e-6)
        assert own.reason == record.reason[case : case + 1]
        assert own.steps == record.steps[case : case + 1]
        together = torch.stack(record.energies)[: len(own.energies), case]
        torch.testing.assert_close(torch.stack(own.energies)[:, 0], together, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", MONOTONE, ids=name)
def test_the_energy_never_rises(optimizer: Optimizer) -> None:
    start = torch.tensor([[-1.2, 1.0, 0.3], [5.0, -4.0, 2.0]], dtype=torch.float64)
    theta, record = optimizer.minimise(Rosenbrock(), start, Stopping(30, 0.0, 30))
    energies = torch.stack(record.energies)
    assert (energies.diff(dim=0) <= 0).all()
    assert (energies[-1] < 0.1 * energies[0]).all()
    torch.testing.assert_close(rosenbrock(theta), energies[-1])


@pytest.mark.parametrize("optimizer", [Adam(rate=100.0), GradientDescent(1e3, line_search=False)], ids=name)
def test_others_return_nothing_worse_than_the_start(optimizer: Optimizer) -> None:
    start = torch.tensor([[-1.2, 1.0], [1.01, 1.02]], dtype=torch.float64)
    theta, record = optimizer.minimise(Function(rosenbrock), start, Stopping(10, 0.0, 10))
    assert (torch.stack(record.energies)[1:] > record.energies[0]).any()
    assert (rosenbrock(theta) <= record.energies[0]).all()


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
def test_energies_that_are_not_finite_are_no_descent(optimizer: Optimizer) -> None:
    """A wall of NaN just beyond the start of case 0, a start in it for case 1, and a free case 2."""

    class Walled(Rosenbrock):
        def residuals(self, theta: Tensor) -> Tensor:
            wall = torch.tensor([-1.25, -9.0, -torch.inf], dtype=theta.dtype)
            return torch.where(theta[:, :1] < wall[:, None], torch.nan, super().residuals(theta))

    start = torch.tensor([[-1.2, 3.0], [-10.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)
    theta, record = optimizer.minimise(Walled(), start, Stopping(20, 0.0, 20))
    assert theta.isfinite().all()
    torch.testing.assert_close(theta[1], start[1])
    assert (record.reason[1], record.steps[1]) == ("no descent", 0)
    assert (rosenbrock(theta)[[0, 2]] <= rosenbrock(start)[[0, 2]]).all()
    alone, _ = optimizer.minimise(Rosenbrock(), start[2:], Stopping(20, 0.0, 20))
    torch.testing.assert_close(theta[2], alone[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
def test_the_minimum_itself_has_converged(optimizer: Optimizer) -> None:
    start = torch.ones(1, 2, dtype=torch.float64)
    theta, record = optimizer.minimise(Rosenbrock(), start, Stopping(50, 1e-6, 2))
    torch.testing.assert_close(theta, start)
    assert record.reason == ["converged"]


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_of_any_shape_and_dtype(optimizer: Optimizer, dtype: torch.dtype) -> None:
    class Fields(Rosenbrock):
        def residuals(self, theta: Tensor) -> Tensor:
            return super().residuals(theta.flatten(1)[:, :4])

    start = torch.full((2, 2, 3, 2), 0.5, dtype=dtype)
    kept = start.clone()
    theta, record = optimizer.minimise(Fields(), start, Stopping(10))
    assert theta.shape == start.shape
    assert theta.dtype == dtype
    assert not theta.requires_grad
    torch.testing.assert_close(start, kept, rtol=0, atol=0)
    assert (record.energies[-1] < record.energies[0]).all()
    # What the energy does not depend on stays where it was.
    torch.testing.assert_close(theta.flatten(1)[:, 4:], start.flatten(1)[:, 4:])


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
def test_the_scale_of_the_energy_does_not_matter(optimizer: Optimizer) -> None:
    """Means over a volume have gradients of 1e-8; nothing may compare them with absolute numbers."""

    class Scaled(Rosenbrock):
        def residuals(self, theta: Tensor) -> Tensor:
            return 2.0**-20 * super().residuals(theta)

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    large, _ = optimizer.minimise(Rosenbrock(), start, Stopping(10, 0.0, 10))
    small, _ = optimizer.minimise(Scaled(), start, Stopping(10, 0.0, 10))
    torch.testing.assert_close(small, large, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", [BFGS(limit=5), DFP(limit=5)], ids=name)
def test_dense_matrices_have_a_limit(optimizer: Optimizer) -> None:
    with pytest.raises(ValueError, match="at most 5 parameters per case, got 6"):
        optimizer.minimise(quadratic(1, 6), torch.zeros(1, 6, dtype=torch.float64))


@pytest.mark.parametrize("optimizer", SQUARES, ids=name)
def test_squares_are_needed(optimizer: Optimizer) -> None:
    with pytest.raises(ValueError, match="needs a LeastSquares objective, got Quadratic"):
        optimizer.minimise(quadratic(1, 2), torch.zeros(1, 2, dtype=torch.float64))


def test_parameters_and_energies_are_checked() -> None:
    with pytest.raises(ValueError, match=r"floating point \(B, \*P\)"):
        Adam().minimise(Rosenbrock(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"energy must have shape \(B,\)"):
        Adam().minimise(Function(lambda x: x.sum()), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="does not depend on theta"):
        Adam().minimise(Function(lambda x: torch.zeros(2)), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: GradientDescent(size=0), "size > 0"),
        (lambda: GradientDescent(growth=0.5), "growth >= 1"),
        (lambda: ConjugateGradient(curvature=0.7), r"curvature in \(0, 0.5\)"),
        (lambda: Adam(rate=-1), "rate > 0"),
        (lambda: Adam(decay=0), r"decay in \(0, 1\]"),
        (lambda: Adam(epsilon=-1), "epsilon >= 0"),
        (lambda: BFGS(curvature=1.0), r"curvature in \(1e-4, 1\)"),
        (lambda: DFP(size=-1), "size > 0"),
        (lambda: LBFGS(memory=0), "memory must be at least 1"),
        (lambda: GaussNewton("dense"), "auto, explicit or matrix-free"),  # type: ignore[arg-type]
        (lambda: GaussNewton(tolerance=2.0), r"tolerance in \(0, 1\)"),
        (lambda: GaussNewton(trials=0), "trials must be at least 1"),
        (lambda: LevenbergMarquardt(damping=0), "damping > 0"),
    ],
)
def test_options_are_checked(build: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize("optimizer", GENERAL + SQUARES, ids=name)
def test_gradients_are_switched_on_where_they_are_needed(optimizer: Optimizer) -> None:
    with torch.no_grad():
        start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
        _, record = optimizer.minimise(Rosenbrock(), start, Stopping(5))
    assert float(record.energies[-1]) < float(record.energies[0])
    assert not any(energy.requires_grad for energy in record.energies)
