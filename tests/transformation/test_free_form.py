"""Free-form deformations against SimpleITK and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.interpolate import BSpline

from reg_bench import field
from reg_bench.transformation import Domain, FreeFormDeformation, evaluate_bspline, refine_bspline
from reg_bench.transformation.bspline import bspline_basis, bspline_weights, control_shape


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("shape", "spacing"), [((25, 34), 6.0), ((13, 18, 11), 5.0), ((16, 16, 16), 40.0)])
def test_agrees_with_simpleitk(shape: tuple[int, ...], spacing: float) -> None:
    dims = len(shape)
    model, domain = FreeFormDeformation(spacing), Domain(shape, dtype=torch.float64)
    theta = random(*model.identity(domain).shape)
    u = model.displacement(theta, domain)[0]
    peer = sitk.BSplineTransform(dims, 3)
    peer.SetTransformDomainOrigin([0.0] * dims)
    peer.SetTransformDomainPhysicalDimensions([n - 1.0 for n in shape])
    peer.SetTransformDomainMeshSize([n - 3 for n in theta.shape[2:]])
    # SimpleITK runs fastest along its first axis, which is the first of the components too.
    flat = [np.ravel(component.numpy(), order="F") for component in theta[0]]
    peer.SetParameters(np.concatenate(flat).tolist())
    generator = np.random.default_rng(0)
    for _ in range(60):
        voxel = generator.integers(0, np.array(shape) - 1)  # the last voxel is outside for SimpleITK
        expected = np.subtract(peer.TransformPoint(voxel.astype(float).tolist()), voxel)
        np.testing.assert_allclose(u[(slice(None), *voxel)].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("intervals", [1, 2, 7])
def test_basis_is_that_of_scipy_and_sums_to_one(intervals: int) -> None:
    places = np.linspace(0, intervals, 23)
    basis = bspline_basis(places, intervals)
    knots = np.arange(-3, intervals + 4)
    expected = np.stack([BSpline.basis_element(knots[k : k + 5])(places) for k in range(intervals + 3)], axis=1)
    inside = np.stack([(places >= knots[k]) & (places <= knots[k + 4]) for k in range(intervals + 3)], axis=1)
    np.testing.assert_allclose(basis, np.where(inside, expected, 0), atol=1e-12)
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    np.testing.assert_allclose(bspline_weights(np.array(0.0)), [1 / 6, 4 / 6, 1 / 6, 0])


def test_support_is_local() -> None:
    coefficients = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    coefficients[0, 0, 4, 4] = 1
    u = evaluate_bspline(coefficients, (6, 6), (61, 61))[0, 0]
    reached = (u != 0).nonzero()
    assert reached.min() == 11
    assert reached.max() == 49
    assert float(u[30, 30]) == pytest.approx((2 / 3) ** 2)


@pytest.mark.parametrize("shape", [(20, 31), (14, 9, 17)])
def test_reproduces_affine_displacements(shape: tuple[int, ...]) -> None:
    """Coefficients that are linear in the place of their knot."""
    dims = len(shape)
    intervals = tuple(range(2, 2 + dims))
    matrix = random(dims, dims)
    steps = [(n - 1) / m for n, m in zip(shape, intervals, strict=True)]
    knots = [
        (torch.arange(p, dtype=torch.float64) - 1) * s for p, s in zip(control_shape(intervals), steps, strict=True)
    ]
    places = torch.stack(torch.meshgrid(*knots, indexing="ij"))
    u = evaluate_bspline(torch.tensordot(matrix, places, dims=1)[None] + 1.5, intervals, shape)
    grid = field.identity_grid(shape, dtype=torch.float64)
    torch.testing.assert_close(u[0], torch.tensordot(matrix, grid, dims=1) + 1.5)


@pytest.mark.parametrize(("old", "new"), [((2, 3), (4, 6)), ((1, 2, 3), (2, 6, 3)), ((0, 4), (0, 8))])
def test_refinement_is_exact_where_intervals_are_divided(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    coefficients = random(2, 3, *control_shape(old))
    shape = (1 if old[0] == 0 else 29, 26, 23)[: len(old)]
    before = evaluate_bspline(coefficients, old, shape)
    after = evaluate_bspline(refine_bspline(coefficients, old, new), new, shape)
    torch.testing.assert_close(after, before)


def test_refinement_by_two_is_the_subdivision_of_cubic_splines() -> None:
    """Lane and Riesenfeld: new coefficients are (1, 6, 1) / 8 and (1, 1) / 2 of the old."""
    c = random(1, 1, 7, 4)
    fine = refine_bspline(c, (4, 1), (8, 1))[0, 0]
    c = c[0, 0]
    torch.testing.assert_close(fine[0::2], (c[:-1] + c[1:]) / 2)
    torch.testing.assert_close(fine[1::2], (c[:-2] + 6 * c[1:-1] + c[2:]) / 8)


def test_refinement_that_does_not_divide_is_a_close_fit() -> None:
    coefficients = field.gaussian(random(1, 1, 13, 13), 2.0)
    before = evaluate_bspline(coefficients, (10, 10), (61, 61))
    after = evaluate_bspline(refine_bspline(coefficients, (10, 10), (13, 13)), (13, 13), (61, 61))
    assert (after - before).abs().max() < 0.02 * before.abs().max()


def test_spacing_in_millimetres_makes_a_control_grid_per_case() -> None:
    """Case 1 has voxels half as long, and half as many intervals: the rest of its parameters has no effect."""
    spacing = torch.tensor([[2.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    model, domain = FreeFormDeformation(8, "mm"), Domain((33, 17), 2, spacing, dtype=torch.float64)
    theta = random(*model.identity(domain).shape).requires_grad_()
    assert theta.shape == (2, 2, 11, 7)
    u = model.displacement(theta, domain)
    alone = model.displacement(theta[1:, :, :7, :5], Domain((33, 17), 1, spacing[1:], dtype=torch.float64))
    torch.testing.assert_close(u[1:], alone)
    (gradient,) = torch.autograd.grad(u.square().sum(), theta)
    assert gradient[1, :, 7:].eq(0).all()
    assert gradient[1, :, :7, :5].ne(0).all()
    fine = domain.resized((65, 33))
    again = model.displacement(model.resampled(theta, domain, fine), fine)
    torch.testing.assert_close(again[:, :, ::2, ::2], 2 * u)


def test_number_of_parameters() -> None:
    # Paper I: 20 pixels on 256 make a mesh of 13 intervals and 16^2 coefficients per component.
    assert FreeFormDeformation(20).num_parameters(Domain((256, 256))) == 512
    assert FreeFormDeformation(4, "mm").num_parameters(Domain((9, 9, 1), 1, torch.ones(1, 3))) == 3 * 25


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="spacing must be positive, got 0"):
        FreeFormDeformation(0)
    with pytest.raises(ValueError, match="unit must be 'voxel' or 'mm', got 'px'"):
        FreeFormDeformation(4, "px")
    with pytest.raises(ValueError, match="needs the spacing"):
        FreeFormDeformation(4, "mm").identity(Domain((9, 9)))
    assert math.prod(control_shape((3, 0))) == 6
