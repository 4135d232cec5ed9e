"""The field algebra against closed forms, SciPy, NumPy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.ndimage import map_coordinates
from torch import Tensor

from reg_bench import field

SHAPES = [(7, 11), (1, 9), (6, 1), (9, 7, 12), (5, 1, 6), (1, 1, 4), (2, 3, 2)]
SCIPY_BORDER = {"border": "nearest", "zeros": "constant"}


def smooth_field(spatial: tuple[int, ...], amplitude: float, *, batch: int = 1, seed: int = 0) -> Tensor:
    """A random field that varies over about a third of the grid, `(B, D, *S)` float64."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, len(spatial), *(4,) * len(spatial), generator=generator, dtype=torch.float64)
    return field.resize_image(coarse, spatial) * amplitude


def random_image(
    spatial: tuple[int, ...], *, batch: int = 1, channels: int = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(sum(spatial))
    return torch.rand(batch, channels, *spatial, generator=generator, dtype=dtype)


def affine_field(matrix: np.ndarray, centre: np.ndarray, spatial: tuple[int, ...]) -> Tensor:
    """`u(x) = (A - I)(x - c)`, `(1, D, *S)` float64."""
    grid = field.identity_grid(spatial, dtype=torch.float64)
    offset = grid - torch.from_numpy(centre).reshape(-1, *(1,) * len(spatial))
    return torch.tensordot(torch.from_numpy(matrix - np.eye(len(spatial))), offset, dims=1)[None]


def inner(values: Tensor, margin: int) -> Tensor:
    """The last axes without a border."""
    spatial = values.ndim - 2
    return values[(..., *(slice(margin, -margin),) * spatial)]


# ------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("spatial", [*SHAPES, (256, 31), (33, 64, 17)])
@pytest.mark.parametrize("padding", field.PADDINGS)
@pytest.mark.parametrize("mode", field.MODES)
def test_zero_field_is_the_identity_at_every_size(spatial: tuple[int, ...], padding: str, mode: str) -> None:
    image = random_image(spatial, batch=2, channels=2)
    out = field.warp(image, torch.zeros(2, len(spatial), *spatial), mode=mode, padding=padding)
    if mode == "nearest":
        assert torch.equal(out, image)
    else:
        torch.testing.assert_close(out, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spatial", [(192, 160, 24), (700, 500), (3, 1023)])
@pytest.mark.parametrize("padding", field.PADDINGS)
def test_zero_field_is_the_identity_on_noise_of_large_images(spatial: tuple[int, ...], padding: str) -> None:
    """Noise turns every error of position into an error of value: float32 coordinates in -1..1 would fail here."""
    image = random_image(spatial)
    zero = torch.zeros(1, len(spatial), *spatial)
    torch.testing.assert_close(field.warp(image, zero, padding=padding), image, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------- sign and axes


@pytest.mark.parametrize("mode", field.MODES)
@pytest.mark.parametrize("spatial", [(8, 13), (6, 9, 14)])
def test_a_shift_moves_along_its_own_axis_in_the_right_direction(spatial: tuple[int, ...], mode: str) -> None:
    image = random_image(spatial)
    for axis, shift in itertools.product(range(len(spatial)), (2, -3)):
        u = torch.zeros(1, len(spatial), *spatial)
        u[:, axis] = shift
        n = spatial[axis]
        expected = image.index_select(axis + 2, (torch.arange(n) + shift).clamp(0, n - 1))
        torch.testing.assert_close(field.warp(image, u, mode=mode), expected, atol=1e-5, rtol=0)


def test_zeros_padding_leaves_only_what_comes_from_inside() -> None:
    image = torch.ones(1, 1, 6, 8)
    u = torch.zeros(1, 2, 6, 8)
    u[:, 1] = 1.5
    out = field.warp(image, u, padding="zeros")
    assert out[..., :6].eq(1).all()
    assert out[..., 6:].eq(0).all()


def test_image_and_field_may_have_grids_of_different_size() -> None:
    image, u = random_image((10, 12, 9)), smooth_field((5, 7, 11), 1.0).float()
    out = field.warp(image, u)
    positions = np.moveaxis((field.identity_grid((5, 7, 11)) + u[0]).numpy(), 0, 0)
    expected = map_coordinates(image[0, 0].numpy(), positions, order=1, mode="nearest")
    np.testing.assert_allclose(out[0, 0].numpy(), expected, atol=1e-5)


# --------------------------------------------------------------------------------------- against references


@pytest.mark.parametrize("padding", field.PADDINGS)
@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("nearest", 0)])
@pytest.mark.parametrize("spatial", SHAPES)
def test_warp_agrees_with_scipy(spatial: tuple[int, ...], mode: str, order: int, padding: str) -> None:
    image = random_image(spatial, batch=2, channels=2)
    u = smooth_field(spatial, 3.0, batch=2).float()
    out = field.warp(image, u, mode=mode, padding=padding)
    for b, c in itertools.product(range(2), range(2)):
        positions = (field.identity_grid(spatial) + u[b]).double().numpy()
        reference = map_coordinates(
            image[b, c].double().numpy(), positions, order=order, mode=SCIPY_BORDER[padding], cval=0.0
        )
        np.testing.assert_allclose(out[b, c].numpy(), reference, atol=2e-5)


def test_warp_agrees_with_scipy_where_the_field_is_rough_and_large() -> None:
    """Displacements far out of the image and jumps between neighbours."""
    spatial = (40, 33, 37)
    image = random_image(spatial)
    u = torch.randn(1, 3, *spatial, generator=torch.Generator().manual_seed(1)) * 20
    u[..., 10, 10, 10] = 1e7
    positions = (field.identity_grid(spatial) + u[0]).double().numpy()
    for mode, order in (("linear", 1), ("nearest", 0)):
        for padding in field.PADDINGS:
            out = field.warp(image, u, mode=mode, padding=padding)[0, 0].numpy()
            reference = map_coordinates(
                image[0, 0].double().numpy(), positions, order=order, mode=SCIPY_BORDER[padding], cval=0.0
            )
            np.testing.assert_allclose(out, reference, atol=2e-5)


def test_nearest_rounds_ties_up_and_drops_what_lies_outside() -> None:
    image = torch.arange(1, 6).reshape(1, 1, 1, 5)
    u = torch.zeros(1, 2, 1, 5)
    u[0, 1, 0] = torch.tensor([0.5, 0.5, -0.5, -0.49, 0.001])
    assert field.warp(image, u, mode="nearest").flatten().tolist() == [2, 3, 3, 4, 5]
    assert field.warp(image, u, mode="nearest", padding="zeros").flatten().tolist() == [2, 3, 3, 4, 0]
    u[0, 1, 0, 0] = -0.4  # nearest voxel is 0, but the position is outside
    assert field.warp(image, u, mode="nearest", padding="zeros")[0, 0, 0, 0] == 0
    assert field.warp(image, u, mode="nearest")[0, 0, 0, 0] == 1


def keys(t: float) -> float:
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def brute_force_keys(image: np.ndarray, position: np.ndarray) -> float:
    position = np.clip(position, 0, np.array(image.shape) - 1)
    base = np.floor(position).astype(int)
    total = 0.0
    for offsets in itertools.product(range(-1, 3), repeat=image.ndim):
        index = base + offsets
        weight = np.prod([keys(p - i) for p, i in zip(position, index, strict=True)])
        total += weight * image[tuple(np.clip(index, 0, np.array(image.shape) - 1))]
    return total


@pytest.mark.parametrize("spatial", [(6, 5), (5, 1, 6), (4, 5, 3)])
def test_cubic_is_the_kernel_of_keys(spatial: tuple[int, ...]) -> None:
    image = random_image(spatial, dtype=torch.float64)
    u = smooth_field(spatial, 1.5)
    out = field.warp(image, u, mode="cubic")[0, 0]
    positions = (field.identity_grid(spatial, dtype=torch.float64) + u[0]).movedim(0, -1).numpy()
    for index in np.ndindex(*spatial):
        assert float(out[index]) == pytest.approx(brute_force_keys(image[0, 0].numpy(), positions[index]), abs=1e-12)


def test_cubic_reproduces_a_quadratic() -> None:
    """Keys' kernel with a = -1/2 is exact for polynomials of degree 2, away from the border."""
    x, y = field.identity_grid((12, 14), dtype=torch.float64)
    image = (0.3 * x * x - x * y + 2 * y)[None, None]
    points = torch.rand(1, 50, 2, dtype=torch.float64) * 7 + 2
    p, q = points[0].T
    expected = 0.3 * p * p - p * q + 2 * q
    torch.testing.assert_close(field.sample(image, points, mode="cubic")[0, :, 0], expected)


@pytest.mark.parametrize("padding", field.PADDINGS)
@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("nearest", 0)])
@pytest.mark.parametrize("spatial", SHAPES)
def test_sample_agrees_with_scipy_at_fractional_points(
    spatial: tuple[int, ...], mode: str, order: int, padding: str
) -> None:
    values = random_image(spatial, batch=2, channels=3)
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2, 40, len(spatial), generator=generator) * (torch.tensor(spatial) + 3) - 2
    out = field.sample(values, points, mode=mode, padding=padding)
    assert out.shape == (2, 40, 3)
    for b, c in itertools.product(range(2), range(3)):
        reference = map_coordinates(
            values[b, c].double().numpy(), points[b].double().T.numpy(), order=order, mode=SCIPY_BORDER[padding]
        )
        np.testing.assert_allclose(out[b, :, c].numpy(), reference, atol=1e-5)


