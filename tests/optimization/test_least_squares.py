"""Gauss–Newton and Levenberg–Marquardt: one step for linear problems, limits, SciPy, both solvers alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, optimize
from torch import Tensor

from reg_bench.optimization import GaussNewton, Jacobi, LeastSquares, LevenbergMarquardt, Optimizer, Smoothing, Stopping
from reg_bench.optimization.jacobi import estimated_diagonal
from reg_bench.optimization.normal_equations import NormalOptions, Solver, conjugate_gradients, normal_equations
from tests.optimization.objectives import Linear, Rosenbrock, linear, quadratic

SOLVERS: list[Solver] = ["explicit", "matrix-free"]
ONE = Stopping(1)


def zeros(batch: int, count: int) -> Tensor:
    return torch.zeros(batch, count, dtype=torch.float64)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_gauss_newton_solves_linear_least_squares_in_one_step(solver: Solver, weight: float) -> None:
    objective = linear(3, 12, 5, weight)
    theta, _ = GaussNewton(solver, tolerance=1e-12).minimise(objective, zeros(3, 5), ONE)
    torch.testing.assert_close(theta, objective.solution(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_singular_system_takes_the_shortest_step(solver: Solver) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(1, 3, 6, generator=generator, dtype=torch.float64)
    data = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    theta, _ = GaussNewton(solver, tolerance=1e-12).minimise(Linear(matrix, data), zeros(1, 6), ONE)
    expected = torch.linalg.pinv(matrix[0]) @ data[0]
    torch.testing.assert_close(theta[0], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_limits_of_the_damping(solver: Solver) -> None:
    """eta -> 0: the step of Gauss–Newton. eta large: along the negative gradient, of length |g| / eta."""
    start = torch.tensor([[-0.5, 0.6], [0.8, 0.9]], dtype=torch.float64)
    active = torch.ones(2, dtype=torch.bool)
    system = normal_equations(Rosenbrock(), start, active, NormalOptions(solver, tolerance=1e-12))
    _, gradient = Rosenbrock().energy_and_gradient(start)
    torch.testing.assert_close(system.gradient, gradient)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: Rosenbrock().residuals(x[None])[0]))(start)
    newton = -torch.linalg.solve(2 * jacobian.mT @ jacobian, gradient[..., None])[..., 0]
    small, large = torch.full((2,), 1e-10, dtype=torch.float64), torch.full((2,), 1e8, dtype=torch.float64)
    torch.testing.assert_close(system.solve(small), newton, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(system.solve(large), -gradient / 1e8, rtol=1e-4, atol=0)
    first, _ = LevenbergMarquardt(1e-12, solver, tolerance=1e-12).minimise(linear(2, 9, 4), zeros(2, 4), ONE)
    torch.testing.assert_close(first, linear(2, 9, 4).solution(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("method", [GaussNewton, LevenbergMarquardt])
def test_rosenbrock_as_scipy(method: Any, solver: Solver) -> None:
    start = np.array([-1.2, 1.0])
    residuals = Rosenbrock()
    theirs = optimize.least_squares(lambda x: residuals.residuals(torch.from_numpy(x)[None])[0].numpy(), start)
    theta, record = method(solver=solver, tolerance=1e-10).minimise(
        residuals, torch.from_numpy(start)[None], Stopping(40, 0.0, 40)
    )
    np.testing.assert_allclose(theta[0].numpy(), theirs.x, atol=1e-6)
    assert float(record.energies[-1]) < 1e-12


def test_exponentials_are_fitted_from_afar() -> None:
    """`y = a exp(b t)` from noisy data, where plain Gauss–Newton steps overshoot; against SciPy's `lm`."""
    t = torch.linspace(0, 2, 30, dtype=torch.float64)
    noise = 0.05 * torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = 2.0 * (-1.3 * t).exp() + noise

    class Decay(LeastSquares):
        def residuals(self, theta: Tensor) -> Tensor:
            return theta[:, :1] * (theta[:, 1:] * t).exp() - data

    def numpy_residuals(x: Any) -> Any:
        return x[0] * np.exp(x[1] * t.numpy()) - data.numpy()

    theirs = optimize.least_squares(numpy_residuals, [10.0, 1.0], method="lm")
    start = torch.tensor([[10.0, 1.0]], dtype=torch.float64)
    for optimizer in (LevenbergMarquardt(), GaussNewton()):
        theta, _ = optimizer.minimise(Decay(), start, Stopping(60, 1e-14, 5))
        np.testing.assert_allclose(theta[0].numpy(), theirs.x, rtol=1e-5)


def test_rejected_steps_raise_the_damping() -> None:
    """A residual whose linearisation promises far too much: steps are rejected until the damping is high enough."""

    class Steep(LeastSquares):
        def residuals(self, theta: Tensor) -> Tensor:
            return torch.atan(10 * theta)

    start = torch.tensor([[2.0]], dtype=torch.float64)
    optimizer = LevenbergMarquardt(damping=1e-6, trials=30)
    before = optimizer.start(Steep(), start.clone())
    after = optimizer.step(Steep(), before)
    curvature = 2 * (10 / (1 + 400)) ** 2
    assert float(after.eta) > 1e-6 * curvature
    assert float(after.energy) < float(before.energy)


