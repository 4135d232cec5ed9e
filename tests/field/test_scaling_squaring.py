"""The exponential of velocities against matrix exponentials, followed paths and finite differences."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from reg_bench import field
from reg_bench.field.scaling_squaring import _second_order, _second_order_adjoint


def linear_velocity(matrix: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """`v(x) = A (x - c)` about the centre, `(1, D, *S)`."""
    grid = field.identity_grid(spatial, dtype=torch.float64)
    centre = (torch.tensor(spatial, dtype=torch.float64) - 1) / 2
    return torch.einsum("ij,j...->i...", matrix, grid - centre.reshape(-1, *(1,) * len(spatial)))[None]


def waves(spatial: tuple[int, ...], amplitude: float) -> Tensor:
    """A smooth velocity that vanishes at the border."""
    grid = field.identity_grid(spatial, dtype=torch.float64)
    unit = [g / (n - 1) * torch.pi for g, n in zip(grid, spatial, strict=True)]
    window = torch.stack([g.sin() for g in unit]).prod(dim=0)
    return amplitude * torch.stack([window * torch.cos(1.3 * k + 2 * unit[k]) for k in range(len(spatial))])[None]


@pytest.mark.parametrize("steps", [3, 4, 5, 6, 7])
def test_relative_error_of_the_time_steps_is_what_is_said(steps: int) -> None:
    rate = 0.6
    matrix = torch.tensor([[0.0, rate], [-rate, 0.0]], dtype=torch.float64)
    velocity = linear_velocity(matrix, (61, 61))
    exact = linear_velocity(torch.from_numpy(expm(matrix.numpy())) - torch.eye(2), (61, 61))
    middle = (..., slice(20, 41), slice(20, 41))
    error = (field.exponential(velocity, steps) - exact)[middle].abs().max() / exact[middle].abs().max()
    bound = rate**2 / (6 * 4 ** (steps // 2 + 1))
    assert 0.5 * bound < error < 1.5 * bound
    assert error < rate / 2 ** (steps + 1), "not better than as many squarings that start with Euler's step"


@pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 2), (4, 1, 3)])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_gradient_of_the_exponential(spatial: tuple[int, ...], steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    velocity = torch.rand(2, len(spatial), *spatial, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    assert torch.autograd.gradcheck(lambda v: field.exponential(v, steps), (velocity.requires_grad_(),))


def test_gradient_of_the_exponential_of_a_volume_in_slabs() -> None:
    velocity, direction, weight = (waves((30, 26, 28), a) for a in (3.0, 1.0, 1.7))
    leaf = velocity.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((field.exponential(leaf) * weight).sum(), leaf)
    h = 1e-5
    ahead, behind = (float((field.exponential(velocity + s * direction) * weight).sum()) for s in (h, -h))
    assert float((gradient * direction).sum()) == pytest.approx((ahead - behind) / (2 * h), rel=1e-4)


@pytest.mark.parametrize("spatial", [(5, 6), (4, 1, 3), (2, 3, 5)])
def test_second_order_step_and_its_adjoint(spatial: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    w, g = torch.randn(2, 2, len(spatial), *spatial, generator=generator, dtype=torch.float64)
    (jacobian,) = torch.autograd.functional.vjp(lambda x: _plain_second_order(x), w, g)[1:]
    torch.testing.assert_close(_second_order(w), _plain_second_order(w))
    torch.testing.assert_close(_second_order_adjoint(w, g), jacobian)


def _plain_second_order(w: Tensor) -> Tensor:
    result = w
    for axis in range(w.shape[1]):
        n = w.shape[axis + 2]
        index = torch.arange(n)
        ahead = w.index_select(axis + 2, (index + 1).clamp(max=n - 1))
        behind = w.index_select(axis + 2, (index - 1).clamp(min=0))
        result = result + 0.5 * w[:, axis : axis + 1] * (ahead - behind) / 2
    return result


@pytest.mark.parametrize("spatial", [(64, 50), (40, 36, 33)])
def test_flow_error_sees_the_error_and_coarse_reports_it(spatial: tuple[int, ...]) -> None:
    velocity = waves(spatial, 4.0)
    fine = field.exponential(velocity, 14)
    assert field.flow_error(velocity, fine) < 0.08
    shifted = fine.clone()
    shifted[:, 0] += 0.25
    assert float(field.flow_error(velocity, shifted)) == pytest.approx(0.25, abs=0.08)
    u, error = field.exponential_coarse(velocity)
    true = torch.linalg.vector_norm(u - fine, dim=1).amax()
    assert error.shape == (1,)
    assert 0.5 * true - 0.08 < float(error) < true + 0.08
    assert true < 0.6


def test_coarse_exponential_has_a_gradient_and_takes_any_factor() -> None:
    velocity = waves((33, 30), 2.0).requires_grad_()
    u, error = field.exponential_coarse(velocity, factor=2.5)
    assert u.shape == velocity.shape
    assert not error.requires_grad
    (gradient,) = torch.autograd.grad(u.sum(), velocity)
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match=r"factor must be at least 1, got 0\.5"):
        field.exponential_coarse(velocity, factor=0.5)


def test_exponential_keeps_dtype_and_is_differentiable_once() -> None:
    assert field.exponential(torch.zeros(1, 2, 4, 4, dtype=torch.float16)).dtype == torch.float16
    leaf = waves((8, 8), 1.0).requires_grad_()
    (first,) = torch.autograd.grad(field.exponential(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
