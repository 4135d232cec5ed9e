"""Interpolation as a convolution with separable kernels (thesis eqs. 2.49-2.52), read off impulses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.field import MODES, identity_grid, sample, warp


def response(mode: str, t: Tensor) -> Tensor:
    """`h(t)` for `t (N,)`: what an impulse in the middle of a line is worth at a distance of `t` voxels."""
    impulse = torch.zeros(1, 1, 13, 1, dtype=torch.float64)
    impulse[0, 0, 6] = 1.0
    points = torch.stack((6 + t, torch.zeros_like(t)), dim=1)[None]
    return sample(impulse, points, mode=mode)[0, :, 0]


def nearest(t: float) -> float:
    """(2.50); a tie goes to the voxel above."""
    return 1.0 if -0.5 <= t < 0.5 else 0.0


def linear(t: float) -> float:
    """(2.51)."""
    return max(1 - abs(t), 0.0)


def cubic(t: float) -> float:
    """(2.52) with a = -1/2."""
    a, t = -0.5, abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


KERNELS = {"nearest": nearest, "linear": linear, "cubic": cubic}


def test_all_modes_are_covered() -> None:
    assert set(KERNELS) == set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_an_impulse_shows_the_kernel_of_the_thesis(mode: str) -> None:
    t = torch.arange(-3.0, 3.0, 0.0625, dtype=torch.float64)
    expected = [KERNELS[mode](float(v)) for v in t]
    np.testing.assert_allclose(response(mode, t).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_kernels_are_one_at_their_voxel_and_zero_at_all_others(mode: str) -> None:
    """`h(0) = 1` and `h(k) = 0`: interpolation keeps the values at the voxels."""
    values = response(mode, torch.arange(-4.0, 5.0, dtype=torch.float64))
    assert values.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_shifted_kernels_sum_to_one(mode: str) -> None:
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    total = sum((response(mode, t + k) for k in range(-3, 4)), torch.zeros_like(t))
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-14, rtol=0)


def polynomial(place: Tensor, degree: int) -> Tensor:
    """A full polynomial of total degree up to 3 of positions `(D, ...)`, degree 2 terms mixed."""
    x, y, z = (place[min(c, len(place) - 1)] for c in range(3))
    terms = {0: 2.0 + 0 * x, 1: 0.7 * x - 1.1 * y + 0.4 * z, 2: 0.3 * x * x - 0.2 * x * y + 0.1 * y * z - 0.15 * z * z}
    terms[3] = 0.05 * x**3 - 0.02 * x * y * z
    return torch.as_tensor(sum(value for power, value in terms.items() if power <= degree))


@pytest.mark.parametrize("spatial", [(14, 12), (11, 10, 12)])
@pytest.mark.parametrize(("mode", "exact"), [("nearest", 0), ("linear", 1), ("cubic", 2)])
def test_polynomials_are_exact_up_to_the_degree_of_the_kernel_and_not_beyond(
    spatial: tuple[int, ...], mode: str, exact: int
) -> None:
    """By `sample` and by `warp`, away from the border, whose voxels are repeated."""
    generator = torch.Generator().manual_seed(4)
    u = torch.rand(1, len(spatial), *spatial, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    grid = identity_grid(spatial, dtype=torch.float64)
    inner = (slice(None), slice(None), *(slice(3, -3),) * len(spatial))
    for degree in (exact, exact + 1):
        image = polynomial(grid, degree)[None, None]
        expected = polynomial(grid + u[0], degree)[None, None]
        error = float((warp(image, u, mode=mode) - expected)[inner].abs().max())
        points = (grid + u[0])[inner[1:]].flatten(1).T[None]
        at_points = sample(image, points, mode=mode)[0, :, 0] - expected[inner].flatten()
        assert abs(float(at_points.abs().max()) - error) < 1e-10
        assert error < 1e-10 if degree == exact else error > 1e-3


def test_nearest_invents_no_label_and_linear_does() -> None:
    labels = torch.tensor([0, 0, 7, 7, 3, 3]).reshape(1, 1, 1, 6)
    u = torch.zeros(1, 2, 1, 6)
    u[:, 1] = 0.4
    assert set(warp(labels, u, mode="nearest").flatten().tolist()) <= {0, 3, 7}
    assert not set(warp(labels.float(), u).flatten().tolist()) <= {0.0, 3.0, 7.0}