@pytest.mark.parametrize("method", [GaussNewton, LevenbergMarquardt])
def test_the_choice_follows_the_number_of_parameters(method: Any) -> None:
    """Above 64 parameters no matrix is formed: the Jacobian is pushed through fewer vectors than there are columns."""

    class Counted(Linear):
        pushes = 0

        def linearise(self, theta: Tensor) -> Any:
            system = super().linearise(theta)

            def push(v: Tensor) -> Tensor:
                self.pushes += 1
                return system.push(v)

            return type(system)(system.residuals, push, system.pull)

    for count, formed in ((64, True), (65, False)):
        made = linear(1, 80, count, 1.0)
        objective = Counted(made.matrix, made.data, made.weight)
        optimizer: Optimizer = method(iterations=7)
        optimizer.minimise(objective, zeros(1, count), ONE)
        assert (objective.pushes >= count) == formed
        assert objective.pushes == count if formed else objective.pushes <= 8


def test_conjugate_gradients_per_case() -> None:
    problem = quadratic(3, 8, condition=300)
    scale = torch.tensor([1.0, 1e-6, 0.0], dtype=torch.float64)[:, None]

    def product(v: Tensor) -> Tensor:
        return (problem.matrix @ v[..., None])[..., 0]

    x = conjugate_gradients(product, scale * problem.right, 8, 1e-10)
    torch.testing.assert_close(x, scale * problem.solution(), rtol=1e-6, atol=1e-14)


def test_the_diagonal_is_estimated() -> None:
    """Exact where channels couple but voxels do not, as for the image part of a dense field."""
    gradient = torch.randn(2, 3, 4, 5, dtype=torch.float64)

    def product(v: Tensor) -> Tensor:
        return gradient * (gradient * v).sum(dim=1, keepdim=True)

    torch.testing.assert_close(estimated_diagonal(product, gradient, 1, 0), gradient.square())


class Field(LeastSquares):
    """A dense field pulled by forces of very different strength and held by diffusion."""

    def __init__(self, weight: float, spread: float) -> None:
        generator = torch.Generator().manual_seed(0)
        strength = torch.randn(1, 2, 14, 12, generator=generator, dtype=torch.float64)
        self.strength = 10 ** (spread * strength)
        self.goal = torch.randn(1, 2, 14, 12, generator=generator, dtype=torch.float64)
        self.weight = weight

    def residuals(self, theta: Tensor) -> Tensor:
        return (self.strength * (theta - self.goal)).flatten(1)

    def penalty(self, theta: Tensor) -> Tensor:
        pairs = (theta.diff(dim=2).square().flatten(1), theta.diff(dim=3).square().flatten(1))
        return self.weight * torch.cat(pairs, dim=1).sum(dim=1)


@pytest.mark.parametrize(
    ("objective", "preconditioner"),
    [(Field(weight=1e-3, spread=0.5), Jacobi(probes=4)), (Field(weight=100.0, spread=0.1), Smoothing())],
)
def test_preconditioners_speed_up(objective: Field, preconditioner: Jacobi | Smoothing) -> None:
    """The same solution, and far closer to it after as many iterations."""
    start = torch.zeros(1, 2, 14, 12, dtype=torch.float64)
    energy = {}
    for iterations in (8, 250):
        for chosen in (None, preconditioner):
            optimizer = GaussNewton("matrix-free", iterations, 1e-10, chosen)
            _, record = optimizer.minimise(objective, start, ONE)
            energy[iterations, chosen] = float(record.energies[-1])
    least = energy[250, preconditioner]
    assert energy[250, None] == pytest.approx(least, rel=1e-3)
    assert energy[8, preconditioner] - least < 0.1 * (energy[8, None] - least)


@pytest.mark.parametrize("order", [1, 2])
def test_smoothing_inverts_a_screened_laplacian(order: int) -> None:
    """`3 v + sum_a w_a (-Laplacian_a)^order v` with Neumann borders, anisotropic; another weight in each case."""
    weights = np.array([[0.5, 2.0], [4.0, 0.1]])

    def product(v: Tensor) -> Tensor:
        out = 3 * v.numpy()
        for case in range(2):
            for axis in range(2):
                f = v[case].numpy()
                for _ in range(order):
                    f = -ndimage.convolve1d(f, [1, -2, 1], axis=axis + 1, mode="nearest")
                out[case] += weights[case, axis] * f
        return torch.from_numpy(out)

    v = torch.randn(2, 2, 9, 12, dtype=torch.float64)
    inverse = Smoothing(order).bind(product, v)
    torch.testing.assert_close(inverse(product(v)), v, rtol=1e-8, atol=1e-8)


def test_preconditioners_check() -> None:
    with pytest.raises(ValueError, match="probes must be at least 1"):
        Jacobi(0)
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        Smoothing(3)
    with pytest.raises(ValueError, match="parameters on a grid"):
        Smoothing().bind(lambda v: v, torch.zeros(1, 12))