def test_sample_is_exact_far_from_the_origin() -> None:
    """A ramp makes the sampled value the position itself: no float32 detour over -1..1."""
    ramp = torch.arange(1000, dtype=torch.float32).reshape(1, 1, 1, 1000)
    points = torch.stack((torch.zeros(200), torch.linspace(0.1, 998.7, 200)), dim=1)[None].double()
    values = field.sample(ramp.double(), points)[0, :, 0]
    torch.testing.assert_close(values, points[0, :, 1], atol=1e-9, rtol=0)
    assert field.sample(ramp, points.float())[0, :, 0].sub(points[0, :, 1]).abs().max() < 1e-4


# ------------------------------------------------------------------------------------------ dtypes, NaN, batch


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool, torch.float16, torch.float64])
def test_nearest_keeps_the_dtype_of_the_image(dtype: torch.dtype) -> None:
    image = (random_image((6, 7)) * 5).to(dtype)
    u = torch.zeros(1, 2, 6, 7)
    u[:, 0] = 1
    out = field.warp(image, u, mode="nearest")
    assert out.dtype == dtype
    assert torch.equal(out[:, :, :-1], image[:, :, 1:])


def test_large_label_values_survive() -> None:
    image = torch.tensor([[2**40 + 1, 2**40 + 3]]).reshape(1, 1, 1, 2)
    assert torch.equal(field.warp(image, torch.zeros(1, 2, 1, 2), mode="nearest"), image)


