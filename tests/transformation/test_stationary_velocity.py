"""Stationary velocities: beside the matrix exponential, and on a coarser grid."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from reg_bench import field
from reg_bench.transformation import Domain, StationaryVelocity


def smooth(shape: tuple[int, ...], amplitude: float) -> Tensor:
    noise = torch.randn(1, len(shape), *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    velocity = field.gaussian(noise, 5.0)
    for axis, n in enumerate(shape):
        ramp = torch.linspace(0, torch.pi, n, dtype=torch.float64).sin()
        velocity = velocity * ramp.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return velocity * (amplitude / velocity.abs().max())


def test_linear_velocity_is_the_matrix_exponential() -> None:
    generator = torch.tensor([[0.1, -0.3], [0.2, -0.2]], dtype=torch.float64)
    grid = field.identity_grid((41, 41), dtype=torch.float64) - 20
    velocity = torch.tensordot(generator, grid, dims=1)[None]
    domain = Domain((41, 41), dtype=torch.float64)
    model = StationaryVelocity(steps=9)
    inner = (..., slice(12, -12), slice(12, -12))
    maps = (model.displacement(velocity, domain), model.inverse_displacement(velocity, domain))
    for sign, found in zip((1, -1), maps, strict=True):
        matrix = torch.from_numpy(expm(sign * generator.numpy())) - torch.eye(2)
        torch.testing.assert_close(found[inner], torch.tensordot(matrix, grid, dims=1)[None][inner], atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(65, 57), (33, 35, 31)])
def test_inverse_composes_to_the_identity_and_nothing_folds(shape: tuple[int, ...]) -> None:
    model, domain = StationaryVelocity(), Domain(shape, dtype=torch.float64)
    theta = smooth(shape, 2.0)
    u, inverse = model.displacement(theta, domain), model.inverse_displacement(theta, domain)
    assert field.compose(u, inverse).abs().max() < 0.05
    assert field.compose(inverse, u).abs().max() < 0.05
    assert field.jacobian_determinant(u).min() > 0


def test_a_coarser_grid_is_close_and_keeps_its_units() -> None:
    shape = (65, 57)
    domain = Domain(shape, dtype=torch.float64)
    theta = smooth(shape, 3.5)
    model = StationaryVelocity(coarsening=2)
    on_coarse = theta[..., ::2, ::2] / 2
    assert model.num_parameters(domain) == 2 * 33 * 29
    assert model.regularized(on_coarse, domain) is on_coarse
    assert model.regularized_domain(domain).shape == (33, 29)
    error = (model.displacement(on_coarse, domain) - StationaryVelocity().displacement(theta, domain)).abs().max()
    assert error < 0.2
    inverse = model.inverse_displacement(on_coarse, domain)
    assert field.compose(model.displacement(on_coarse, domain), inverse).abs().max() < 0.2


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        StationaryVelocity(steps=-1)
    with pytest.raises(ValueError, match=r"coarsening must be at least 1, got 0\.5"):
        StationaryVelocity(coarsening=0.5)
