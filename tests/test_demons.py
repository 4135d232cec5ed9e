"""Demons on one grid: ITK's filters voxel by voxel, the forces in closed form, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from lightning_modules.simpleitk_bridge import array_of, to_image
from reg_bench.demons import (
    Demons,
    bessel_kernel,
    demons,
    fixed_gradient,
    force,
    is_inside,
    relative_edges,
    smoothed,
    squarings,
    warped_gradient,
)
from reg_bench.field import identity_grid, jacobian_determinant
from tests.lightning_modules.shapes import Array, pair_of

GRIDS = [((40, 36), (1.4, 2.1)), ((24, 20, 14), (1.0, 1.3, 2.5))]
FILTERS = {
    ("thirion", "additive"): sitk.DemonsRegistrationFilter,
    ("symmetric", "additive"): sitk.FastSymmetricForcesDemonsRegistrationFilter,
    ("symmetric", "diffeomorphic"): sitk.DiffeomorphicDemonsRegistrationFilter,
}
#: Both compute in float64; ITK's Bessel functions are polynomials good to 1e-7.
VOXELS = 1e-6


def images(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """A pair in float64, 0..1, whose motion of up to 2.5 voxels leads out of the moving image at the border."""
    edges = np.reshape(spacing, (-1, *(1,) * len(spacing)))

    def wave(x: Array) -> Array:
        return np.asarray(x + 2.5 * edges * np.stack([np.sin(x[1] / 9 + k) for k in range(len(shape))]))

    pair, _ = pair_of(shape, wave, spacing)
    top = pair.fixed.max()
    return (pair.fixed / top).double(), (pair.moving / top).double()


def itk_field(
    fixed: Tensor, moving: Tensor, spacing: tuple[float, ...], settings: Demons, iterations: int
) -> NDArray[np.float64]:
    """ITK's displacement `(D, *S)` in voxels, smoothed at the end of every iteration."""
    edges = np.array(spacing)
    classic = settings.forces == "thirion"
    if settings.forces == "optical-flow":
        demon = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demon.SetUseGradientType(sitk.FastSymmetricForcesDemonsRegistrationFilter.Fixed)
    else:
        demon = FILTERS[settings.forces, settings.composition]()
    demon.SetNumberOfIterations(iterations)
    demon.SetMaximumRMSError(0.0)
    demon.SetSmoothDisplacementField(settings.sigma_voxels > 0)
    demon.SetStandardDeviations(settings.sigma_voxels or 1.0)
    demon.SetSmoothUpdateField(settings.update_sigma_voxels > 0)
    demon.SetUpdateFieldStandardDeviations(settings.update_sigma_voxels or 1.0)
    if not classic:
        demon.SetMaximumUpdateStepLength(settings.step)
    u = demon.Execute(*(to_image(image[0, 0].numpy(), edges) for image in (fixed, moving)))
    if classic and settings.sigma_voxels > 0:
        # The classic filter smooths before an iteration, so that the last update is left rough.
        dims = len(spacing)
        parts = (sitk.VectorIndexSelectionCast(u, k) for k in range(dims))
        variance = [settings.sigma_voxels**2] * dims
        u = sitk.Compose([sitk.DiscreteGaussian(part, variance, 30, [0.1] * dims, False) for part in parts])
    return np.asarray(array_of(u) / edges.reshape(-1, *(1,) * len(spacing)))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize(("sigma", "update_sigma"), [(1.5, 0.0), (0.0, 1.0), (1.0, 0.8)])
@pytest.mark.parametrize(("forces", "composition"), FILTERS)
def test_equals_itk(
    shape: tuple[int, ...], spacing: tuple[float, ...], sigma: float, update_sigma: float, forces: str, composition: str
) -> None:
    fixed, moving = images(shape, spacing)
    settings = Demons(forces, composition, sigma, update_sigma, kernel="bessel")  # type: ignore[arg-type]
    start = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    u, _ = demons(fixed, moving, start, 10, settings, torch.tensor([spacing], dtype=torch.float64))
    theirs = itk_field(fixed, moving, spacing, settings, 10)
    assert np.abs(theirs).max() > 2
    # Some voxels are mapped outside, where they feel no force: that is compared, too.
    assert not bool(is_inside(u, moving.shape[2:]).all())
    np.testing.assert_allclose(u[0].numpy(), theirs, rtol=0, atol=VOXELS)


@pytest.mark.parametrize(("forces", "composition"), [("symmetric", "additive"), ("symmetric", "diffeomorphic")])
@pytest.mark.parametrize("step", [0.2, 0.9])
def test_equals_itk_with_other_steps(forces: str, composition: str, step: float) -> None:
    shape, spacing = GRIDS[0]
    fixed, moving = images(shape, spacing)
    settings = Demons(forces, composition, step=step, kernel="bessel")  # type: ignore[arg-type]
    u, _ = demons(fixed, moving, torch.zeros(1, 2, *shape).double(), 8, settings, torch.tensor([spacing]).double())
    np.testing.assert_allclose(u[0].numpy(), itk_field(fixed, moving, spacing, settings, 8), rtol=0, atol=VOXELS)