@pytest.mark.parametrize(
    ("image", "u", "expected"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
        (torch.uint8, torch.float32, torch.float32),
        (torch.float16, torch.float16, torch.float16),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_returns_the_wider_dtype(
    image: torch.dtype, u: torch.dtype, expected: torch.dtype, mode: str
) -> None:
    values = (random_image((5, 6, 7)) * 100).to(image)
    motion = (torch.ones(1, 3, 5, 6, 7) * 0.5).to(u)
    out = field.warp(values, motion, mode=mode)
    assert out.dtype == expected
    reference = field.warp(values.double(), motion.double(), mode=mode)
    torch.testing.assert_close(out.double(), reference, atol=1e-4 if expected != torch.float16 else 0.1, rtol=0)


@pytest.mark.parametrize("mode", field.MODES)
@pytest.mark.parametrize("padding", field.PADDINGS)
def test_nan_in_the_field_is_not_hidden(mode: str, padding: str) -> None:
    image = random_image((6, 5, 7), channels=2)
    u = torch.zeros(1, 3, 6, 5, 7)
    u[0, 1, 2, 3, 4] = torch.nan
    out = field.warp(image, u, mode=mode, padding=padding)
    assert out[0, :, 2, 3, 4].isnan().all()
    assert int(out.isnan().sum()) == 2
    points = torch.tensor([[[1.0, 2.0, 3.0], [1.0, torch.nan, 3.0]]])
    sampled = field.sample(image, points, mode=mode, padding=padding)
    assert sampled[0, 0].isfinite().all()
    assert sampled[0, 1].isnan().all()


def test_nan_in_the_field_of_an_integer_image_is_an_error() -> None:
    u = torch.zeros(1, 2, 4, 4)
    u[0, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="1 positions are NaN"):
        field.warp(torch.ones(1, 1, 4, 4, dtype=torch.uint8), u, mode="nearest")


def test_nan_in_the_image_stays() -> None:
    image = random_image((5, 5))
    image[0, 0, 2, 2] = torch.nan
    out = field.warp(image, torch.full((1, 2, 5, 5), 0.25))
    assert out[0, 0, 2, 2].isnan()
    assert out[0, 0, 1, 1].isnan()
    assert out[0, 0, 4, 4].isfinite()


@pytest.mark.parametrize("spatial", [(9, 12), (6, 7, 8)])
def test_a_batch_of_two_equals_two_batches_of_one(spatial: tuple[int, ...]) -> None:
    image, u = random_image(spatial, batch=2), smooth_field(spatial, 1.0, batch=2).float()
    v = smooth_field(spatial, 1.0, batch=2, seed=5).float()
    points = torch.rand(2, 9, len(spatial)) * 5
    operations = [
        lambda i: field.warp(image[i], u[i]),
        lambda i: field.warp(image[i], u[i], mode="nearest", padding="zeros"),
        lambda i: field.warp(image[i], u[i], mode="cubic"),
        lambda i: field.compose(u[i], v[i]),
        lambda i: field.exponential(u[i]),
        lambda i: field.resize(u[i], [5] * len(spatial)),
        lambda i: field.jacobian_determinant(u[i]),
        lambda i: field.sample(u[i], points[i]),
        lambda i: field.invert(u[i] * 0.1, tolerance=0.0)[0],
    ]
    for operation in operations:
        both = operation(slice(None))
        for i in range(2):
            assert torch.equal(both[i : i + 1], operation(slice(i, i + 1)))


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("padding", field.PADDINGS)
@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 2)])
def test_gradients_of_warp(spatial: tuple[int, ...], padding: str, mode: str) -> None:
    image = random_image(spatial, channels=2, dtype=torch.float64).requires_grad_()
    generator = torch.Generator().manual_seed(2)
    # Away from voxel centres and borders, where linear interpolation has kinks.
    u = torch.rand(1, len(spatial), *spatial, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    u = u - (field.identity_grid(spatial) > 0.5 * torch.tensor(spatial).reshape(-1, *(1,) * len(spatial))) * 1.0
    u = u.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: field.warp(a, b, mode=mode, padding=padding), (image, u))


