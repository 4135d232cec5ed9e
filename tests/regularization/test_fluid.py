"""The smoothing of the viscous fluid against its equation, written out with shifted arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.regularization import Fluid
from tests.regularization.polynomials import Array, edges, spacing_of


def operator(v: Array, h: Array, mu: float, lam: float, mass: float) -> Array:
    """`mass v - mu Laplacian v - (mu + lam) grad div v` on a periodic grid, physical components `(D, *S)`."""
    dims = v.shape[0]

    def central(f: Array, axis: int) -> Array:
        return (np.roll(f, -1, axis) - np.roll(f, 1, axis)) / (2 * h[axis])

    def laplacian(f: Array) -> Array:
        return sum(
            ((np.roll(f, -1, axis) - 2 * f + np.roll(f, 1, axis)) / h[axis] ** 2 for axis in range(dims)),
            np.zeros_like(f),
        )

    divergence = sum((central(v[c], c) for c in range(dims)), np.zeros_like(v[0]))
    parts = [mass * v[c] - mu * laplacian(v[c]) - (mu + lam) * central(divergence, c) for c in range(dims)]
    return np.stack(parts)


@pytest.mark.parametrize(("shape", "spacing"), [((8, 7), (1.0, 1.0)), ((5, 6, 7), (0.8, 1.3, 2.0))])
def test_the_velocity_solves_the_equation(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    fluid = Fluid(0.9, 0.6, mass=0.05)
    force = torch.randn(2, len(shape), *shape, dtype=torch.float64)
    v = fluid.smooth(force, spacing_of(spacing, 2)).numpy()
    h = edges(spacing)
    scale = h.reshape(-1, *(1,) * len(shape))
    for case in range(2):
        back = operator(v[case] * scale, h, 0.9, 0.6, 0.05) / scale
        np.testing.assert_allclose(back, force[case].numpy(), atol=1e-10)


def test_smoothing_lowers_the_energy_and_keeps_the_mean() -> None:
    fluid = Fluid(1.0, 0.0, mass=1.0)
    force = torch.randn(1, 3, 10, 9, 8)
    v = fluid.smooth(force)
    assert float(fluid(v)) < 0.05 * float(fluid(force))
    torch.testing.assert_close(v.mean(dim=(2, 3, 4)), force.mean(dim=(2, 3, 4)), atol=1e-5, rtol=0)


def test_smoothing_is_differentiable_and_symmetric() -> None:
    fluid = Fluid(1.0, 0.5, mass=0.1)
    a, b = torch.randn(2, 1, 2, 5, 6, dtype=torch.float64)
    assert float((fluid.smooth(a) * b).sum()) == pytest.approx(float((a * fluid.smooth(b)).sum()), rel=1e-10)
    assert torch.autograd.gradcheck(fluid.smooth, a.requires_grad_())


def test_mass_is_checked() -> None:
    with pytest.raises(ValueError, match="mass must be above 0"):
        Fluid(mass=0.0)
