"""EPDiff, flows and LDDMM against matrix exponentials, particles followed by SciPy, and conservation laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torch import Tensor

from reg_bench import field
from reg_bench.transformation import LDDMM, Domain, GaussianKernel, flow, shoot
from reg_bench.transformation.coadjoint import bracket, coadjoint
from reg_bench.transformation.geodesic_shooting import geodesics


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def window(shape: tuple[int, ...]) -> Tensor:
    """Falls to zero at the border, so that the motion stays inside."""
    factor = torch.ones(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        ramp = torch.linspace(0, torch.pi, n, dtype=torch.float64).sin() ** 2
        factor = factor * ramp.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return factor


def scaled_momentum(shape: tuple[int, ...], kernel: GaussianKernel, motion: float, rough: bool) -> Tensor:
    """A random momentum whose velocity is at most `motion` voxels per unit time."""
    momentum = noise(1, len(shape), *shape)
    momentum = (momentum if rough else kernel(momentum)) * window(shape)
    return momentum * (motion / kernel(momentum).abs().max())


# ------------------------------------------------------------------------------------------------ coadjoint


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 4), (6, 1, 3)])
def test_coadjoint_is_the_adjoint_of_the_bracket_which_is_antisymmetric(shape: tuple[int, ...]) -> None:
    v, m, w = (noise(2, len(shape), *shape, seed=k) for k in range(3))
    torch.testing.assert_close((coadjoint(v, m) * w).sum(), (m * bracket(v, w)).sum())
    torch.testing.assert_close(bracket(v, w), -bracket(w, v))
    assert bracket(v, v).abs().max() < 1e-12


def test_coadjoint_is_what_epdiff_says() -> None:
    """`(Dm) v + (Dv)^T m + (div v) m` for polynomials of which central differences are exact."""
    x, y = field.identity_grid((12, 13), dtype=torch.float64) / 4 - 1.5
    v = torch.stack((x + 2 * y, x - 3 * y + 1))[None]
    m = torch.stack((2 * x - y, x + 0.5 * y + 1))[None]
    dv = torch.tensor([[1.0, 2.0], [1.0, -3.0]], dtype=torch.float64) / 4
    dm = torch.tensor([[2.0, -1.0], [1.0, 0.5]], dtype=torch.float64) / 4
    expected = torch.einsum("ij,bj...->bi...", dm, v) + torch.einsum("ji,bj...->bi...", dv, m) + dv.trace() * m
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(coadjoint(v, m)[inner], expected[inner])


def test_gradient_of_the_coadjoint() -> None:
    for shape in ((4, 5), (3, 1, 4)):
        v, m = (noise(2, len(shape), *shape, seed=k).requires_grad_() for k in range(2))
        assert torch.autograd.gradcheck(coadjoint, (v, m))


# -------------------------------------------------------------------------------------------------- kernel


def test_kernel_is_symmetric_positive_and_knows_its_peak() -> None:
    kernel = GaussianKernel((2.0, 3.0), (0.5, 2.0))
    m, w = noise(1, 2, 20, 25), noise(1, 2, 20, 25, seed=1)
    torch.testing.assert_close((m * kernel(w)).sum(), (kernel(m) * w).sum())
    assert (m * kernel(m)).sum() > 0
    point = torch.zeros(1, 2, 41, 61, dtype=torch.float64)
    point[0, 1, 20, 30] = 1
    v = GaussianKernel((2.0, 3.0))(point)[0, 1]
    assert float(v[20, 30]) * GaussianKernel((2.0, 3.0)).peak_scale == pytest.approx(1, rel=1e-4)
    assert float(v.sum()) == pytest.approx(1)
    assert float(v[22, 33] / v[20, 30]) == pytest.approx(math.exp(-1))
    assert float(GaussianKernel((2.0, 3.0), (0.5, 2.0))(point)[0, 1, 20, 30]) == pytest.approx(float(v[20, 30]) / 4)
    with pytest.raises(ValueError, match="as many positive numbers"):
        GaussianKernel((2.0, 0.0))
    with pytest.raises(ValueError, match="as many positive numbers"):
        GaussianKernel((2.0, 1.0), (1.0,))


# ---------------------------------------------------------------------------------------------------- flow


@pytest.mark.parametrize("shape", [(33, 41), (21, 25, 23)])
def test_flow_of_linear_velocities_is_a_product_of_matrix_exponentials(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    generators = [0.3 * np.random.default_rng(k).standard_normal((dims, dims)) for k in range(2)]
    centre = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    places = field.identity_grid(shape, dtype=torch.float64) - centre.reshape(-1, *(1,) * dims)
    velocities = [torch.tensordot(torch.from_numpy(g), places, dims=1) for g in generators for _ in range(10)]
    pull, push = flow(torch.stack(velocities)[None])
    matrix = expm(generators[1] / 2) @ expm(generators[0] / 2)
    inner = (..., *(slice(n // 3, -(n // 3)) for n in shape))
    for found, expected in ((push, matrix), (pull, np.linalg.inv(matrix))):
        u = torch.tensordot(torch.from_numpy(expected - np.eye(dims)), places, dims=1)[None]
        torch.testing.assert_close(found[inner], u[inner], atol=2e-3, rtol=0)


def test_flow_of_a_constant_velocity_and_wrong_arguments() -> None:
    velocities = torch.tensor([1.0, -2.0]).reshape(1, 1, 2, 1, 1).expand(1, 3, 2, 8, 9)
    pull, push = flow(velocities, seconds=0.5)
    torch.testing.assert_close(push, velocities[:, 0] / 2)
    torch.testing.assert_close(pull, -velocities[:, 0] / 2)
    with pytest.raises(ValueError, match=r"velocities must be \(B, T, D, \*spatial\)"):
        flow(velocities[:, 0])


# ------------------------------------------------------------------------------------------------ shooting


@pytest.mark.parametrize(("shape", "sigma"), [((80, 70), 8.0), ((63, 64), 4.0), ((32, 30, 34), 4.0)])
@pytest.mark.parametrize("rough", [True, False])
def test_energy_is_kept_maps_are_inverse_and_nothing_folds(shape: tuple[int, ...], sigma: float, rough: bool) -> None:
    kernel = GaussianKernel((sigma,) * len(shape))
    momentum = scaled_momentum(shape, kernel, (0.7 if len(shape) == 2 else 0.5) * sigma, rough).float()
    u, inverse, energies = shoot(momentum, kernel, 10)
    assert energies.shape == (1, 11)
    assert float((energies.max() - energies.min()) / energies.max()) < 1e-4
    assert u.abs().max() > 0.3 * sigma
    for one, other in ((u, inverse), (inverse, u)):
        # Cubic, since between the voxels linear interpolation of such maps is off by as much.
        composed = other + field.warp(one, other, mode="cubic")
        assert composed[(..., *(slice(3, -3),) * len(shape))].abs().max() < 0.03
    for map_ in (u, inverse):
        assert field.jacobian_determinant(map_).min() > 0.2


def test_points_move_as_particles_with_these_momenta_do() -> None:
    """The Hamiltonian of points under a Gaussian kernel, followed by SciPy."""
    sigma, shape = 8.0, (81, 81)
    kernel = GaussianKernel((sigma, sigma))
    start = np.array([[35, 40], [44, 42], [40, 30], [48, 50]])
    p0 = np.array([[6.0, 2.0], [-5.0, 3.0], [2.0, 7.0], [-3.0, -6.0]])
    momentum = torch.zeros(1, 2, *shape, dtype=torch.float64)
    for place, p in zip(start, p0, strict=True):
        momentum[0, :, place[0], place[1]] = torch.from_numpy(p) * kernel.peak_scale

    def motion(_: float, state: np.ndarray) -> np.ndarray:
        q, p = state.reshape(2, 4, 2)
        apart = q[:, None] - q[None]
        k = np.exp(-(apart**2).sum(-1) / (2 * sigma**2))
        force = ((p @ p.T) * k)[..., None] * apart / sigma**2
        return np.stack((k @ p, force.sum(axis=1))).ravel()

    path = solve_ivp(motion, (0, 1), np.stack((start, p0)).ravel(), rtol=1e-9, atol=1e-9)
    expected = path.y[:, -1].reshape(2, 4, 2)[0] - start
    push = shoot(momentum, kernel, 10)[1][0]
    found = np.stack([push[:, i, j].numpy() for i, j in start])
    assert np.abs(expected).max() > 4
    # Without the change of momentum along the way the error is ten times as large.
    np.testing.assert_allclose(found, expected, atol=0.06)
    straight = (motion(0, np.stack((start, p0)).ravel()).reshape(2, 4, 2))[0]
    assert np.abs(straight - expected).max() > 0.6


def test_more_steps_change_little() -> None:
    kernel = GaussianKernel((6.0, 6.0))
    momentum = scaled_momentum((50, 40), kernel, 6.0, False)
    few, many = (shoot(momentum, kernel, steps)[0] for steps in (10, 40))
    assert (few - many).abs().max() < 0.02
    # One step is divided on its own: no step moves further than the method is stable for.
    path, energies = geodesics(momentum, kernel, 1)
    assert len(path[0]) > 3
    assert float(energies[0, 1] / energies[0, 0]) == pytest.approx(1, rel=1e-3)


def test_small_momenta_move_along_their_velocity() -> None:
    kernel = GaussianKernel((5.0, 5.0))
    momentum = scaled_momentum((50, 40), kernel, 1e-3, True)
    u, inverse, energies = shoot(momentum, kernel, 4)
    torch.testing.assert_close(inverse, kernel(momentum), atol=2e-6, rtol=0)
    torch.testing.assert_close(u, -kernel(momentum), atol=2e-6, rtol=0)
    expected = float((momentum * kernel(momentum)).sum()) / (2 * 50 * 40)
    assert float(energies[0, 0]) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_gradient_of_shooting(shape: tuple[int, ...]) -> None:
    kernel = GaussianKernel((1.5,) * len(shape))
    momentum = (0.5 * noise(1, len(shape), *shape) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: shoot(m, kernel, 2), (momentum,), fast_mode=True, atol=1e-5)


def test_a_case_of_a_batch_is_shot_as_if_alone() -> None:
    kernel = GaussianKernel((4.0, 4.0))
    momenta = torch.cat([scaled_momentum((40, 36), kernel, motion, True) for motion in (1.0, 30.0)])
    both = shoot(momenta, kernel, 3)
    for k in range(2):
        for a, b in zip(both, shoot(momenta[k : k + 1], kernel, 3), strict=True):
            assert torch.equal(a[k : k + 1], b)


def test_wrong_arguments_of_shooting_are_named() -> None:
    kernel = GaussianKernel((4.0, 4.0))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        shoot(torch.zeros(1, 2, 5, 5), kernel, 0)
    with pytest.raises(ValueError, match="momentum must be finite"):
        shoot(torch.full((1, 2, 5, 5), torch.nan), kernel)
    with pytest.raises(ValueError, match="momentum must be a floating point field"):
        shoot(torch.zeros(1, 3, 5, 5), kernel)


# --------------------------------------------------------------------------------------------------- LDDMM


@pytest.mark.parametrize("mode", ["shooting", "time-dependent"])
def test_lddmm_does_not_depend_on_how_finely_an_axis_is_sampled(mode: str) -> None:
    """The same momentum on cubes and on voxels twice as long along one axis gives the same map in millimetres."""
    fine = Domain((61, 61), 1, torch.tensor([[1.0, 1.0]]), dtype=torch.float64)
    long = fine.resized((61, 31))
    model = LDDMM(sigma=6, unit="mm", mode=mode, steps=5)  # type: ignore[arg-type]
    theta = scaled_momentum(fine.shape, GaussianKernel((6.0, 6.0)), 5.0, False)
    theta = theta if mode == "shooting" else theta[:, None].expand(-1, 5, -1, -1, -1)
    there = model.displacement(theta, fine)
    on_long = theta[..., ::2] * torch.tensor([1.0, 0.5]).reshape(2, 1, 1)
    here = model.displacement(on_long, long) * torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    assert there.abs().max() > 3
    assert (here - there[..., ::2]).abs().max() < 0.1


def test_lddmm_energy_is_the_kernel_norm_and_constant_along_the_geodesic() -> None:
    domain = Domain((40, 44), 1, dtype=torch.float64)
    kernel = GaussianKernel((5.0, 5.0))
    theta = scaled_momentum(domain.shape, kernel, 4.0, False)
    model = LDDMM(sigma=5)
    energy = model.energy(theta, domain)
    torch.testing.assert_close(energy, (theta * kernel(theta)).sum().reshape(1) / (2 * 40 * 44))
    torch.testing.assert_close(shoot(theta, kernel)[2], energy[:, None].expand(1, 11), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.regularized(theta, domain), kernel(theta))
    constant = LDDMM(sigma=5, mode="time-dependent", steps=3)
    in_time = theta[:, None] * torch.tensor([1.0, 2.0, 0.0]).reshape(1, 3, 1, 1, 1)
    torch.testing.assert_close(constant.energy(in_time, domain), energy * 5 / 3)


def test_lddmm_does_not_fold_where_a_displacement_of_that_size_does() -> None:
    domain = Domain((64, 64), 1, dtype=torch.float64)
    model = LDDMM(sigma=4, steps=10)
    theta = scaled_momentum(domain.shape, GaussianKernel((4.0, 4.0)), 14.0, False)
    velocity = model.regularized(theta, domain)
    assert field.jacobian_determinant(velocity).min() < 0
    u, inverse = model.displacement(theta, domain), model.inverse_displacement(theta, domain)
    assert field.jacobian_determinant(u).min() > 0
    assert field.jacobian_determinant(inverse).min() > 0


def test_lddmm_on_a_coarser_grid_is_close() -> None:
    domain = Domain((65, 57), 1, dtype=torch.float64)
    theta = scaled_momentum(domain.shape, GaussianKernel((8.0, 8.0)), 6.0, False)
    fine, coarse = LDDMM(sigma=8), LDDMM(sigma=8, coarsening=2)
    u = fine.displacement(theta, domain)
    on_coarse = coarse.displacement(theta[..., ::2, ::2] / 2, domain)
    assert u.abs().max() > 4
    assert (u - on_coarse).abs().max() < 0.15


def test_wrong_arguments_of_lddmm_are_named() -> None:
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        LDDMM(0)
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'relaxation'"):
        LDDMM(3, mode="relaxation")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        LDDMM(3, steps=0)
    with pytest.raises(ValueError, match=r"coarsening must be at least 1, got 0\.5"):
        LDDMM(3, coarsening=0.5)
    with pytest.raises(ValueError, match="unit must be"):
        LDDMM(3, unit="cm")
