"""Curvature and bending energy against closed forms, SciPy and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import BendingEnergyLoss
from scipy import ndimage

from reg_bench.regularization import BendingEnergy, Curvature
from tests.regularization.polynomials import GRIDS, coordinates, edges, quadratic, random_bend, spacing_of


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_quadratic_fields(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    dims, h = len(shape), edges(spacing)
    linear, bend = np.random.default_rng(1).normal(size=(dims, dims)), random_bend(dims, 2)
    second = bend * h[:, None, None] / (h[None, :, None] * h[None, None])
    u, mm = quadratic(shape, linear, bend, constant=1.0), spacing_of(spacing)
    laplacian = np.einsum("caa->c", second)
    assert float(Curvature()(u, mm)) == pytest.approx(0.5 * (laplacian**2).sum(), rel=1e-11)
    assert float(BendingEnergy()(u, mm)) == pytest.approx(0.5 * (second**2).sum(), rel=1e-11)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("regularizer", [Curvature(), BendingEnergy()])
def test_affine_fields_cost_nothing(
    regularizer: Curvature | BendingEnergy, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    dims = len(shape)
    u = quadratic(shape, np.random.default_rng(3).normal(size=(dims, dims)), constant=5.0).requires_grad_()
    value = regularizer(u, spacing_of(spacing))
    assert float(value.detach()) < 1e-26
    assert float(torch.autograd.grad(value.sum(), u)[0].abs().max()) < 1e-12


def test_a_harmonic_field_bends_but_has_no_curvature() -> None:
    x, y = coordinates((6, 7))
    u = torch.from_numpy(np.stack((x * x - y * y, x * y)))[None]
    assert float(Curvature()(u)) < 1e-26
    # Second derivatives 2, -2 and twice 1.
    assert float(BendingEnergy()(u)) == pytest.approx(0.5 * (4 + 4 + 1 + 1), rel=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_of_curvature_is_the_bilaplacian_inside(dims: int) -> None:
    n = 9
    u = torch.randn(1, dims, *(n,) * dims, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Curvature()(u).sum(), u)
    # Three voxels from the border neither the stencil nor its transpose reach it.
    inner = (slice(3, -3),) * dims
    for c in range(dims):
        twice = ndimage.laplace(ndimage.laplace(u[0, c].detach().numpy()))
        np.testing.assert_allclose(gradient[0, c].numpy()[inner], twice[inner] / n**dims, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_bending_energy_agrees_with_monai(dims: int) -> None:
    shape = (12, 11, 10)[:dims]
    exact = quadratic(shape, np.zeros((dims, dims)), random_bend(dims, 4))
    assert 2 / dims * float(BendingEnergy()(exact)) == pytest.approx(float(BendingEnergyLoss()(exact)), rel=1e-11)
    x = coordinates((40, 44, 36)[:dims])
    smooth = torch.from_numpy(np.stack([np.cos(0.17 * x.sum(axis=0) + 0.2 * c * x[c]) for c in range(dims)]))[None]
    assert 2 / dims * float(BendingEnergy()(smooth)) == pytest.approx(float(BendingEnergyLoss()(smooth)), rel=0.05)
