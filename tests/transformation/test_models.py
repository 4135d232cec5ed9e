"""What every transformation model has to do, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reg_bench import field
from reg_bench.transformation import (
    LDDMM,
    Affine,
    Dense,
    Domain,
    FreeFormDeformation,
    StationaryVelocity,
    ThinPlateSpline,
    Transformation,
)

MODELS: dict[str, Callable[[], Transformation]] = {
    "translation": lambda: Affine("translation"),
    "rigid": lambda: Affine("rigid"),
    "similarity": lambda: Affine("similarity"),
    "affine": lambda: Affine("affine"),
    "tps": lambda: ThinPlateSpline(spacing=6),
    "tps-mm": lambda: ThinPlateSpline(spacing=9, unit="mm", lam=0.01),
    "tps-points": lambda: ThinPlateSpline(control_points=torch.tensor(POINTS)),
    "ffd": lambda: FreeFormDeformation(spacing=5),
    "ffd-mm": lambda: FreeFormDeformation(spacing=8, unit="mm"),
    "dense": Dense,
    "svf": StationaryVelocity,
    "svf-coarse": lambda: StationaryVelocity(steps=4, coarsening=2),
    "lddmm": lambda: LDDMM(sigma=2.5, steps=3),
    "lddmm-mm": lambda: LDDMM(sigma=4, unit="mm", steps=3, coarsening=2),
    "lddmm-time": lambda: LDDMM(sigma=2.5, steps=3, mode="time-dependent"),
}
POINTS = [[0.1, 0.2, 0.3], [0.9, 0.1, 0.5], [0.2, 0.8, 0.9], [0.7, 0.9, 0.1], [0.5, 0.4, 0.6], [0.4, 0.7, 0.2]]
SPACING = torch.tensor([[1.0, 1.5, 2.0], [1.0, 1.5, 2.0]], dtype=torch.float64)


def build(name: str, dims: int) -> Transformation:
    if name == "tps-points":
        return ThinPlateSpline(control_points=torch.tensor(POINTS)[:, :dims])
    return MODELS[name]()


def domain_of(shape: tuple[int, ...], batch: int = 2, dtype: torch.dtype = torch.float64) -> Domain:
    return Domain(shape, batch, SPACING[:batch, : len(shape)], dtype=dtype)


def random_theta(model: Transformation, domain: Domain, amplitude: float = 0.5, seed: int = 0) -> Tensor:
    """Parameters of a map that does not fold; rough ones are smoothed."""
    theta = model.identity(domain)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    if isinstance(model, Dense | StationaryVelocity | LDDMM):
        spatial = theta.shape[-domain.dimension :]
        noise = field.gaussian(noise.reshape(-1, 1, *spatial), 1.5).reshape(theta.shape) * 4
    return (noise * amplitude).to(theta.dtype)


every = pytest.mark.parametrize("name", list(MODELS))
shapes = pytest.mark.parametrize("shape", [(17, 14), (11, 13, 8)])


@every
@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_moves_nothing_and_random_parameters_move_something(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    model, domain = build(name, len(shape)), domain_of(shape, dtype=dtype)
    theta = model.identity(domain)
    assert theta.dtype == dtype
    assert theta[0].numel() == model.num_parameters(domain)
    u = model.displacement(theta, domain)
    assert u.shape == domain.field_shape
    assert u.dtype == dtype
    assert u.abs().max() < 1e-6
    moved = model.displacement(random_theta(model, domain), domain)
    assert moved.dtype == dtype
    assert 0.05 < float(moved.abs().max()) < 20
    regularized = model.regularized(random_theta(model, domain), domain)
    assert regularized.shape == model.regularized_domain(domain).field_shape


@every
@shapes
def test_a_case_of_a_batch_comes_out_as_if_alone(name: str, shape: tuple[int, ...]) -> None:
    model, domain = build(name, len(shape)), domain_of(shape, dtype=torch.float32)
    theta = random_theta(model, domain)
    theta[1] *= 0.3
    both = model.displacement(theta, domain)
    for k in range(2):
        alone = replace(domain, batch=1, spacing_mm=SPACING[k : k + 1, : len(shape)])
        torch.testing.assert_close(both[k : k + 1], model.displacement(theta[k : k + 1], alone), atol=1e-6, rtol=1e-6)


@every
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 3)])
def test_gradient_is_that_of_finite_differences(name: str, shape: tuple[int, ...]) -> None:
    model, domain = build(name, len(shape)), domain_of(shape, batch=1)
    theta = (random_theta(model, domain, 0.1) + 0.03).requires_grad_()
    weight = torch.randn(domain.field_shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda t: (model.displacement(t, domain) * weight).sum(), (theta,), fast_mode=True, atol=1e-5
    )
    with torch.no_grad():
        without = model.displacement(theta, domain)
    torch.testing.assert_close(without, model.displacement(theta, domain).detach())


@every
@pytest.mark.parametrize("shape", [(9, 1), (1, 8), (7, 1, 6), (1, 1, 5), (2, 3, 2)])
def test_axes_of_length_one_do_not_crash(name: str, shape: tuple[int, ...]) -> None:
    model, domain = build(name, len(shape)), domain_of(shape)
    theta = random_theta(model, domain, 0.1).requires_grad_()
    u = model.displacement(theta, domain)
    assert u.isfinite().all()
    (gradient,) = torch.autograd.grad(u.sum(), theta)
    assert gradient.isfinite().all()


@every
@shapes
def test_unit_of_the_spacing_does_not_matter(name: str, shape: tuple[int, ...]) -> None:
    """Metres instead of millimetres, where the model itself has no length in millimetres."""
    model, domain = build(name, len(shape)), domain_of(shape)
    metres = replace(domain, spacing_mm=SPACING[:, : len(shape)] / 1000)
    if name.endswith("-mm"):
        theta = random_theta(model, domain)
        other = {
            "ffd-mm": FreeFormDeformation(0.008, "mm"),
            "tps-mm": ThinPlateSpline(0.009, "mm", lam=0.01),
            "lddmm-mm": LDDMM(0.004, "mm", steps=3, coarsening=2),
        }[name]
    else:
        theta, other = random_theta(model, domain), model
    torch.testing.assert_close(other.displacement(theta, metres), model.displacement(theta, domain))


@every
@pytest.mark.parametrize(("shape", "finer"), [((13, 17), (25, 33)), ((9, 11, 8), (17, 21, 15))])
def test_parameters_on_a_finer_grid_give_the_same_map(
    name: str, shape: tuple[int, ...], finer: tuple[int, ...]
) -> None:
    model, domain = build(name, len(shape)), domain_of(shape)
    fine = domain.resized(finer)
    theta = random_theta(model, domain, 0.4)
    if isinstance(model, LDDMM):
        # Momenta end half a voxel beyond the grid, which is not the same place on both.
        for axis in range(-len(shape), 0):
            theta = theta * torch.linspace(0, torch.pi, theta.shape[axis]).sin().reshape(-1, *(1,) * (-axis - 1))
    u = model.displacement(theta, domain)
    on_fine = model.displacement(model.resampled(theta, domain, fine), fine)
    every_second = (slice(None), slice(None), *(slice(None, None, 2),) * len(shape))
    voxels = torch.tensor([(b - 1) / (a - 1) for a, b in zip(shape, finer, strict=True)])
    found = on_fine[every_second] / voxels.reshape(-1, *(1,) * len(shape))
    error = (found - u).abs().max() / u.abs().max()
    exact = isinstance(model, Affine | FreeFormDeformation | Dense) or name in ("tps-mm", "tps-points")
    # Flows are interpolated on another grid, and splines of other control points differ between those.
    bound = 1e-9 if exact and name != "ffd" else {"tps": 0.3, "lddmm": 0.2, "lddmm-time": 0.2}.get(name, 0.12)
    assert error < bound, f"{float(error):.3g}"


@every
@pytest.mark.parametrize("shape", [(34, 31), (22, 20, 24)])
def test_inverse_undoes_the_map(name: str, shape: tuple[int, ...]) -> None:
    model, domain = build(name, len(shape)), domain_of(shape, batch=1)
    theta = random_theta(model, domain, 0.25)
    inverse = model.inverse_displacement(theta, domain)
    if inverse is None:
        assert name.startswith(("tps", "ffd", "dense"))
        return
    u = model.displacement(theta, domain)
    inner = (..., *(slice(5, -5),) * len(shape))
    assert u[inner].abs().max() > 0.02
    for composed in (field.compose(u, inverse), field.compose(inverse, u)):
        assert composed[inner].abs().max() < 0.05 * max(1.0, float(u.abs().max()))


@every
def test_parameters_of_a_wrong_shape_are_refused(name: str) -> None:
    model, domain = build(name, 2), domain_of((12, 15))
    theta = model.identity(domain)
    with pytest.raises(ValueError, match="theta must be floating point of shape"):
        model.displacement(theta[:1], domain)
    with pytest.raises(ValueError, match="theta must be floating point of shape"):
        model.displacement(theta.long(), domain)


@every
def test_a_unit_change_of_a_parameter_moves_the_image_by_about_a_voxel(name: str) -> None:
    model, domain = build(name, 3), domain_of((21, 19, 23), batch=1)
    theta = model.identity(domain)
    largest = torch.zeros(())
    for index in torch.randperm(theta.numel(), generator=torch.Generator().manual_seed(0))[:12]:
        step = torch.zeros_like(theta).flatten()
        step[index] = 1e-3
        largest = torch.maximum(largest, model.displacement(step.reshape(theta.shape), domain).abs().max() / 1e-3)
    if isinstance(model, LDDMM):
        # All parameters within sigma together move the image by a voxel.
        step = torch.full_like(theta, 1e-3)
        largest = model.displacement(step, domain).abs().max() / 1e-3
    assert 0.1 < largest < 3.5