def test_gradients_of_the_other_operations() -> None:
    u = (smooth_field((5, 4), 0.2) + 0.31).requires_grad_()
    v = (smooth_field((5, 4), 0.2, seed=1) - 0.27).requires_grad_()
    points = (torch.rand(1, 6, 2, dtype=torch.float64) * 2 + 0.6).requires_grad_()
    assert torch.autograd.gradcheck(field.compose, (u, v))
    assert torch.autograd.gradcheck(field.jacobian_determinant, (u,))
    assert torch.autograd.gradcheck(lambda a: field.resize(a, (7, 9)), (u,))
    assert torch.autograd.gradcheck(field.sample, (u, points))
    assert torch.autograd.gradcheck(lambda a: field.exponential(a, steps=2), (u,))
    w = (smooth_field((3, 4, 5), 0.3) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(field.jacobian_determinant, (w,))


def test_values_with_and_without_gradients_agree() -> None:
    image, u = random_image((33, 20, 17)), smooth_field((33, 20, 17), 2.0).float()
    with_gradient = field.warp(image, u.clone().requires_grad_()).detach()
    torch.testing.assert_close(field.warp(image, u), with_gradient, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        field.exponential(u), field.exponential(u.clone().requires_grad_()).detach(), atol=1e-4, rtol=0
    )
    with torch.inference_mode():
        torch.testing.assert_close(field.warp(image, u), with_gradient, atol=1e-5, rtol=0)


# ----------------------------------------------------------------------------------------------- composition


MATRICES = {
    2: (np.array([[1.04, 0.06], [-0.05, 0.97]]), np.array([[0.96, -0.03], [0.07, 1.05]])),
    3: (
        np.array([[1.03, 0.05, 0.0], [-0.04, 0.98, 0.02], [0.03, 0.0, 1.02]]),
        np.array([[0.97, 0.0, -0.05], [0.02, 1.04, 0.03], [0.0, -0.02, 0.99]]),
    ),
}


@pytest.mark.parametrize("spatial", [(24, 31), (15, 20, 17)])
def test_compose_of_affine_maps_is_their_product(spatial: tuple[int, ...]) -> None:
    a, b = MATRICES[len(spatial)]
    centre = (np.array(spatial) - 1) / 2
    u, v, w = (affine_field(m, centre, spatial) for m in (a, b, a @ b))
    torch.testing.assert_close(inner(field.compose(u, v), 3), inner(w, 3), atol=1e-10, rtol=0)


def test_compose_warps_by_the_first_then_by_the_second() -> None:
    spatial = (40, 50)
    x, y = field.identity_grid(spatial, dtype=torch.float64)
    image = (torch.sin(x / 6) * torch.cos(y / 7))[None, None]
    u, v = smooth_field(spatial, 1.5), smooth_field(spatial, 1.5, seed=9)
    twice = field.warp(field.warp(image, u), v)
    once = field.warp(image, field.compose(u, v))
    other_order = field.warp(image, field.compose(v, u))
    assert inner(twice - once, 6).abs().max() < 0.02
    assert inner(twice - other_order, 6).abs().max() > 0.05


def test_compose_takes_fields_on_grids_of_different_size() -> None:
    u, v = torch.ones(1, 2, 9, 9), torch.full((1, 2, 4, 6), 0.5)
    assert torch.equal(field.compose(u, v), torch.full((1, 2, 4, 6), 1.5))


# ------------------------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("spatial", [(24, 31), (15, 20, 17)])
def test_inverse_of_an_affine_map(spatial: tuple[int, ...]) -> None:
    matrix, _ = MATRICES[len(spatial)]
    centre = (np.array(spatial) - 1) / 2
    inverse, error = field.invert(affine_field(matrix, centre, spatial), tolerance=1e-8)
    expected = affine_field(np.linalg.inv(matrix), centre, spatial)
    torch.testing.assert_close(inner(inverse, 3), inner(expected, 3), atol=1e-6, rtol=0)
    assert error.shape == (1, 1, *spatial)
    assert error.max() < 1e-8


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_inverse_where_the_plain_fixed_point_iteration_diverges_or_crawls(scale: float) -> None:
    """`|du/dx| > 1` for a scale above 2."""
    spatial, centre = (41, 41), np.array([20.0, 20.0])
    inverse, error = field.invert(affine_field(np.eye(2) * scale, centre, spatial), iterations=50)
    expected = affine_field(np.eye(2) / scale, centre, spatial)
    assert error.max() < 1e-3
    reach = int(20 * min(scale, 1.0)) - 1
    middle = (slice(None), slice(None), *(slice(20 - reach, 21 + reach),) * 2)
    torch.testing.assert_close(inverse[middle], expected[middle], atol=5e-3, rtol=0)


def test_inverse_composes_to_the_identity_and_its_error_says_how_well() -> None:
    u = smooth_field((30, 26, 22), 1.5, batch=2)
    inverse, error = field.invert(u, tolerance=1e-3)
    measured = torch.linalg.vector_norm(field.compose(u, inverse), dim=1, keepdim=True)
    torch.testing.assert_close(measured, error, atol=1e-9, rtol=0)
    assert error.max() <= 1e-3
    gentle = smooth_field((30, 26, 22), 0.3)
    inverse, _ = field.invert(gentle)
    both = torch.linalg.vector_norm(inner(field.compose(inverse, gentle), 6), dim=1)
    assert both.mean() < 0.01  # only the interpolation between voxels is left
    assert both.max() < 0.15


def test_error_of_an_inverse_is_honest_where_the_field_folds() -> None:
    """The map jumps back and forth: whatever was found, its error must be what SciPy measures."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(1, 2, 24, 30, generator=generator) * 4
    u[..., 16:] = 0.0
    inverse, error = field.invert(u, tolerance=1e-4)
    positions = (field.identity_grid((24, 30)) + inverse[0]).double().numpy()
    residual = [
        map_coordinates(c.double().numpy(), positions, order=1, mode="nearest") + v.double().numpy()
        for c, v in zip(u[0], inverse[0], strict=True)
    ]
    np.testing.assert_allclose(error[0, 0].numpy(), np.linalg.norm(residual, axis=0), atol=1e-4)
    assert error[..., 26:].max() == 0
    assert (error > 0.1).sum() > 20


def test_gradient_of_the_inverse_is_that_of_its_last_step() -> None:
    """For a constant field that is exact: `d inverse / d u = -1`."""
    u = torch.full((1, 2, 6, 7), 0.3, dtype=torch.float64, requires_grad=True)
    inverse, _ = field.invert(u)
    inverse.sum().backward()
    assert float(u.grad.sum()) == pytest.approx(-2 * 42)
    assert torch.allclose(inverse, torch.full_like(inverse, -0.3))


def test_inverse_of_nan_is_not_finite_in_error() -> None:
    u = torch.zeros(1, 2, 8, 8)
    u[0, 0, 3, 3] = torch.nan
    _, error = field.invert(u)
    assert error[0, 0, 3, 3].isnan()
    assert error[0, 0, 6, 6] == 0


# ----------------------------------------------------------------------------------------------- exponential


@pytest.mark.parametrize("spatial", [(33, 41), (17, 21, 19)])
def test_exponential_of_a_linear_velocity_is_the_matrix_exponential(spatial: tuple[int, ...]) -> None:
    dims = len(spatial)
    generator = MATRICES[dims][0] - np.eye(dims)
    centre = (np.array(spatial) - 1) / 2
    velocity = affine_field(generator + np.eye(dims), centre, spatial)
    expected = affine_field(expm(generator), centre, spatial)
    for steps, tolerance in ((7, 1e-3), (11, 1e-4)):
        torch.testing.assert_close(
            inner(field.exponential(velocity, steps=steps), 4), inner(expected, 4), atol=tolerance, rtol=0
        )


def test_exponential_of_a_constant_velocity_is_that_displacement() -> None:
    velocity = torch.tensor([2.0, -3.0, 0.5]).reshape(1, 3, 1, 1, 1).expand(1, 3, 6, 7, 8)
    torch.testing.assert_close(field.exponential(velocity), velocity.contiguous())


def test_exponentials_of_opposite_velocities_are_inverse() -> None:
    x, y = field.identity_grid((48, 40), dtype=torch.float64)
    velocity = 2.5 * torch.stack((torch.sin(x / 8) * torch.cos(y / 7), torch.cos(x / 9 + 1) * torch.sin(y / 8)))[None]
    there, back = field.exponential(velocity), field.exponential(-velocity)
    assert inner(there, 5).abs().max() > 2
    assert inner(field.compose(there, back), 5).abs().max() < 0.05


def test_exponential_without_squaring_is_the_velocity_and_negative_steps_are_refused() -> None:
    velocity = smooth_field((5, 6), 1.0)
    assert torch.equal(field.exponential(velocity, steps=0), velocity)
    with pytest.raises(ValueError, match="steps must be at least 0"):
        field.exponential(velocity, steps=-1)


# -------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize(("old", "new"), [((9, 13), (17, 25)), ((17, 9), (5, 21)), ((7, 5, 9), (13, 9, 5))])
def test_resize_keeps_the_map_in_the_units_of_the_new_grid(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """In units of the common extent, an affine map stays the same map on every grid."""
    dims = len(old)
    matrix = MATRICES[dims][0]

    def on(spatial: tuple[int, ...]) -> Tensor:
        scale = np.diag(np.array(spatial) - 1.0)
        return affine_field(scale @ matrix @ np.linalg.inv(scale), np.zeros(dims), spatial)

    torch.testing.assert_close(field.resize(on(old), new), on(new), atol=1e-10, rtol=0)


def test_resize_to_the_same_size_is_the_identity_and_length_one_stays() -> None:
    u = smooth_field((6, 1, 9), 2.0)
    assert torch.equal(field.resize(u, (6, 1, 9)), u)
    assert field.resize(u, (3, 1, 5)).shape == (1, 3, 3, 1, 5)
    with pytest.raises(ValueError, match="axis 1 has length 1"):
        field.resize(u, (6, 4, 9))


@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("nearest", 0)])
def test_resize_image_samples_between_the_outer_voxel_centres(mode: str, order: int) -> None:
    image = random_image((7, 9, 5), dtype=torch.float64)
    size = (12, 4, 5)
    axes = [np.linspace(0, n - 1, m) for n, m in zip((7, 9, 5), size, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"))
    if mode == "nearest":
        positions = np.floor(positions + 0.5)
    expected = map_coordinates(image[0, 0].numpy(), positions, order=order, mode="nearest")
    np.testing.assert_allclose(field.resize_image(image, size, mode)[0, 0].numpy(), expected, atol=1e-12)


def test_resize_image_cubic_and_dtypes() -> None:
    image = random_image((6, 8), dtype=torch.float64)
    axes = torch.meshgrid(
        torch.linspace(0, 5, 11, dtype=torch.float64), torch.linspace(0, 7, 15).double(), indexing="ij"
    )
    expected = field.sample(image, torch.stack(axes, dim=-1).reshape(1, -1, 2), mode="cubic").reshape(1, 1, 11, 15)
    torch.testing.assert_close(field.resize_image(image, (11, 15), "cubic"), expected)
    labels = torch.arange(48).reshape(1, 1, 6, 8)
    assert field.resize_image(labels, (3, 4), "nearest").dtype == torch.int64
    assert field.resize_image(labels.to(torch.uint8), (3, 4)).is_floating_point()


# -------------------------------------------------------------------------------------------------- Jacobian


@pytest.mark.parametrize("spatial", [(9, 12), (2, 7), (6, 9, 7), (2, 2, 2)])
def test_jacobian_of_an_affine_map_is_its_determinant_everywhere(spatial: tuple[int, ...]) -> None:
    matrix = MATRICES[len(spatial)][0]
    out = field.jacobian_determinant(affine_field(matrix, np.zeros(len(spatial)), spatial))
    torch.testing.assert_close(out, torch.full_like(out, np.linalg.det(matrix)))


@pytest.mark.parametrize("spatial", [(9, 12), (64, 70), (6, 9, 7), (40, 70, 61), (2, 5, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobian_agrees_with_numpy_gradient(spatial: tuple[int, ...], dtype: torch.dtype) -> None:
    u = smooth_field(spatial, 3.0, batch=2).to(dtype) + random_image(spatial, batch=2, channels=len(spatial)) * 0.5
    u = u.to(dtype)
    out = field.jacobian_determinant(u)
    assert out.dtype == dtype
    for b in range(2):
        gradient = np.stack([np.stack(np.gradient(c.double().numpy())) for c in u[b]])
        matrix = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(len(spatial))
        np.testing.assert_allclose(
            out[b, 0].numpy(), np.linalg.det(matrix), atol=2e-4 if dtype == torch.float32 else 1e-11
        )


def test_jacobian_with_axes_of_length_one_leaves_them_out() -> None:
    plane = smooth_field((8, 9), 1.0)
    volume = torch.zeros(1, 3, 8, 1, 9, dtype=torch.float64)
    volume[:, (0, 2), :, 0] = plane
    volume[:, 1] = 3.7
    torch.testing.assert_close(field.jacobian_determinant(volume)[:, :, :, 0], field.jacobian_determinant(plane))
    assert torch.equal(field.jacobian_determinant(torch.randn(1, 3, 1, 1, 1)), torch.ones(1, 1, 1, 1, 1))
    thin = torch.zeros(1, 3, 1, 8, 9, dtype=torch.float64)
    thin[:, 1:, 0] = plane
    torch.testing.assert_close(field.jacobian_determinant(thin)[:, :, 0], field.jacobian_determinant(plane))


def test_jacobian_slabs_cover_the_volume_once_and_the_interior_is_its_middle() -> None:
    u = smooth_field((70, 60, 55), 2.0)
    whole = field.jacobian_determinant(u)
    seen = []
    for where, slab in field.jacobian_slabs(u[0]):
        assert slab.shape == (where.stop - where.start, 60, 55)
        torch.testing.assert_close(slab, whole[0, 0, where])
        seen += range(where.start, where.stop)
    assert seen == list(range(70))
    assert torch.equal(field.jacobian_determinant(u, interior=True), whole[..., 1:-1, 1:-1, 1:-1])
    assert field.jacobian_determinant(torch.zeros(1, 3, 5, 1, 4), interior=True).shape == (1, 1, 3, 1, 2)


def test_jacobian_counts_folds_and_shows_nan() -> None:
    u = torch.zeros(1, 2, 6, 6)
    u[0, 1, :, 3] = -2.0  # voxel 3 jumps over voxel 2
    assert (field.jacobian_determinant(u) <= 0).any()
    u[0, 0, 4, 4] = torch.nan
    assert field.jacobian_determinant(u).isnan().any()


# ------------------------------------------------------------------------------------------------- arguments


def test_wrong_arguments_are_named() -> None:
    image, u = torch.zeros(1, 1, 5, 6), torch.zeros(1, 2, 5, 6)
    with pytest.raises(ValueError, match="mode must be one of"):
        field.warp(image, u, mode="bilinear")
    with pytest.raises(ValueError, match="padding must be one of"):
        field.warp(image, u, padding="reflection")
    with pytest.raises(ValueError, match=r"floating point field .*got torch\.float32 \(1, 5, 6, 2\)"):
        field.warp(image, u.movedim(1, -1))
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        field.warp(image, u.long())
    with pytest.raises(ValueError, match="B = 1"):
        field.warp(image.expand(2, -1, -1, -1), u)
    with pytest.raises(ValueError, match="2 non-empty spatial axes"):
        field.warp(image[..., None], u)
    with pytest.raises(ValueError, match=r"points must be floating point \(B, N, 2\)"):
        field.sample(image, torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="size must hold 2 positive lengths"):
        field.resize(u, (4, 0))
    with pytest.raises(ValueError, match="one field"):
        next(field.jacobian_slabs(u))
    with pytest.raises(ValueError, match="empty spatial axis"):
        field.exponential(torch.zeros(1, 2, 0, 4))
    assert field.sample(image, torch.zeros(1, 0, 2)).shape == (1, 0, 1)
