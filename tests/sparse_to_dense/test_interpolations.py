"""Thin-plate and B-spline interpolation of scattered displacements: against SciPy, known functions and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from reg_bench.field import identity_grid
from reg_bench.sparse_to_dense import BSplineInterpolation, Interpolation, ThinPlateInterpolation, on_nearest_voxels

SHAPES = [(40, 33), (14, 17, 12)]
ALL = [ThinPlateInterpolation(), ThinPlateInterpolation(lam=2.0), BSplineInterpolation(spacing=6)]
IDS = ["exact", "smooth", "bspline"]


def drawn(shape: tuple[int, ...], count: int, seed: int = 0, batch: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0, np.array(shape) - 1, (batch, count, len(shape))))


def smooth(places: Tensor) -> Tensor:
    """A displacement `(..., D)` of a few voxels at `places (..., D)`."""
    x, y = places[..., 0], places[..., -1]
    parts = (2 * torch.sin(x / 8) * torch.cos(y / 9), 3 * torch.cos(y / 10 + 0.3), torch.sin(x / 7))
    return torch.stack(parts[: places.shape[-1]], dim=-1)


def truth(shape: tuple[int, ...]) -> Tensor:
    return smooth(identity_grid(shape, dtype=torch.float64).movedim(0, -1)).movedim(-1, 0)[None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lam", [0.0, 5.0])
def test_thin_plate_is_that_of_scipy(shape: tuple[int, ...], lam: float) -> None:
    p = drawn(shape, 30)
    v = smooth(p) + torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, p.shape))
    name = "thin_plate_spline" if len(shape) == 2 else "linear"
    theirs = RBFInterpolator(p[0].numpy(), v[0].numpy(), kernel=name, degree=1, smoothing=lam)
    grid = identity_grid(shape, dtype=torch.float64).flatten(1).T.numpy()
    ours = ThinPlateInterpolation(lam)(p, v, None, shape)
    assert ours.confidence is None
    np.testing.assert_allclose(ours.u[0].flatten(1).T.numpy(), theirs(grid), atol=1e-8)
    # Half the confidence is twice the smoothing.
    half = ThinPlateInterpolation(lam / 2)(p, v, torch.full(p.shape[:2], 0.5), shape)
    torch.testing.assert_close(half.u, ours.u)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_affine_functions_are_kept(method: Interpolation, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    slope, shift = (
        torch.from_numpy(rng.normal(0, 0.2, (len(shape),) * 2)),
        torch.from_numpy(rng.normal(0, 3, len(shape))),
    )
    p = drawn(shape, 20)
    grid = identity_grid(shape, dtype=torch.float64).movedim(0, -1)
    expected = (grid @ slope + shift).movedim(-1, 0)[None]
    u = method(p, p @ slope + shift, torch.rand(p.shape[:2], dtype=torch.float64), shape).u
    torch.testing.assert_close(u, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_smooth_fields_are_met(method: Interpolation, shape: tuple[int, ...]) -> None:
    p = drawn(shape, 120).float()
    u = method(p, smooth(p), None, shape).u
    assert u.dtype == torch.float32
    error, still = (torch.linalg.vector_norm(x, dim=1).mean() for x in (u - truth(shape), truth(shape)))
    assert error < 0.12 * still


@pytest.mark.parametrize("method", [ThinPlateInterpolation(), BSplineInterpolation(spacing=0.5, levels=8)])
def test_points_are_passed_through(method: Interpolation) -> None:
    shape = (24, 31)
    p = torch.tensor([[[3.0, 4.0], [10.0, 20.0], [17.0, 6.0], [20.0, 28.0], [4.0, 25.0], [12.0, 11.0]]])
    v = smooth(p) + torch.tensor([1.0, -1.0, 2.0, 0.0, 3.0, 0.5])[:, None]
    u = method(p, v, None, shape).u
    where = p[0].long()
    torch.testing.assert_close(u[0, :, where[:, 0], where[:, 1]].T, v[0], atol=2e-3, rtol=0)


def test_first_level_is_the_paper_s_formula() -> None:
    """Equations 3 to 5 of Lee, Wolberg and Shin in loops, for one control grid."""
    shape, spacing = (21, 31), 10.0
    p, rng = drawn(shape, 9, 3), np.random.default_rng(4)
    v, c = torch.from_numpy(rng.normal(0, 2, p.shape)), torch.from_numpy(rng.uniform(0.1, 1, (1, 9)))
    found = BSplineInterpolation(spacing, levels=1)(p, v, c, shape).u[0].numpy()
    x, y, w = p[0].numpy(), v[0].numpy(), c[0].numpy()
    design = np.concatenate((np.ones((9, 1)), x), axis=1)
    root = np.sqrt(w)[:, None]
    trend = np.linalg.lstsq(design * root, y * root, rcond=None)[0]
    left = y - design @ trend

    def basis(v: float) -> np.ndarray:
        return np.array([(1 - v) ** 3, 3 * v**3 - 6 * v**2 + 4, -3 * v**3 + 3 * v**2 + 3 * v + 1, v**3]) / 6

    above, below = np.zeros((5, 6, 2)), np.zeros((5, 6, 1))
    for place, value, weight in zip(x / spacing, left, w, strict=True):
        i, j = (min(math.floor(t), m - 1) for t, m in zip(place, (2, 3), strict=True))
        taps = np.outer(basis(place[0] - i), basis(place[1] - j))
        for k in range(4):
            for l in range(4):  # noqa: E741
                alone = taps[k, l] * value / (taps**2).sum()
                above[i + k, j + l] += weight * taps[k, l] ** 2 * alone
                below[i + k, j + l] += weight * taps[k, l] ** 2
    control = np.where(below > 0, above / np.where(below > 0, below, 1), 0)
    for at in ((0, 0), (7, 22), (20, 30), (13, 4)):
        i, j = min(at[0] // 10, 1), min(at[1] // 10, 2)
        taps = np.outer(basis(at[0] / 10 - i), basis(at[1] / 10 - j))
        expected = np.array([1, *at]) @ trend + (taps[..., None] * control[i : i + 4, j : j + 4]).sum((0, 1))
        np.testing.assert_allclose(found[:, *at], expected, atol=1e-9)


@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_what_cannot_be_used_is_left_out(method: Interpolation) -> None:
    shape = (20, 25)
    p = drawn(shape, 12)
    v, c = smooth(p), torch.full((1, 12), 0.7).double()
    expected = method(p, v, c, shape).u
    bad = torch.tensor([[[5.0, 5.0], [-0.6, 3.0], [3.0, 24.5], [math.nan, 2.0], [7.0, 9.0], [6.0, 6.0], [8.0, 8.0]]])
    wrong = torch.full_like(bad, 50.0)
    wrong[0, 4, 1] = math.inf
    confidence = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, math.nan, -1.0]])
    more = [torch.cat(x, dim=1) for x in ((bad.double(), p), (wrong.double(), v), (confidence.double(), c))]
    found = method(*more, shape).u
    torch.testing.assert_close(found, expected)
    assert not method(bad[:, :4].double(), wrong[:, :4].double(), confidence[:, :4], (20, 24)).u.any()


@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_cases_of_a_batch_are_as_if_alone(method: Interpolation) -> None:
    shape = (20, 25)
    p = drawn(shape, 15, batch=3)
    v = smooth(p)
    c = torch.ones(3, 15).double()
    c[1, :9], c[2] = 0, 0
    c[2, 4] = 0.5
    together = method(p, v, c, shape).u
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], method(p[k : k + 1], v[k : k + 1], c[k : k + 1], shape).u)
    # A point alone moves everything as it moves itself.
    torch.testing.assert_close(together[2], v[2, 4][:, None, None].expand(-1, *shape))


@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_points_on_a_line_give_an_affine_function(method: Interpolation) -> None:
    p = torch.tensor([[[2.0, 3.0], [4.0, 6.0], [6.0, 9.0], [8.0, 12.0]]]).double()
    u = method(p, p * 0.5 + 1.0, None, (12, 20)).u
    assert u[0, 0, 2, 3] == pytest.approx(2.0, abs=1e-6)
    assert u[0, 1, 8, 12] == pytest.approx(7.0, abs=1e-6)
    assert u.abs().max() < 20


def test_points_at_one_place_are_one() -> None:
    shape = (12, 15)
    p = drawn(shape, 8)
    v = smooth(p)
    twice = torch.cat((p, p[:, :1]), dim=1), torch.cat((v, v[:, :1] + 4), dim=1)
    c = torch.ones(1, 9).double()
    c[0, 0] = 0.25
    mean = v.clone()
    mean[0, 0] += 4 * 1 / 1.25
    expected = ThinPlateInterpolation()(p, mean, None, shape).u
    torch.testing.assert_close(ThinPlateInterpolation()(*twice, c, shape).u, expected)


def test_least_confidence() -> None:
    shape = (12, 15)
    p = drawn(shape, 10)
    v, c = smooth(p), torch.linspace(0, 0.9, 10)[None]
    expected = ThinPlateInterpolation()(p[:, 5:], v[:, 5:], None, shape).u
    torch.testing.assert_close(ThinPlateInterpolation(least_confidence=0.5)(p, v, c, shape).u, expected)


@pytest.mark.parametrize("method", ALL, ids=IDS)
def test_gradient(method: Interpolation) -> None:
    p, c = drawn((7, 6), 6), torch.rand(1, 6, dtype=torch.float64).add(0.2)
    v = smooth(p).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: method(p, v, c, (7, 6)).u, (v,), fast_mode=True)


def test_values_on_the_nearest_voxels() -> None:
    p = torch.tensor([[[0.4, 1.6], [-0.4, 2.4], [2.0, 0.5], [1.0, 1.0]]])
    v = torch.tensor([[[1.0, 10.0], [4.0, 40.0], [7.0, 70.0], [9.0, 90.0]]])
    w = torch.tensor([[0.25, 0.75, 0.5, 0.0]])
    values, weights = on_nearest_voxels(p, v, w, (3, 3))
    expected, certainty = torch.zeros(2, 3, 3), torch.zeros(3, 3)
    expected[:, 0, 2], expected[:, 2, 1] = torch.tensor([3.25, 32.5]), torch.tensor([7.0, 70.0])
    certainty[0, 2], certainty[2, 1] = 0.75, 0.5
    torch.testing.assert_close(values[0], expected)
    torch.testing.assert_close(weights[0, 0], certainty)
    w = (w.double() + 0.1).requires_grad_()
    v = v.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: on_nearest_voxels(p, v, w, (3, 3)), (v, w))


def test_wrong_arguments_are_named() -> None:
    method, p = ThinPlateInterpolation(), torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match=r"points must be floating point \(B, N, 3\), got \(1, 4, 2\)"):
        method(p, p, None, (4, 4, 4))
    with pytest.raises(ValueError, match=r"values must be floating point \(1, 4, 2\)"):
        method(p, p[:, 1:], None, (4, 4))
    with pytest.raises(ValueError, match=r"confidence must be \(1, 4\), got \(4, 1\)"):
        method(p, p, torch.ones(4, 1), (4, 4))
    with pytest.raises(ValueError, match="shape must hold 2 or 3 positive lengths"):
        BSplineInterpolation()(p, p, None, (4,))
    with pytest.raises(ValueError, match="lam must be finite and at least 0, got -1"):
        ThinPlateInterpolation(-1)
    with pytest.raises(ValueError, match=r"least_confidence must be in 0\.\.1, got 2"):
        ThinPlateInterpolation(least_confidence=2)
    with pytest.raises(ValueError, match="spacing must be positive"):
        BSplineInterpolation(0)