def test_optical_flow_without_a_limit_equals_itk() -> None:
    """ITK's threshold is 1e-9 of the squared doubled gradient in mm."""
    shape, spacing = GRIDS[0]
    fixed, moving = images(shape, spacing)
    threshold = 0.5 * math.sqrt(1e-9) * math.sqrt(float(np.mean(np.square(spacing))))
    settings = Demons("optical-flow", step=0.0, gradient_threshold=threshold, kernel="bessel")
    u, _ = demons(fixed, moving, torch.zeros(1, 2, *shape).double(), 2, settings, torch.tensor([spacing]).double())
    theirs = itk_field(fixed, moving, spacing, settings, 2)
    assert np.abs(theirs).max() > 10, "unstabilised forces are large in flat places"
    np.testing.assert_allclose(u[0].numpy(), theirs, rtol=1e-6, atol=VOXELS)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.5, 4.0])
def test_bessel_kernel_is_that_of_itk(sigma: float) -> None:
    impulse = np.zeros((121, 1))
    impulse[60] = 1
    theirs = sitk.DiscreteGaussian(sitk.GetImageFromArray(impulse.T), [sigma**2, 0.0], 30, [0.1, 0.1], False)
    kernel = bessel_kernel(sigma)
    radius = len(kernel) // 2
    mine = np.zeros(121)
    mine[60 - radius : 61 + radius] = kernel
    np.testing.assert_allclose(mine, sitk.GetArrayFromImage(theirs).ravel(), atol=1e-6)


def test_sampled_kernel_is_that_of_scipy() -> None:
    u = torch.randn(1, 2, 17, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(c, 1.5, mode="nearest") for c in u[0].numpy()])
    np.testing.assert_allclose(smoothed(u, 1.5, "sampled")[0].numpy(), expected, atol=1e-12)
    assert smoothed(u, 0.0, "sampled") is u


def _ramp(slope: tuple[float, ...], offset: float, shape: tuple[int, ...] = (9, 8)) -> Tensor:
    grid = identity_grid(shape, dtype=torch.float64)
    return (torch.tensor(slope, dtype=torch.float64).reshape(-1, *(1,) * len(shape)) * grid).sum(0)[None, None] + offset


def test_forces_on_ramps_in_closed_form() -> None:
    """Fixed `a . x + c`, moving `a . x`: the difference is `c` everywhere."""
    slope, offset = torch.tensor([0.3, -0.4], dtype=torch.float64), 0.5
    fixed = _ramp((0.3, -0.4), offset)
    gradient = fixed_gradient(fixed, torch.ones(1, 2, dtype=torch.float64))
    inner = gradient[0, 0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inner, slope.reshape(2, 1, 1).expand_as(inner))
    assert not gradient[0, 0, 0, [0, -1]].any(), "no derivative across the border, as in ITK"
    d = torch.full_like(fixed, offset)
    # Equation 2.18 solves the linearised problem exactly: g . du = d.
    flow = force(d, gradient, Demons("optical-flow", step=0.0))[0, :, 4, 4]
    torch.testing.assert_close(flow, slope * offset / 0.25)
    # Equation 2.19, here with |g| = |d| = 0.5: half of it, and the longest that it ever gets.
    stable = force(d, gradient, Demons("thirion", step=0.5))[0, :, 4, 4]
    torch.testing.assert_close(stable, slope * offset / (0.25 + 0.25))
    assert float(stable.norm()) == pytest.approx(0.5)
    # Cut off, the direction stays.
    short = force(d, gradient, Demons("optical-flow", step=0.5))[0, :, 4, 4]
    torch.testing.assert_close(short, flow * 0.5 / flow.norm())


@pytest.mark.parametrize("forces", ["optical-flow", "thirion", "symmetric"])
@pytest.mark.parametrize("step", [0.5, 1.5])
def test_no_update_is_longer_than_the_step(forces: str, step: float) -> None:
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(2, 3, 20, 20, generator=generator)
    gradient = torch.randn(2, 3, 2, 20, 20, generator=generator) * torch.rand(2, 1, 1, 20, 20, generator=generator)
    length = force(d, gradient, Demons(forces, step=step)).norm(dim=1)  # type: ignore[arg-type]
    assert float(length.max()) <= step * (1 + 1e-5)
    assert float(length.max()) > 0.9 * step


def test_thresholds_silence_voxels() -> None:
    gradient = torch.ones(1, 1, 2, 4, 4)
    assert not force(torch.full((1, 1, 4, 4), 9e-4), gradient, Demons("thirion")).any()
    assert force(torch.full((1, 1, 4, 4), 1.1e-3), gradient, Demons("thirion")).all()
    settings = Demons("optical-flow", gradient_threshold=1.0)
    d = torch.ones(1, 1, 4, 4)
    assert not force(d, 0.7 * gradient, settings).any()
    assert force(d, 0.72 * gradient, settings).all()


