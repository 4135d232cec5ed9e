"""Example 2.4.1 of the thesis: SSD with diffusion, its gradient and its steps worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from reg_bench.field import warp
from reg_bench.optimization import (
    LBFGS,
    Adam,
    ConjugateGradient,
    GaussNewton,
    GradientDescent,
    LeastSquares,
    LevenbergMarquardt,
    Optimizer,
    Smoothing,
    Stopping,
    through_displacement,
)
from reg_bench.regularization import Diffusion

Array = NDArray[np.float64]


class Registration(LeastSquares):
    """`mean (M(x + u) - F)^2 + alpha 1/2 mean |grad u|^2` of a dense field."""

    def __init__(self, fixed: Tensor, moving: Tensor, alpha: float) -> None:
        self.fixed, self.moving, self.alpha = fixed, moving, alpha
        self.scale = fixed[0].numel() ** -0.5

    def _compare(self, u: Tensor) -> Tensor:
        return self.scale * (warp(self.moving, u) - self.fixed)

    def residuals(self, theta: Tensor) -> Tensor:
        return self._compare(theta).flatten(1)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.alpha * Diffusion()(theta)

    def linearise(self, theta: Tensor) -> Any:
        return through_displacement(lambda u: u, self._compare, theta)


def ramps() -> tuple[Registration, Array, float]:
    """A moving image that is linear, so that its gradient is constant and interpolation exact; and a fixed one."""
    n = 8
    x, y = np.meshgrid(np.arange(n, dtype=float), np.arange(n, dtype=float), indexing="ij")
    moving, fixed = 2.0 * x - 1.0 * y, 2.0 * x - y + np.sin(0.7 * x) * np.cos(0.4 * y)
    objective = Registration(torch.from_numpy(fixed)[None, None], torch.from_numpy(moving)[None, None], alpha=0.8)
    return objective, np.sin(0.7 * x) * np.cos(0.4 * y), n


def by_hand(u: Array, difference: Array, alpha: float) -> Array:
    """`2 (M - F) grad M / N - alpha Laplacian u / pairs`, except where displaced points leave the ramp."""
    n = u.shape[1]
    residual = 2.0 * u[0] - 1.0 * u[1] - difference
    force = 2 * residual * np.array([2.0, -1.0])[:, None, None] / n**2
    laplacian = np.stack([ndimage.laplace(component, mode="nearest") for component in u])
    return force - alpha * laplacian / (n * (n - 1))


def test_the_gradient_is_the_one_of_the_thesis() -> None:
    objective, difference, _ = ramps()
    inner = (slice(None), slice(2, -2), slice(2, -2))
    u = 0.4 * torch.rand(1, 2, 8, 8, dtype=torch.float64)
    _, gradient = objective.energy_and_gradient(u)
    np.testing.assert_allclose(gradient[0].numpy()[inner], by_hand(u[0].numpy(), difference, 0.8)[inner], atol=1e-12)


def test_two_steps_of_gradient_descent() -> None:
    objective, difference, _ = ramps()
    start = torch.full((1, 2, 8, 8), 0.3, dtype=torch.float64)
    size = 0.05
    theta, record = GradientDescent(size, growth=1.0).minimise(objective, start, Stopping(2, 0.0, 2))
    assert record.steps == [2]
    inner = (slice(None), slice(3, -3), slice(3, -3))
    first = by_hand(start[0].numpy(), difference, 0.8)
    tau = size / float(objective.energy_and_gradient(start)[1].abs().max())
    once = start[0].numpy() - tau * first
    # The second step needs the first one's neighbours, which are right two voxels from the border.
    twice = once - tau * by_hand(once, difference, 0.8)
    np.testing.assert_allclose(theta[0].numpy()[inner], twice[inner], atol=1e-12)


def blobs() -> Registration:
    """A smooth blob and the same blob a voxel and a half away; two cases."""
    x = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(18.0), indexing="ij")).double()

    def blob(*centre: float) -> Tensor:
        apart = x - torch.tensor(centre, dtype=torch.float64)[:, None, None]
        return (-apart.square().sum(dim=0) / 18).exp()

    fixed = torch.stack((blob(9, 9), blob(10, 8)))[:, None]
    moving = torch.stack((blob(10.5, 8.5), blob(9, 9)))[:, None]
    return Registration(fixed, moving, alpha=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "iterations"),
    [
        (GradientDescent(), 120),
        (ConjugateGradient(), 25),
        (LBFGS(), 25),
        (Adam(rate=0.1), 80),
        (GaussNewton(), 4),
        (GaussNewton(preconditioner=Smoothing(), tolerance=0.1), 5),
        (LevenbergMarquardt(preconditioner=Smoothing(), tolerance=0.1), 6),
    ],
)
def test_every_method_registers_blobs(optimizer: Optimizer, iterations: int) -> None:
    objective = blobs()
    start = torch.zeros(2, 2, 20, 18, dtype=torch.float64)
    u, record = optimizer.minimise(objective, start, Stopping(iterations, 0.0, iterations))
    assert (record.energies[-1] < 0.15 * record.energies[0]).all()
    # The true motion at the blobs' centres, within a fifth of a voxel.
    assert u[0, :, 9, 9].numpy() == pytest.approx([1.5, -0.5], abs=0.2)
    assert u[1, :, 10, 8].numpy() == pytest.approx([-1.0, 1.0], abs=0.2)
