"""What each general method promises: n steps, secant condition, the two loops, Adam's formula, SciPy's minima."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize

from reg_bench.optimization import BFGS, DFP, LBFGS, Adam, ConjugateGradient, GradientDescent, Optimizer, Stopping
from reg_bench.optimization.bfgs import bfgs_update
from reg_bench.optimization.dfp import dfp_update
from reg_bench.optimization.lbfgs import Pair, two_loop
from tests.optimization.objectives import Function, quadratic, rosenbrock


@pytest.mark.parametrize("count", [2, 5, 12])
def test_conjugate_gradients_take_n_steps_for_a_quadratic(count: int) -> None:
    objective = quadratic(3, count, condition=100)
    start = torch.zeros(3, count, dtype=torch.float64)
    exact = ConjugateGradient(curvature=1e-9)
    theta, _ = exact.minimise(objective, start, Stopping(count, 0.0, count))
    torch.testing.assert_close(theta, objective.solution(), atol=1e-6, rtol=1e-6)
    short, _ = exact.minimise(objective, start, Stopping(count - 1, 0.0, count))
    assert float((short - objective.solution()).abs().max()) > 1e-3


@pytest.mark.parametrize("optimizer", [BFGS(curvature=1e-3), DFP(curvature=1e-3), LBFGS(curvature=1e-3)])
def test_quasi_newton_with_a_nearly_exact_search_takes_about_n_steps(optimizer: Optimizer) -> None:
    """In exact arithmetic all of Broyden's class are conjugate gradients then: Nocedal & Wright, theorem 6.4."""
    objective = quadratic(2, 6, condition=100)
    theta, _ = optimizer.minimise(objective, torch.zeros(2, 6, dtype=torch.float64), Stopping(9, 0.0, 9))
    torch.testing.assert_close(theta, objective.solution(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("update", [bfgs_update, dfp_update])
def test_secant_condition_and_positive_definiteness(update: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    inverse = torch.eye(5, dtype=torch.float64).repeat(50, 1, 1)
    for _ in range(4):
        s, y = torch.randn(2, 50, 5, generator=generator, dtype=torch.float64)
        # Turned so that the curvature along the move is positive.
        y = y * (s * y).sum(dim=1, keepdim=True).sign()
        inverse = update(inverse, s, y)
        torch.testing.assert_close(inverse, inverse.mT)
        scale = inverse.flatten(1).norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True)
        found = (inverse @ y[..., None])[..., 0]
        torch.testing.assert_close(found / scale, s / scale, atol=1e-10, rtol=0)
    values = torch.linalg.eigvalsh(inverse)
    # Three updates by random pairs leave condition numbers that rounding does not survive in a few of the 50.
    assert (values > 0).all(dim=1).double().mean() > 0.9


def test_bfgs_and_dfp_are_dual() -> None:
    """Exchanging s and y and the Hessian with its inverse turns one update into the other."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    inverse = half @ half.mT + torch.eye(4, dtype=torch.float64)
    s = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    y = s + 0.2 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    other = torch.linalg.inv(dfp_update(torch.linalg.inv(inverse), y, s))
    torch.testing.assert_close(bfgs_update(inverse, s, y), other, rtol=1e-9, atol=1e-9)


def test_the_two_loops_are_the_product_with_the_bfgs_matrix() -> None:
    generator = torch.Generator().manual_seed(2)
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    inverse = torch.eye(6, dtype=torch.float64) * scale[:, None, None]
    pairs = []
    for k in range(4):
        s = torch.randn(2, 6, generator=generator, dtype=torch.float64)
        y = s + 0.3 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
        updated = bfgs_update(inverse, s, y)
        rho = 1 / (s * y).sum(dim=1)
        if k == 1:  # Case 1 skips this pair.
            updated[1], rho[1] = inverse[1], 0.0
        inverse = updated
        pairs.append(Pair(s.reshape(2, 2, 3), y.reshape(2, 2, 3), rho))
    gradient = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    expected = (inverse @ gradient.flatten(1)[..., None]).reshape(2, 2, 3)
    torch.testing.assert_close(two_loop(gradient, pairs, scale), expected)


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [(ConjugateGradient(), "CG"), (BFGS(), "BFGS"), (DFP(), "BFGS"), (LBFGS(), "L-BFGS-B")],
)
def test_rosenbrock_as_scipy(optimizer: Optimizer, method: str) -> None:
    """The same minimum from the same start, at no more than twice SciPy's iterations (DFP: five times BFGS')."""
    start = np.array([-1.2, 1.0, -0.5, 0.8])
    theirs = optimize.minimize(optimize.rosen, start, jac=optimize.rosen_der, method=method, tol=1e-9)
    most = (5 if isinstance(optimizer, DFP) else 2) * theirs.nit
    theta, record = optimizer.minimise(Function(rosenbrock), torch.from_numpy(start)[None], Stopping(most, 0.0, most))
    np.testing.assert_allclose(theta[0].numpy(), theirs.x, atol=1e-4)
    assert float(record.energies[-1]) < 1e-8


def test_adam_is_torchs_adam() -> None:
    objective = quadratic(1, 5)
    ours, record = Adam(rate=0.1, decay=0.5, decay_every=4, epsilon=0.0).minimise(
        objective, torch.zeros(1, 5, dtype=torch.float64), Stopping(12, 0.0, 12)
    )
    theirs = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.1, eps=0.0)
    schedule = torch.optim.lr_scheduler.StepLR(adam, step_size=4, gamma=0.5)
    for _ in range(12):
        adam.zero_grad()
        objective.energy(theirs).sum().backward()
        adam.step()
        schedule.step()
    assert int(torch.stack(record.energies)[:, 0].argmin()) == 12
    torch.testing.assert_close(ours, theirs.detach())


def test_the_first_step_moves_the_fastest_parameter_by_the_size() -> None:
    for scale in (1e-6, 1.0):

        def bowl(x: torch.Tensor, scale: float = scale) -> torch.Tensor:
            return scale * ((x - 100) * torch.tensor([1.0, 0.5])).square().sum(dim=1)

        theta, _ = GradientDescent(size=0.5).minimise(Function(bowl), torch.zeros(1, 2), Stopping(1))
        torch.testing.assert_close(theta, torch.tensor([[0.5, 0.125]]))


def test_constant_steps_follow_the_formula() -> None:
    objective = quadratic(1, 3, condition=4)
    theta, _ = GradientDescent(size=0.1, line_search=False).minimise(
        objective, torch.zeros(1, 3, dtype=torch.float64), Stopping(4, 0.0, 4)
    )
    x = torch.zeros(3, dtype=torch.float64)
    tau = 0.1 / objective.right[0].abs().max()
    for _ in range(4):
        x = x - tau * (objective.matrix[0] @ x - objective.right[0])
    torch.testing.assert_close(theta[0], x)
