"""TRE, end-point error, inverse consistency, NCC, SSIM and MSE against SciPy, MONAI and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses.ssim_loss import SSIMLoss
from scipy import ndimage

from reg_bench import field as fields
from reg_bench.metrics import end_point_error, inverse_consistency, mse, ncc, ssim, tre
from reg_bench.metrics.cubic import cubic_at


def random_field(seed: int, shape: tuple[int, ...], size: float = 3.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.standard_normal((1, len(shape), *shape)) * size).astype(np.float32))


def random_points(seed: int, shape: tuple[int, ...], count: int = 40) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(0, 1, (count, len(shape))) * (np.array(shape) - 1)
    points[0], points[1], points[2] = 0, np.array(shape) - 1, np.round(points[2])
    return points


@pytest.mark.parametrize("shape", [(60, 45, 37), (9, 50, 4), (1, 20, 2), (48, 61), (3, 3, 3)])
def test_cubic_samples_equal_scipy(shape: tuple[int, ...]) -> None:
    u, points = random_field(0, shape)[0].numpy(), random_points(1, shape)
    points[3] = -0.1
    points[4, -1] = shape[-1] - 1 + 1e-6
    expected = np.stack([ndimage.map_coordinates(c.astype(float), points.T) for c in u], -1)
    np.testing.assert_allclose(cubic_at(u, points), expected, atol=1e-7)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_tre_equals_scipy(interpolation: str) -> None:
    shape, spacing = (30, 25, 41), np.array([1.5, 0.8, 2.5])
    u, fixed = random_field(2, shape), random_points(3, shape)
    moving = fixed + np.random.default_rng(4).standard_normal(fixed.shape)
    order = 3 if interpolation == "cubic" else 1
    at = np.stack([ndimage.map_coordinates(c.astype(float), fixed.T, order=order) for c in u[0].numpy()], -1)
    expected = np.linalg.norm((fixed + at - moving) * spacing, axis=1)
    np.testing.assert_allclose(tre(u, fixed, moving, spacing, interpolation), expected, atol=1e-5)


def test_tre_by_hand() -> None:
    u = torch.zeros(1, 3, 9, 9, 9)
    u[0, 2] = 2.0
    fixed = torch.tensor([[4.0, 4.0, 4.0], [1.25, 2.0, 3.0]])
    moving = fixed + torch.tensor([0.0, 0.0, 2.0])
    assert tre(u, fixed, moving).tolist() == [0.0, 0.0]
    assert tre(-u, fixed, moving, (1, 1, 0.5)).tolist() == [2.0, 2.0]
    assert tre(u, fixed[:0], moving[:0]).shape == (0,)


def test_tre_messages() -> None:
    u = torch.zeros(1, 3, 5, 5, 5)
    with pytest.raises(ValueError, match="2 fixed points but 1 moving"):
        tre(u, np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(N, 3\) voxels"):
        tre(u, np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="'linear' or 'cubic'"):
        tre(u, np.zeros((1, 3)), np.zeros((1, 3)), interpolation="spline")


@pytest.mark.parametrize("shape", [(40, 50), (70, 40, 30)])
def test_end_point_error_equals_numpy(shape: tuple[int, ...]) -> None:
    u, truth = random_field(0, shape), random_field(1, shape)
    spacing = np.array([1.5, 0.5, 2.0][: len(shape)])
    mask = torch.from_numpy(np.random.default_rng(2).random(shape) < 0.3)
    expected = np.linalg.norm((u - truth)[0].numpy() * spacing.reshape(-1, *[1] * len(shape)), axis=0)
    assert end_point_error(u, truth, spacing) == pytest.approx(expected.mean(), rel=1e-5)
    assert end_point_error(u, truth, spacing, mask) == pytest.approx(expected[mask.numpy()].mean(), rel=1e-5)
    assert np.isnan(end_point_error(u, truth, mask=torch.zeros(shape)))


def test_exact_inverse_is_consistent() -> None:
    # A translation and its inverse; borders repeat, so it holds everywhere.
    u = torch.zeros(1, 3, 20, 18, 16)
    u[0, 0], u[0, 2] = 1.5, -2.25
    assert inverse_consistency(u, -u) == pytest.approx(0, abs=1e-6)
    assert inverse_consistency(u, u, (1.0, 1.0, 2.0)) == pytest.approx(np.hypot(3.0, 9.0), rel=1e-6)


def test_inverse_consistency_equals_composition() -> None:
    # Grids of different size, more than one block.
    u, v = random_field(0, (50, 48, 40), 1.5), random_field(1, (44, 52, 38), 1.5)
    residual = u + fields.warp(v, u)
    mask = torch.from_numpy(np.random.default_rng(2).random((50, 48, 40)) < 0.5)
    length = residual[0].mul(torch.tensor([0.5, 1.0, 3.0])[:, None, None, None]).norm(dim=0)
    found = inverse_consistency(u, v, (0.5, 1.0, 3.0), mask)
    assert found == pytest.approx(float(length[mask].mean()), rel=1e-4)


def images(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    b = a + 0.1 * rng.standard_normal(shape)
    return tuple(torch.from_numpy(x.astype(np.float32) * 300 + 1000)[None, None] for x in (a, b))


def test_ssim_equals_monai_in_2d() -> None:
    a, b = (x / 1000 for x in images((40, 33)))
    spread = float(a.max() - a.min())
    expected = 1 - SSIMLoss(2, data_range=spread)(a.double(), b.double()).item()
    assert ssim(a, b) == pytest.approx(expected, abs=2e-5)
    assert ssim(a, a) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(40, 33), (30, 26, 35), (90, 40, 41)])
def test_ssim_equals_the_formula_with_scipy_windows(shape: tuple[int, ...]) -> None:
    a, b = images(shape)
    x, y = (i[0, 0].double().numpy() for i in (a, b))
    spread = x.max() - x.min()

    def smooth(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)

    mean_x, mean_y = smooth(x), smooth(y)
    var = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    cov = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    expected = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var + c2))
    assert ssim(a, b) == pytest.approx(expected[(slice(5, -5),) * len(shape)].mean(), abs=1e-5)


def test_ssim_counts_masked_voxels_whose_window_fits() -> None:
    a, b = images((30, 26, 35))
    c = b.clone()
    c[..., :5] += 5000  # far from the mask
    mask = torch.zeros(30, 26, 35, dtype=torch.bool)
    mask[:, :, 12:] = True
    assert ssim(a, b, mask) == pytest.approx(ssim(a, c, mask), abs=1e-6)
    assert ssim(a, b, mask) != pytest.approx(ssim(a, b), abs=1e-5)
    border = torch.zeros(30, 26, 35, dtype=torch.bool)
    border[0] = True
    assert np.isnan(ssim(a, b, border))


def test_ssim_of_thin_and_constant_images() -> None:
    a, b = images((4, 30, 30))
    assert -1 <= ssim(a, b) < 1
    assert np.isnan(ssim(torch.ones(1, 1, 20, 20), torch.ones(1, 1, 20, 20)))


@pytest.mark.parametrize("shape", [(400, 333), (30, 60, 75)])
def test_ncc_and_mse_equal_numpy(shape: tuple[int, ...]) -> None:
    a, b = images(shape)
    mask = torch.from_numpy(np.random.default_rng(2).random(shape) < 0.3)
    x, y = (i[0, 0].double().numpy() for i in (a, b))
    inside = mask.numpy()
    assert ncc(a, b) == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-9)
    assert ncc(a, b, mask) == pytest.approx(np.corrcoef(x[inside], y[inside])[0, 1], abs=1e-9)
    assert mse(a, b) == pytest.approx(((x - y) ** 2).mean(), rel=1e-9)
    assert mse(a, b, mask) == pytest.approx(((x - y) ** 2)[inside].mean(), rel=1e-9)


def test_similarity_leaves_the_images_alone() -> None:
    a, b = (x.double() for x in images((40, 40)))
    before = a.clone(), b.clone()
    for function in (ncc, mse, ssim):
        function(a, b, torch.ones(40, 40))
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_ncc_is_affine_invariant_and_undefined_for_constants() -> None:
    a, _ = images((30, 30))
    assert ncc(a, 3 * a + 7) == pytest.approx(1, abs=1e-9)
    assert ncc(a, -a) == pytest.approx(-1, abs=1e-9)
    assert np.isnan(ncc(a, torch.full_like(a, 5)))


def test_channels_are_averaged() -> None:
    a, b = images((30, 30))
    assert mse(torch.cat([a, a], 1), torch.cat([b, a], 1)) == pytest.approx(mse(a, b) / 2)
    with pytest.raises(ValueError, match="two images"):
        mse(a, b[..., 1:])
