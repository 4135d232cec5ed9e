"""SDlogJ and folding against np.gradient, closed forms and the formula of Learn2Reg written out anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from reg_bench import field as fields
from reg_bench.field import jacobian as jacobian_module
from reg_bench.metrics import nonpositive_fraction, sdlogj
from reg_bench.metrics.jacobian import jacobian_statistics


def smooth(seed: int, shape: tuple[int, ...], size: float, sigma: float = 2.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    u = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in shape])
    return torch.from_numpy((u / np.abs(u).max() * size).astype(np.float32))[None]


def numpy_determinants(u: torch.Tensor) -> np.ndarray:
    components = u[0].double().numpy()
    rows = [np.stack(np.gradient(c)) for c in components]
    matrix = np.moveaxis(np.stack(rows), (0, 1), (-2, -1)) + np.eye(len(rows))
    return np.linalg.det(matrix)


@pytest.mark.parametrize("shape", [(30, 17, 23), (41, 33), (2, 9, 8)])
@pytest.mark.parametrize("size", [0.5, 3.0, 25.0])
@pytest.mark.parametrize("masked", [False, True])
def test_strict_equals_numpy(shape: tuple[int, ...], size: float, masked: bool) -> None:
    u = smooth(1, shape, size)
    det = numpy_determinants(u)
    mask = torch.from_numpy(np.random.default_rng(2).random(shape) < 0.4) if masked else None
    chosen = det if mask is None else det[mask.numpy()]
    assert sdlogj(u, mask) == pytest.approx(np.log(np.maximum(chosen, 1e-9)).std(), abs=1e-5)
    assert nonpositive_fraction(u, mask) == pytest.approx((chosen <= 0).mean(), abs=1e-12)


@pytest.mark.parametrize("size", [0.5, 5.0, 60.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(30, 17, 23), (41, 33), (4, 9, 8)])
def test_learn2reg_formula(shape: tuple[int, ...], size: float, masked: bool) -> None:
    u = smooth(3, shape, size)
    mask = torch.from_numpy(np.random.default_rng(2).random(shape) < 0.4) if masked else None
    inner = (slice(2, -2),) * len(shape)
    # Central differences with zeros outside, cropped by two voxels.
    padded = np.pad(u[0].double().numpy(), [(0, 0), *[(1, 1)] * len(shape)])
    rows = []
    for component in padded:
        rows.append([(np.roll(component, -1, a) - np.roll(component, 1, a)) / 2 for a in range(len(shape))])
    matrix = np.moveaxis(np.array(rows), (0, 1), (-2, -1))[(slice(1, -1),) * len(shape)] + np.eye(len(shape))
    logarithm = np.log(np.clip(np.linalg.det(matrix) + 3, 1e-9, 1e9))[inner]
    if mask is not None:
        logarithm = logarithm[mask.numpy()[inner]]
    found = jacobian_statistics(u[0], shifted=True, shifted_mask=mask).shifted.std
    if logarithm.size:
        assert found == pytest.approx(logarithm.std(), abs=1e-5)
    else:
        assert np.isnan(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 0.1, 0.25])
def test_uniform_stretch_has_no_deviation(dtype: torch.dtype, scale: float) -> None:
    u = (fields.identity_grid((12, 40, 60), torch.device("cpu"), torch.float32) * scale)[None]
    statistics = jacobian_statistics(u[0].to(dtype), shifted=True)
    tolerance = 1e-5 if dtype != torch.float16 or scale in (0.0, 0.25) else 5e-2
    assert statistics.log.std == pytest.approx(0, abs=tolerance)
    assert statistics.shifted.std == pytest.approx(0, abs=tolerance)


def test_mirrored_image_folds_everywhere() -> None:
    u = torch.zeros(1, 2, 9, 8)
    u[0, 1] = -2 * torch.arange(8.0)
    assert nonpositive_fraction(u) == 1.0
    assert sdlogj(u) == 0.0


def test_folding_at_the_border_counts() -> None:
    u = torch.zeros(1, 3, 6, 5, 4)
    u[0, 0, 0] = 2.0
    # One-sided at the first plane: 1 + (0 - 2) = -1; central at the second: 1 + (0 - 2) / 2 = 0.
    assert nonpositive_fraction(u) == pytest.approx(2 / 6)


def test_slabs_equal_the_determinant_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    u = smooth(5, (11, 9, 13), 4.0)
    for voxels in (1, 300, 1 << 17):
        monkeypatch.setattr(jacobian_module, "_SLAB_VOXELS", voxels)
        slabs = [slab.clone() for _, slab in jacobian_module.determinant_slabs(u[0])]
        torch.testing.assert_close(torch.cat(slabs), fields.jacobian_determinant(u)[0, 0], atol=1e-5, rtol=1e-5)


def test_determinants_next_to_zero_are_exact() -> None:
    # d u / dx is chosen so that det J is a tiny positive number that single precision would lose.
    u = torch.zeros(1, 2, 30, 30, dtype=torch.float64)
    x = torch.arange(30, dtype=torch.float64)
    u[0, 0] = (9.0 * x)[:, None] + (30.0 * x)[None, :]
    u[0, 1] = ((10.0 * 19.0 + 1e-3 - 10.0) / 30.0 * x)[:, None] + (18.0 * x)[None, :]
    assert nonpositive_fraction(u.float()) == pytest.approx(nonpositive_fraction(u), abs=1e-12)


def test_empty_mask_is_not_a_number() -> None:
    u, mask = torch.zeros(1, 2, 5, 5), torch.zeros(5, 5, dtype=torch.bool)
    assert np.isnan(sdlogj(u, mask))
    assert np.isnan(nonpositive_fraction(u, mask))


def test_messages() -> None:
    with pytest.raises(ValueError, match="one case"):
        sdlogj(torch.zeros(2, 2, 5, 5))
    with pytest.raises(ValueError, match="mask has shape"):
        sdlogj(torch.zeros(1, 2, 5, 5), torch.ones(5, 4))
