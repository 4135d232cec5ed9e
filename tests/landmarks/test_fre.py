"""The weighted registration error of landmarks, by hand."""

from __future__ import annotations

import pytest
import torch

from reg_bench.field import identity_grid
from reg_bench.landmarks import fiducial_registration_error, landmark_energy, squared_distance

SQUARE = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)
MOVED = torch.tensor([[[0.0, 1.0], [3.0, 0.0], [3.0, 6.0]]], dtype=torch.float64)  # distances 1, 0, 5


def test_root_of_the_mean_squared_distance() -> None:
    assert squared_distance(SQUARE, MOVED).tolist() == [pytest.approx(26 / 3)]
    assert fiducial_registration_error(SQUARE, MOVED).tolist() == [pytest.approx((26 / 3) ** 0.5)]
    assert fiducial_registration_error(SQUARE, SQUARE).tolist() == [0.0]


def test_weights_count_relative_to_their_sum_and_zero_leaves_out() -> None:
    weights = torch.tensor([[3.0, 0.0, 1.0]])
    assert squared_distance(SQUARE, MOVED, weights).tolist() == [pytest.approx((3 * 1 + 25) / 4)]
    assert squared_distance(SQUARE, MOVED, weights * 7).tolist() == [pytest.approx(7.0)]
    broken = MOVED.clone()
    broken[0, 1] = torch.nan
    assert squared_distance(SQUARE, broken, weights).tolist() == [pytest.approx(7.0)]


def test_cases_of_a_batch_have_errors_of_their_own() -> None:
    both = squared_distance(torch.cat((SQUARE, SQUARE)), torch.cat((MOVED, SQUARE)))
    assert both.tolist() == [pytest.approx(26 / 3), 0.0]


def test_energy_of_a_field_is_the_distance_after_it() -> None:
    """A field that maps `x` to `2 x` at fractional landmarks, with and without spacing."""
    u = identity_grid((9, 8), dtype=torch.float64)[None]
    fixed = torch.tensor([[[1.25, 2.0], [2.5, 3.75]]], dtype=torch.float64)
    assert landmark_energy(u, fixed, 2 * fixed).tolist() == [pytest.approx(0.0)]
    off = 2 * fixed + torch.tensor([3.0, -1.0])
    assert landmark_energy(u, fixed, off).tolist() == [pytest.approx(10.0)]
    spacing = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    assert landmark_energy(u, fixed, off, spacing_mm=spacing).tolist() == [pytest.approx(1.5**2 + 2.0**2)]


def test_gradients() -> None:
    weights = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    moved = (MOVED + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: squared_distance(SQUARE, p, weights), (moved,))
    assert torch.autograd.gradcheck(lambda p: fiducial_registration_error(SQUARE, p, weights), (moved,))
    u = torch.zeros(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: landmark_energy(f, SQUARE * 0.9, MOVED), (u,))


def test_wrong_points_are_named() -> None:
    with pytest.raises(ValueError, match=r"two equal floating point shapes \(B, N, D\)"):
        squared_distance(SQUARE, MOVED[:, :2])
    with pytest.raises(ValueError, match="at least one point"):
        squared_distance(SQUARE[:, :0], MOVED[:, :0])
    with pytest.raises(ValueError, match=r"weights must be \(1, 3\)"):
        squared_distance(SQUARE, MOVED, torch.ones(3))
    with pytest.raises(ValueError, match="not all 0 in a case"):
        squared_distance(SQUARE, MOVED, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 0"):
        squared_distance(SQUARE, MOVED, torch.tensor([[1.0, -1.0, 1.0]]))
