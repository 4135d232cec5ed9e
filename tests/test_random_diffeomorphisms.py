"""Random diffeomorphisms: energy, inverse, folding, the border, and the statistics that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench import field
from reg_bench.random_diffeomorphisms import ContainedKernel, Diffeomorphisms, random_diffeomorphisms
from reg_bench.transformation import GaussianKernel, shoot


def drawn(shape: tuple[int, ...], count: int, seed: int = 0, scale: float = 1.0) -> Diffeomorphisms:
    """As Paper I draws them: std 40..99 of `exp(-r^2 / std^2)` and distance 0..19 at 256 voxels."""
    rng = np.random.default_rng(seed)
    sigma = scale * rng.uniform(40, 99, count) / math.sqrt(2)
    distance = scale * rng.uniform(0, 19, count)
    generator = torch.Generator().manual_seed(seed)
    return random_diffeomorphisms(shape, sigma.tolist(), distance.tolist(), generator)


def largest(u: Tensor) -> Tensor:
    return torch.linalg.vector_norm(u, dim=1).flatten(1).amax(dim=1)


def check(maps: Diffeomorphisms, tolerance: float) -> None:
    u, v = maps.displacement, maps.inverse
    assert v is not None
    energies = maps.energies
    assert ((energies.amax(1) - energies.amin(1)) / energies.amax(1).clamp(min=1e-12)).max() < 0.01
    for one, other in ((u, v), (v, u)):
        assert largest(other + field.warp(one, other)).max() < tolerance
        assert field.jacobian_determinant(one).min() > 0.05


def test_energy_is_kept_maps_are_inverse_and_nothing_folds_in_2d() -> None:
    maps = drawn((256, 256), 12)
    check(maps, 0.05)
    assert largest(maps.displacement).max() > 15


def test_energy_is_kept_maps_are_inverse_and_nothing_folds_in_3d() -> None:
    maps = random_diffeomorphisms((64, 56, 60), [14.0, 20.0], [4.0, 4.0], torch.Generator().manual_seed(0))
    check(maps, 0.05)
    assert maps.displacement.shape == (2, 3, 64, 56, 60)
    assert largest(maps.displacement).max() > 5


@pytest.mark.slow
def test_nothing_folds_over_a_thousand_draws() -> None:
    for seed in range(125):
        check(drawn((256, 256), 8, seed), 0.05)


def test_the_image_is_mapped_onto_itself() -> None:
    maps = drawn((90, 120), 6, 3, scale=0.4)
    for u in (maps.displacement, maps.inverse):
        assert u is not None
        for axis, n in enumerate((90, 120)):
            ends = u[:, axis].movedim(axis + 1, 1)[:, [0, n - 1]]
            assert ends.abs().max() < 1e-4
            places = field.identity_grid((90, 120))[axis] + u[:, axis]
            assert places.min() > -1e-3
            assert places.max() < n - 1 + 1e-3
        # Points of a face slide along it.
        assert u[:, 1, 0].abs().max() > 1


def test_components_have_the_promised_spread() -> None:
    generator = torch.Generator().manual_seed(1)
    u = random_diffeomorphisms((256, 256), [33.0] * 60, [10.0] * 60, generator, with_inverse=False).displacement
    for component in u.unbind(dim=1):
        assert 7.5 < component[:, 118:138, 118:138].std() < 11
    assert 20 < largest(u).mean() < 30
    # Of another grid, with voxels twice as large, half of everything.
    half = random_diffeomorphisms((128, 128), [16.5] * 60, [5.0] * 60, generator, with_inverse=False).displacement
    assert 0.8 < 2 * largest(half).mean() / largest(u).mean() < 1.25


def test_it_is_the_geodesic_that_shooting_on_the_fine_grid_finds() -> None:
    """The same momentum, put onto the voxels where the coarse grid has its own, shot without any coarse grid."""
    sigma, shape = 8.0, (65, 65)
    found = random_diffeomorphisms(shape, [sigma], [4.0], torch.Generator().manual_seed(5))
    # 25 voxels over 64: the grid that three voxels to a standard deviation ask for.
    noise = torch.randn(1, 2, 25, 25, generator=torch.Generator().manual_seed(5))
    edge = 64 / 24
    fine = torch.zeros(1, 2, *shape)
    coarse = ContainedKernel(GaussianKernel((sigma / edge,) * 2, (edge,) * 2), (1.5 * sigma / edge,) * 2)
    kernel = ContainedKernel(GaussianKernel((sigma,) * 2), (1.5 * sigma,) * 2)
    impulse = torch.zeros_like(noise)
    impulse[..., 12, 12] = 1
    momentum = noise * 4.0 / edge / torch.linalg.vector_norm(coarse(impulse).flatten(2), dim=2)[..., None, None]
    # A momentum between voxels is shared among those around it; what the Gaussian makes of it hardly changes.
    where = torch.stack(torch.meshgrid(*[torch.arange(25) * edge] * 2, indexing="ij")).reshape(2, -1)
    base = where.floor().long()
    for di in (0, 1):
        for dj in (0, 1):
            share = (1 - (where - base - torch.tensor([[di], [dj]])).abs()).prod(dim=0)
            i, j = (base[0] + di).clamp(max=64), (base[1] + dj).clamp(max=64)
            for c in range(2):
                fine[0, c].index_put_((i, j), share * momentum[0, c].flatten() * edge, accumulate=True)
    u, inverse, _ = shoot(fine, kernel, 10)
    assert largest(u).max() > 5
    assert largest(found.displacement - u).max() < 0.2
    assert found.inverse is not None
    assert largest(found.inverse - inverse).max() < 0.2


def test_kernel_is_symmetric() -> None:
    kernel = ContainedKernel(GaussianKernel((2.0, 3.0)), (3.0, 4.5))
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 2, 15, 17, generator=generator, dtype=torch.float64) for _ in range(2))
    assert float((a * kernel(b)).sum()) == pytest.approx(float((b * kernel(a)).sum()))
    assert float((a * kernel(a)).sum()) > 0


def test_same_seed_same_maps_and_cases_are_as_if_alone() -> None:
    both = random_diffeomorphisms((40, 50), [7.0, 9.0], [1.0, 2.5], torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    for k, (sigma, distance) in enumerate(((7.0, 1.0), (9.0, 2.5))):
        alone = random_diffeomorphisms((40, 50), [sigma], [distance], generator, with_inverse=False)
        assert alone.inverse is None
        assert torch.equal(alone.displacement, both.displacement[k : k + 1])
        assert torch.equal(alone.energies, both.energies[k : k + 1])
    assert not random_diffeomorphisms((9, 8), [3.0], [0.0], generator).displacement.any()


def test_steep_draws_are_scaled_down() -> None:
    calm, wild = (
        random_diffeomorphisms((64, 64), [5.0], [distance], torch.Generator().manual_seed(0))
        for distance in (8.0, 80.0)
    )
    torch.testing.assert_close(calm.displacement, wild.displacement, atol=1e-4, rtol=0)
    check(calm, 0.1)


def test_wrong_arguments_are_named() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"shape must hold 2 or 3 lengths of at least 2, got \(5, 1\)"):
        random_diffeomorphisms((5, 1), [2.0], [1.0], generator)
    with pytest.raises(ValueError, match="one number per case, got 1 and 2"):
        random_diffeomorphisms((5, 5), [2.0], [1.0, 1.0], generator)
    with pytest.raises(ValueError, match=r"sigma_voxels must be positive and finite, got \[0.0\]"):
        random_diffeomorphisms((5, 5), [0.0], [1.0], generator)
    with pytest.raises(ValueError, match="distance must be at least 0"):
        random_diffeomorphisms((5, 5), [1.0], [-1.0], generator)
    with pytest.raises(ValueError, match="steepest must be positive, got 0"):
        random_diffeomorphisms((5, 5), [1.0], [1.0], generator, steepest=0)
