"""The energy of variational registration against its parts, and its two forms against each other."""

from __future__ import annotations

import pytest
import torch

from reg_bench.field import warp
from reg_bench.registration_energy import Energy, ImageObjective, Images, SquaredDifferences
from reg_bench.regularization import Diffusion
from reg_bench.similarity import LNCC, SSD
from reg_bench.transformation import LDDMM, Dense, Domain, StationaryVelocity


def images(shape: tuple[int, ...], *, masked: bool = False) -> Images:
    rng = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(2, 1, *shape, generator=rng, dtype=torch.float64) for _ in range(2))
    mask = (torch.rand(2, 1, *shape, generator=rng) > 0.4).double() if masked else None
    spacing = torch.tensor([[1.0, 2.0, 1.5][: len(shape)], [0.5, 1.0, 0.75][: len(shape)]], dtype=torch.float64)
    return Images(fixed, moving, mask, Domain.of(fixed, spacing))


def parameters(shape: tuple[int, ...]) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return 0.4 * torch.randn(2, len(shape), *shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 7)])
def test_similarity_plus_weighted_regularizer(shape: tuple[int, ...], masked: bool) -> None:
    level, theta = images(shape, masked=masked), parameters(shape)
    energy = Energy(Dense(), SSD(), Diffusion(), 0.3)
    found = ImageObjective(energy, level).energy(theta)
    square = (warp(level.moving, theta) - level.fixed).square()
    weights = torch.ones_like(square) if level.mask is None else level.mask
    expected = (square * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
    expected = expected + 0.3 * Diffusion()(theta, level.domain.spacing_mm)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_squared_differences_are_the_same_energy_and_linearise_it(masked: bool) -> None:
    level, theta = images((9, 8), masked=masked), parameters((9, 8))
    energy = Energy(Dense(), SSD(), Diffusion(), 0.3)
    general, squares = ImageObjective(energy, level), SquaredDifferences(energy, level)
    for a, b in zip(general.energy_and_gradient(theta), squares.energy_and_gradient(theta), strict=True):
        torch.testing.assert_close(a, b)
    system = squares.linearise(theta)
    penalty = torch.autograd.functional.jacobian(lambda t: 0.3 * Diffusion()(t, level.domain.spacing_mm).sum(), theta)
    torch.testing.assert_close(2 * system.pull(system.residuals) + penalty, general.energy_and_gradient(theta)[1])


def test_a_velocity_is_regularized_and_not_its_displacement() -> None:
    level, theta = images((9, 8)), parameters((9, 8))
    u = StationaryVelocity().displacement(theta, level.domain)
    found = Energy(StationaryVelocity(), LNCC(5), Diffusion(), 2.0).penalty(theta, level.domain, u)
    torch.testing.assert_close(found, 2.0 * Diffusion()(theta, level.domain.spacing_mm))


def test_a_geodesic_pays_for_its_length_and_a_weight_of_zero_for_nothing() -> None:
    level = images((9, 8))
    model = LDDMM(sigma=2.0, steps=3)
    theta = 0.1 * torch.ones_like(model.identity(level.domain))
    u = model.displacement(theta, level.domain)
    paid = Energy(model, SSD(), None, 0.5).penalty(theta, level.domain, u)
    torch.testing.assert_close(paid, 0.5 * model.energy(theta, level.domain))
    assert Energy(model, SSD(), Diffusion(), 0.0).penalty(theta, level.domain, u) is None
