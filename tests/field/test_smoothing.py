"""Gaussian smoothing against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from reg_bench.field import gaussian, identity_grid
from reg_bench.field.separable import along_axes, axis_matrix

SHAPES = [(31, 40), (1, 9), (70, 3), (33, 20, 17), (130, 5, 66), (5, 1, 6)]
MODES = {"border": "nearest", "zeros": "constant"}


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("sigma", [0.5, 1.3, 6.0])
@pytest.mark.parametrize("spatial", SHAPES)
def test_equals_scipy(spatial: tuple[int, ...], sigma: float, padding: str) -> None:
    values = noise(2, 3, *spatial)
    out = gaussian(values, sigma, padding)
    axes = tuple(range(2, values.ndim))
    expected = gaussian_filter(values.numpy(), sigma, mode=MODES[padding], axes=axes)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    single = gaussian(values.float(), sigma, padding)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("truncate", [2.0, 3.0, 5.5])
def test_kernel_ends_where_scipy_ends_it(truncate: float) -> None:
    values = noise(1, 1, 40, 50)
    expected = gaussian_filter(values[0, 0].numpy(), 1.7, mode="nearest", truncate=truncate)
    np.testing.assert_allclose(gaussian(values, 1.7, truncate=truncate)[0, 0].numpy(), expected, atol=1e-12)


def test_every_axis_has_a_sigma_of_its_own() -> None:
    values = noise(1, 2, 20, 24, 18)
    expected = gaussian_filter(values.numpy(), (0, 0, 2.0, 0.0, 0.7), mode="nearest")
    np.testing.assert_allclose(gaussian(values, (2.0, 0.0, 0.7)).numpy(), expected, atol=1e-12)


def test_an_impulse_becomes_a_gaussian_with_the_variance_asked_for() -> None:
    impulse = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    impulse[..., 30, 30] = 1.0
    out = gaussian(impulse, (3.0, 4.0), truncate=7)[0, 0]
    grid = identity_grid((61, 61), dtype=torch.float64) - 30
    assert float(out.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float((grid[0] ** 2 * out).sum()) == pytest.approx(9.0, rel=1e-5)
    assert float((grid[1] ** 2 * out).sum()) == pytest.approx(16.0, rel=1e-5)


@pytest.mark.parametrize("spatial", SHAPES)
def test_constants_stay_constant_up_to_the_border(spatial: tuple[int, ...]) -> None:
    out = gaussian(torch.full((1, 1, *spatial), 3.7), 2.5)
    torch.testing.assert_close(out, torch.full_like(out, 3.7), atol=5e-6, rtol=0)


def test_no_sigma_copies_the_image() -> None:
    values = noise(1, 2, 6, 7)
    out = gaussian(values, 0.0)
    assert torch.equal(out, values)
    out += 1
    assert not torch.equal(out, values)


@pytest.mark.parametrize("spatial", [(9, 70), (12, 40, 7)])
def test_a_case_comes_out_as_if_it_were_alone(spatial: tuple[int, ...]) -> None:
    values = noise(3, 2, *spatial, dtype=torch.float32)
    out = gaussian(values, 1.4)
    for i in range(3):
        assert torch.equal(out[i : i + 1], gaussian(values[i : i + 1], 1.4))


def test_strided_memory_and_the_input_stay_as_they_are() -> None:
    values = noise(1, 30, 40, 2).movedim(-1, 1)
    before = values.clone()
    torch.testing.assert_close(gaussian(values, 2.0), gaussian(values.contiguous(), 2.0))
    assert torch.equal(values, before)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 3)])
def test_gradients(spatial: tuple[int, ...], padding: str) -> None:
    values = noise(2, 1, *spatial).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: gaussian(v, (0.8,) * len(spatial), padding), (values,))
    assert torch.autograd.gradgradcheck(lambda v: gaussian(v, 0.8, padding).square(), (values,))


def test_gradient_on_long_axes_is_the_adjoint() -> None:
    """`<G a, b> = <a, G^T b>` where the matrix is cut into several pieces."""
    a, b = noise(1, 1, 130, 90).requires_grad_(), noise(1, 1, 90, 130).mT
    (gaussian(a, 2.0) * b).sum().backward()
    assert a.grad is not None
    with torch.no_grad():
        assert float((gaussian(a, 2.0) * b).sum()) == pytest.approx(float((a * a.grad).sum()), rel=1e-10)


def test_matrices_made_in_inference_mode_serve_for_gradients_later() -> None:
    with torch.inference_mode():
        gaussian(torch.ones(1, 1, 23, 29), 1.234)
    values = torch.ones(1, 1, 23, 29, requires_grad=True)
    gaussian(values, 1.234).square().sum().backward()
    assert values.grad is not None


def test_any_matrix_along_any_axis() -> None:
    """Against `einsum`, with matrices that change the length and have empty rows."""
    values = noise(2, 2, 40, 7, 33)
    generator = np.random.default_rng(0)
    first, last = generator.normal(size=(101, 40)), generator.normal(size=(20, 33))
    first[10:60] = 0
    first[:, 35:] = 0
    matrices = [axis_matrix(first, values.dtype, values.device), None, axis_matrix(last, values.dtype, values.device)]
    expected = torch.einsum("ai,ck,bdijk->bdajc", torch.from_numpy(first), torch.from_numpy(last), values)
    torch.testing.assert_close(along_axes(values, matrices), expected)


def test_wrong_arguments_are_named() -> None:
    values = torch.zeros(1, 1, 4, 5)
    with pytest.raises(ValueError, match="one or 2 finite numbers of at least 0, got -1"):
        gaussian(values, -1.0)
    with pytest.raises(ValueError, match="one or 2 finite numbers"):
        gaussian(values, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="one or 2 finite numbers"):
        gaussian(values, float("nan"))
    with pytest.raises(ValueError, match="padding must be one of"):
        gaussian(values, 1.0, "mirror")
    with pytest.raises(ValueError, match="truncate must be positive"):
        gaussian(values, 1.0, truncate=0)
    with pytest.raises(ValueError, match=r"floating point .* got torch\.int64"):
        gaussian(values.long(), 1.0)
