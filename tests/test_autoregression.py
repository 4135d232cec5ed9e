"""Autoregression: known processes, and SciPy's filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from reg_bench.autoregression import Autoregression, fit_autoregression


def test_recovers_the_coefficients_of_a_process() -> None:
    rng = np.random.default_rng(0)
    a = [1.5, -0.9, 0.1]
    x = lfilter([1.0], [1.0, *(-c for c in a)], rng.standard_normal((4000, 2)), axis=0)
    found = fit_autoregression(torch.from_numpy(x), 3, ridge=0.0)
    for i in range(2):
        np.testing.assert_allclose(found.matrices[:, i, i].numpy(), a, atol=0.05)
    assert not found.matrices[:, 0, 1].any()
    np.testing.assert_allclose(found.noise.numpy(), np.eye(2), atol=0.06)


def test_coupled_recovers_a_rotation() -> None:
    A = 0.98 * torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]], dtype=torch.float64)
    x = [torch.tensor([1.0, 0.5], dtype=torch.float64)]
    for _ in range(30):
        x.append(A @ x[-1])
    series = torch.stack(x)
    found = fit_autoregression(series[:20], 1, ridge=0.0, coupled=True)
    torch.testing.assert_close(found.matrices[0], A, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.predict(series[:20], 11), series[20:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("coupled", [False, True])
def test_a_sine_goes_on(coupled: bool) -> None:
    t = torch.arange(60, dtype=torch.float64)
    series = torch.stack([(0.3 * t).sin(), 2 * (0.3 * t + 1).cos()], dim=1)
    found = fit_autoregression(series[:30], 2, ridge=1e-12, coupled=coupled).stable()
    torch.testing.assert_close(found.predict(series[:30], 30), series[30:], rtol=0, atol=1e-3)


def test_what_grows_is_damped() -> None:
    explosive = Autoregression(torch.tensor([1.8, -0.5]).reshape(2, 1, 1).double(), torch.eye(1).double())
    assert torch.linalg.eigvals(explosive.companion()).abs().max() > 1.1
    damped = explosive.stable()
    assert torch.linalg.eigvals(damped.companion()).abs().max() == pytest.approx(1, abs=1e-9)
    calm = Autoregression(0.5 * explosive.matrices, explosive.noise)
    assert calm.stable() is calm


def test_ridge_is_that_of_the_normal_equations() -> None:
    g = torch.Generator().manual_seed(0)
    series = torch.randn(12, 1, generator=g, dtype=torch.float64)
    found = fit_autoregression(series, 2, ridge=0.3)
    design = torch.cat([series[1:-1], series[:-2]], dim=1)
    weight = 0.3 * design.square().mean() * len(design)
    expected = torch.linalg.solve(design.mT @ design + weight * torch.eye(2).double(), design.mT @ series[2:])
    torch.testing.assert_close(found.matrices[:, 0], expected, rtol=0, atol=1e-12)
    assert not fit_autoregression(torch.zeros(5, 2), 2).matrices.any()


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="longer than the order"):
        fit_autoregression(torch.ones(3, 1), 3)
    with pytest.raises(ValueError, match="2 values of the past"):
        fit_autoregression(torch.randn(8, 1), 2).predict(torch.ones(1, 1), 1)
