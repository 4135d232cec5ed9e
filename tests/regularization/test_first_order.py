"""Diffusion and linear elasticity against closed forms, SciPy and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiffusionLoss
from scipy import ndimage

from reg_bench.regularization import Diffusion, Fluid, LinearElastic
from tests.regularization.polynomials import GRIDS, coordinates, edges, quadratic, random_bend, spacing_of


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_diffusion_of_affine_fields(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    h, linear = edges(spacing), np.random.default_rng(1).normal(size=(len(shape),) * 2)
    expected = 0.5 * ((linear * h[:, None] / h[None]) ** 2).sum()
    u = quadratic(shape, linear, constant=3.0)
    assert float(Diffusion()(u, spacing_of(spacing))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_diffusion_of_quadratic_fields(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """The difference of a quadratic function is its derivative half-way."""
    dims, h = len(shape), edges(spacing)
    linear, bend = np.random.default_rng(2).normal(size=(dims, dims)), random_bend(dims, 3)
    expected = 0.0
    for a in range(dims):
        middle = coordinates(tuple(n - (b == a) for b, n in enumerate(shape)))
        middle[a] += 0.5
        slope = linear[:, a].reshape(-1, *(1,) * dims) + np.einsum("cb,b...->c...", bend[:, a], middle)
        slope *= h.reshape(-1, *(1,) * dims) / h[a]
        expected += 0.5 * (slope**2).sum(axis=0).mean()
    u = quadratic(shape, linear, bend)
    assert float(Diffusion()(u, spacing_of(spacing))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_of_diffusion_is_the_negative_laplacian(dims: int) -> None:
    u = torch.randn(1, dims, *(6,) * dims, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Diffusion()(u).sum(), u)
    pairs = 5 * 6 ** (dims - 1)
    for c in range(dims):
        laplacian = ndimage.laplace(u[0, c].detach().numpy(), mode="nearest")
        np.testing.assert_allclose(gradient[0, c].numpy(), -laplacian / pairs, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_diffusion_agrees_with_monai_on_affine_fields(dims: int) -> None:
    u = quadratic((7, 6, 5)[:dims], np.random.default_rng(4).normal(size=(dims, dims)))
    assert 2 / dims * float(Diffusion()(u)) == pytest.approx(float(DiffusionLoss()(u)), rel=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_elastic_energy_of_affine_fields(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    dims, h, mu, lam = len(shape), edges(spacing), 1.3, 0.7
    linear = np.random.default_rng(5).normal(size=(dims, dims))
    strain = linear * h[:, None] / h[None]
    strain = (strain + strain.T) / 2
    expected = mu * (strain**2).sum() + lam / 2 * np.trace(strain) ** 2
    u = quadratic(shape, linear, constant=-2.0)
    assert float(LinearElastic(mu, lam)(u, spacing_of(spacing))) == pytest.approx(expected, rel=1e-12)
    assert float(Fluid(mu, lam)(u, spacing_of(spacing))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_infinitesimal_rigid_motion_strains_nothing(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Antisymmetric in physical space, which anisotropic voxels make look like a shear."""
    dims, h = len(shape), edges(spacing)
    turn = np.random.default_rng(6).normal(size=(dims, dims))
    linear = (turn - turn.T) * h[None] / h[:, None]
    u = quadratic(shape, linear, constant=4.0).requires_grad_()
    value = LinearElastic(1.0, 1.0)(u, spacing_of(spacing))
    assert float(value.detach()) < 1e-26
    assert float(torch.autograd.grad(value.sum(), u)[0].abs().max()) < 1e-13
    if len(set(spacing)) > 1:
        assert float(LinearElastic(1.0, 1.0)(u.detach())) > 1e-3


def test_the_zero_set_of_elasticity_is_rigid_motion_and_no_more() -> None:
    """The null space of the energy of a small grid: 2 translations and a rotation, or 3 and 3."""
    for shape, expected in (((4, 3), 3), ((3, 3, 4), 6)):
        size = len(shape) * int(np.prod(shape))
        energy = LinearElastic(1.0, 0.5)

        def gradient(
            flat: torch.Tensor, shape: tuple[int, ...] = shape, energy: LinearElastic = energy
        ) -> torch.Tensor:
            u = flat.reshape(1, len(shape), *shape).requires_grad_()
            return torch.autograd.grad(energy(u).sum(), u)[0].flatten()

        hessian = torch.stack([gradient(row) for row in torch.eye(size, dtype=torch.float64)])
        values = torch.linalg.eigvalsh(hessian)
        assert int((values.abs() < 1e-10).sum()) == expected
        assert float(values.min()) > -1e-12


def test_the_gradient_of_elasticity_is_the_navier_operator() -> None:
    """On a smooth field that vanishes at the border, against analytic second derivatives."""
    n, mu, lam = 48, 1.2, 0.8
    k = np.pi / (n - 1)
    x, y = coordinates((n, n))
    window, first, second = (np.sin(k * x) ** 2, np.sin(2 * k * x) * k, 2 * k * k * np.cos(2 * k * x))
    along, rise, bend = (np.sin(k * y) ** 2, np.sin(2 * k * y) * k, 2 * k * k * np.cos(2 * k * y))
    # u = (f, 2 f) with f(x, y) = window(x) along(y)
    fxx, fyy, fxy = second * along, window * bend, first * rise
    navier = np.stack(
        (
            mu * (fxx + fyy) + (mu + lam) * (fxx + 2 * fxy),
            2 * mu * (fxx + fyy) + (mu + lam) * (fxy + 2 * fyy),
        )
    )
    u = torch.from_numpy(np.stack((window * along, 2 * window * along)))[None].requires_grad_()
    (gradient,) = torch.autograd.grad(LinearElastic(mu, lam)(u).sum(), u)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    found = gradient[0].numpy()[inner] * n * n
    scale = np.abs(navier).max()
    # Means over n - 1 pairs instead of n voxels, and second-order differences.
    np.testing.assert_allclose(found / scale, -navier[inner] / scale, atol=0.05)
    assert np.corrcoef(found.ravel(), -navier[inner].ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("kind", [LinearElastic, Fluid])
def test_moduli_are_checked(kind: type[LinearElastic] | type[Fluid]) -> None:
    with pytest.raises(ValueError, match="mu > 0 and lam >= 0"):
        kind(0.0)
    with pytest.raises(ValueError, match="mu > 0 and lam >= 0"):
        kind(1.0, -0.1)
