"""Normalised gradient fields against NumPy, and what the thesis asks of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.similarity import NGF, box_sums
from tests.similarity.test_common import images, weights_of


def by_numpy(
    fixed: np.ndarray, warped: np.ndarray, weights: np.ndarray, spacing: tuple[float, ...], noise: float
) -> float:
    edges = np.array(spacing) / np.prod(spacing) ** (1 / len(spacing))
    units = []
    for image in (fixed, warped):
        gradient = np.stack(np.gradient(image, *edges))
        length = np.linalg.norm(gradient, axis=0)
        epsilon = noise * np.average(length, weights=weights)
        units.append(gradient / np.sqrt(length**2 + epsilon**2))
    return float(np.average(1 - (units[0] * units[1]).sum(axis=0) ** 2, weights=weights))


@pytest.mark.parametrize(("shape", "spacing"), [((6, 5, 7), (3.0, 0.7, 1.2)), ((8, 9), (0.5, 2.0)), ((2, 9), (1, 1))])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_equals_numpy(shape: tuple[int, ...], spacing: tuple[float, ...], noise: float) -> None:
    fixed, warped = images(0, 1, 1, *shape)
    mask = weights_of(1, 1, 1, *shape)
    similarity, edges = NGF(noise), torch.tensor([spacing])
    expected = by_numpy(fixed[0, 0].numpy(), warped[0, 0].numpy(), mask[0, 0].numpy(), spacing, noise)
    assert similarity(fixed, warped, mask, edges).item() == pytest.approx(expected, abs=1e-6)
    expected = by_numpy(fixed[0, 0].numpy(), warped[0, 0].numpy(), np.ones(shape), spacing, noise)
    assert similarity(fixed, warped, None, edges).item() == pytest.approx(expected, abs=1e-6)


def ramp(*direction: float) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(8.0) for _ in direction), indexing="ij")
    return sum(d * a for d, a in zip(direction, axes, strict=True))[None, None]  # type: ignore[index]


@pytest.mark.parametrize("scale", [1.0, 300.0, -1.0, -0.01])
def test_parallel_and_antiparallel_gradients_give_zero(scale: float) -> None:
    image = ramp(1, 2, -1)
    assert NGF(1e-4)(image, scale * image + 7).item() == pytest.approx(0, abs=1e-6)


def test_orthogonal_gradients_give_one() -> None:
    assert NGF(1e-4)(ramp(1, 2, -1), ramp(1, 0, 1)).item() == pytest.approx(1, abs=1e-6)


def test_weak_gradients_count_as_noise() -> None:
    image, spoiled = ramp(1.0, 0.0), ramp(0.0, 1e-3)
    image[..., 4:, :], spoiled[..., :4, :] = 0, image[..., :4, :]
    assert NGF(1.0)(image, spoiled) < 0.8 < NGF(1.0)(image, ramp(0.0, 1.0))


@pytest.mark.parametrize("unit", [1e-3, 25.4])
def test_units_of_spacing_and_intensity_do_not_matter(unit: float) -> None:
    fixed, warped = images(2, 2, 1, 6, 5, 7, dtype=torch.float32)
    spacing = torch.tensor([[3.0, 0.7, 1.2], [1.0, 1.0, 2.0]])
    expected = NGF().bind(fixed, None, spacing).value_and_gradient(warped)
    torch.testing.assert_close(NGF().bind(fixed, None, unit * spacing).value_and_gradient(warped), expected)
    torch.testing.assert_close(NGF()(unit * fixed + 5, unit * warped, None, spacing), expected[0], atol=1e-4, rtol=0)
    assert (NGF()(fixed, warped) - expected[0]).abs().min() > 1e-3


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, warped = images(3, 3, 1, 9, 6, 7)
    whole = NGF().bind(fixed).value_and_gradient(warped)
    for voxels in (1, 90, 800):
        monkeypatch.setitem(box_sums._SLAB_VOXELS, "cpu", voxels)
        torch.testing.assert_close(NGF().bind(fixed).value_and_gradient(warped), whole)


def test_messages() -> None:
    fixed, warped = images(4, 2, 1, 8, 9)
    with pytest.raises(ValueError, match="noise must be positive"):
        NGF(0)
    with pytest.raises(ValueError, match=r"spacing_mm must be \(B, D\) = \(2, 2\)"):
        NGF()(fixed, warped, None, torch.ones(2))
    with pytest.raises(ValueError, match="spacing_mm must be positive and finite"):
        NGF()(fixed, warped, None, torch.zeros(2, 2))
