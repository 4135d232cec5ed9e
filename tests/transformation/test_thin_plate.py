"""Thin-plate splines against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from reg_bench import field
from reg_bench.transformation import Domain, ThinPlateSpline, thin_plate_spline

SCIPY_KERNEL = {2: "thin_plate_spline", 3: "linear"}


def scattered(dims: int, count: int = 20, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(batch, count, dims, generator=generator, dtype=torch.float64) * 30
    return source, source + 3 * torch.randn(batch, count, dims, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("lam", [0.0, 0.5, 40.0])
def test_agrees_with_scipy(dims: int, lam: float) -> None:
    source, target = scattered(dims)
    places = torch.rand(2, 200, dims, dtype=torch.float64) * 50 - 10
    found = thin_plate_spline(source, target, lam).at(places)
    for k in range(2):
        peer = RBFInterpolator(source[k].numpy(), target[k].numpy(), smoothing=lam, kernel=SCIPY_KERNEL[dims], degree=1)
        np.testing.assert_allclose(found[k].numpy(), peer(places[k].numpy()), atol=1e-8)


@pytest.mark.parametrize("dims", [2, 3])
def test_interpolates_exactly_and_obeys_the_side_conditions(dims: int) -> None:
    source, target = scattered(dims)
    spline = thin_plate_spline(source, target)
    torch.testing.assert_close(spline.at(source), target)
    assert spline.weights.sum(dim=1).abs().max() < 1e-9
    assert (spline.points.transpose(1, 2) @ spline.weights).abs().max() < 1e-9
    smooth = thin_plate_spline(source, target, 1e12).at(source)
    ones = torch.cat((torch.ones_like(source[..., :1]), source), dim=2)
    affine = ones @ torch.linalg.lstsq(ones, target).solution
    torch.testing.assert_close(smooth, affine, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_reproduces_affine_maps_everywhere(dims: int) -> None:
    source, _ = scattered(dims, 9)
    matrix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    places = torch.rand(2, 50, dims, dtype=torch.float64) * 100 - 30
    for lam in (0.0, 3.0):
        torch.testing.assert_close(thin_plate_spline(source, source @ matrix + 2, lam).at(places), places @ matrix + 2)


@pytest.mark.parametrize("shape", [(13, 9), (6, 11, 8), (40, 45, 50)])
def test_grid_is_the_same_as_points(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    source, target = scattered(dims, 30)
    spline = thin_plate_spline(source, target)
    edges = torch.tensor([[1.0, 0.5, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)[:, :dims]
    places = field.identity_grid(shape, dtype=torch.float64).flatten(1).T[None] * edges[:, None]
    expected = spline.at(places).transpose(1, 2).reshape(2, dims, *shape)
    torch.testing.assert_close(spline.on_grid(shape, edges, torch.float64), expected)
    single = spline.on_grid(shape, edges, torch.float32)
    assert single.dtype == torch.float32
    assert (single - expected).abs().max() < 2e-4 * expected.abs().max()


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_of_source_and_target(dims: int) -> None:
    source, target = (x.requires_grad_() for x in scattered(dims, 7, 1))
    places = torch.rand(1, 5, dims, dtype=torch.float64) * 30
    assert torch.autograd.gradcheck(
        lambda s, t: thin_plate_spline(s, t, 0.1).at(places), (source, target), fast_mode=True
    )
    edges = torch.ones(1, dims, dtype=torch.float64)
    shape = (3, 2, 2)[:dims]
    assert torch.autograd.gradcheck(
        lambda s, t: thin_plate_spline(s, t).on_grid(shape, edges, torch.float64), (source, target), fast_mode=True
    )


def test_a_plane_of_points_in_space_leaves_the_third_axis_alone() -> None:
    source, target = scattered(2)
    flat = torch.cat((source, torch.full_like(source[..., :1], 4.0)), dim=2)
    spline = thin_plate_spline(flat, torch.cat((target, flat[..., 2:]), dim=2))
    torch.testing.assert_close(spline.at(flat)[..., :2], target)


def test_points_that_do_not_determine_the_spline_are_refused() -> None:
    line = torch.stack((torch.arange(5.0), 2 * torch.arange(5.0)), dim=1)[None]
    with pytest.raises(ValueError, match="do not lie on one line"):
        thin_plate_spline(line, line)
    with pytest.raises(ValueError, match="3 or more points"):
        thin_plate_spline(line[:, :2], line[:, :2])
    twice = torch.tensor([[[0.0, 0.0], [1.0, 5.0], [7.0, 2.0], [7.0, 2.0]]])
    with pytest.raises(ValueError, match="distinct points"):
        thin_plate_spline(twice, twice)
    assert thin_plate_spline(twice, twice, 0.1).at(twice).isfinite().all()
    with pytest.raises(ValueError, match="lam must be finite and at least 0, got -1"):
        thin_plate_spline(twice, twice, -1)
    with pytest.raises(ValueError, match="target must be"):
        thin_plate_spline(twice, twice[:, :3])
    with pytest.raises(ValueError, match="source must be finite"):
        thin_plate_spline(twice * torch.nan, twice)


def test_control_points_of_the_model_move_as_told() -> None:
    fractions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.25, 0.5]])
    model, domain = ThinPlateSpline(control_points=fractions), Domain((9, 5), 1, torch.tensor([[1.0, 3.0]]))
    theta = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0))
    u = model.displacement(theta, domain)
    torch.testing.assert_close(u[0, :, 2, 2], theta[0, 4], atol=1e-5, rtol=0)
    torch.testing.assert_close(u[0, :, 8, 4], theta[0, 3], atol=1e-5, rtol=0)


def test_control_points_on_a_grid() -> None:
    domain = Domain((21, 11, 1), 2, torch.tensor([[2.0, 1.0, 1.0]] * 2))
    points = ThinPlateSpline(spacing=10, unit="mm").points(domain)
    assert points.shape == (2, 5 * 2, 3)
    assert sorted(set(points[0, :, 0].tolist())) == [0, 5, 10, 15, 20]
    assert sorted(set(points[0, :, 1].tolist())) == [0, 10]
    unequal = Domain((21, 11), 2, torch.tensor([[2.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="the cases of a batch need the same control grid"):
        ThinPlateSpline(spacing=10, unit="mm").identity(unequal)
    with pytest.raises(ValueError, match="either a spacing or control_points"):
        ThinPlateSpline()
    with pytest.raises(ValueError, match=r"control_points must be \(1, 3, 3\), got \(1, 3, 2\)"):
        ThinPlateSpline(control_points=[[0, 0], [1, 0], [0, 1]]).identity(Domain((4, 4, 4)))