def test_equal_channels_push_like_one() -> None:
    fixed, moving = images(*GRIDS[0])
    start = torch.zeros(1, 2, 40, 36, dtype=torch.float64)
    one, _ = demons(fixed, moving, start, 5)
    three, _ = demons(fixed.repeat(1, 3, 1, 1), moving.repeat(1, 3, 1, 1), start, 5)
    torch.testing.assert_close(one, three)


def test_differences_of_a_warped_image_stay_inside() -> None:
    """A ramp with nonsense where it is outside: the derivative is right wherever one neighbour is inside."""
    image = _ramp((2.0, 0.0), 0.0)
    inside = torch.ones_like(image, dtype=torch.bool)
    inside[..., 0, :] = False
    inside[..., 5:7, 3] = False
    broken = torch.where(inside, image, 99.0)
    gradient = warped_gradient(broken, inside, torch.tensor([[2.0, 1.0]], dtype=torch.float64))
    along = gradient[0, 0, 0][inside[0, 0]]
    torch.testing.assert_close(along, torch.ones_like(along))
    assert not gradient[0, 0, 1][inside[0, 0]].any()


@pytest.mark.parametrize("dims", [2, 3])
def test_equal_images_do_not_move(dims: int) -> None:
    image = torch.rand(2, 1, *(12, 10, 9)[:dims], generator=torch.Generator().manual_seed(0))
    u, course = demons(image, image, torch.zeros(2, dims, *image.shape[2:]), 5)
    assert not u.any()
    assert max(float(e.max()) for e in course.energies) < 1e-12


@pytest.mark.parametrize("forces", ["optical-flow", "thirion", "symmetric"])
@pytest.mark.parametrize("composition", ["additive", "compositive", "diffeomorphic"])
def test_every_combination_lowers_the_energy(forces: str, composition: str) -> None:
    fixed, moving = images(*GRIDS[0])
    settings = Demons(forces, composition)  # type: ignore[arg-type]
    u, course = demons(fixed, moving, torch.zeros(1, 2, 40, 36).double(), 20, settings)
    assert len(course.energies) == len(course.seconds) == 21
    assert float(course.energies[0]) == pytest.approx(float((fixed - moving).square().mean()))
    assert float(course.energies[-1]) < 0.25 * float(course.energies[0])
    assert course.seconds == sorted(course.seconds)
    assert float(jacobian_determinant(u).min()) > 0


def test_each_case_as_if_alone_and_unit_of_length_does_not_matter() -> None:
    a, b = images((40, 36), (1.4, 2.1)), images((40, 36), (1.0, 1.0))
    fixed, moving = (torch.cat([x, y]).float() for x, y in zip(a, b, strict=True))
    spacing = torch.tensor([[1.4, 2.1], [1.0, 1.0]])
    start = torch.zeros(2, 2, 40, 36)
    u, _ = demons(fixed, moving, start, 10, spacing_mm=spacing)
    for k in range(2):
        alone, _ = demons(fixed[k : k + 1], moving[k : k + 1], start[:1], 10, spacing_mm=spacing[k : k + 1])
        assert torch.equal(alone[0], u[k])
    scaled, _ = demons(fixed, moving, start, 10, spacing_mm=1e3 * spacing)
    torch.testing.assert_close(scaled, u, rtol=0, atol=1e-4)
    assert relative_edges(fixed, spacing).square().mean(1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("step", "count"), [(0.25, 0), (0.5, 1), (1.0, 2), (2.0, 3), (1e-3, 0), (0.0, 7)])
def test_first_step_of_the_exponential_is_short(step: float, count: int) -> None:
    assert squarings(step) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forces": "thirio"}, "forces must be one of optical-flow, thirion, symmetric, got 'thirio'"),
        ({"composition": "sum"}, "composition must be one of"),
        ({"kernel": "box"}, "kernel must be one of"),
        ({"sigma_voxels": -1.0}, "sigma_voxels must be finite and not negative, got -1.0"),
        ({"step": float("inf")}, "step must be finite"),
    ],
)
def test_settings_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Demons(**change)  # type: ignore[arg-type]


def test_input_that_does_not_fit() -> None:
    image, u = torch.zeros(1, 1, 6, 6), torch.zeros(1, 2, 6, 6)
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        demons(image, image, u, -1)
    with pytest.raises(ValueError, match=r"same batch and channels.*\(1, 1\) and \(1, 2\)"):
        demons(image, image.repeat(1, 2, 1, 1), u, 1)
    with pytest.raises(ValueError, match=r"spacing_mm must be positive \(B, D\) = \(1, 2\)"):
        demons(image, image, u, 1, spacing_mm=torch.tensor([[1.0, 0.0]]))
