"""Mutual information against direct sums over all voxels and bins, MONAI, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.losses import GlobalMutualInformationLoss
from torch import Tensor

from reg_bench.similarity import MutualInformation
from reg_bench.similarity.parzen import Parzen
from tests.similarity.test_common import images, weights_of

WINDOWS = ["cubic", "linear", "gaussian"]


def window_by_hand(kind: str, x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    if kind == "linear":
        return np.maximum(0, 1 - x)
    if kind == "gaussian":
        return np.exp(-(x**2) / (2 * 0.5**2))
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0))


def by_hand(fixed: Tensor, warped: Tensor, bins: int, kind: str, weights: Tensor | None = None) -> tuple[float, float]:
    """Mutual information and its normalised form, from the window at every voxel and bin."""
    chosen = np.ones(fixed.numel()) if weights is None else weights.numpy().ravel()
    margin, densities = (1 if kind == "cubic" else 0), []
    for image in (fixed.numpy().ravel(), warped.numpy().ravel()):
        low, high = image[chosen > 0].min(), image[chosen > 0].max()
        at = margin + (image - low) / (high - low) * (bins - 1 - 2 * margin)
        density = window_by_hand(kind, np.arange(bins)[:, None] - at)
        densities.append(density / density.sum(axis=0))
    joint = densities[0] * chosen / chosen.sum() @ densities[1].T
    entropies = [-sum(p * math.log(p) for p in d.ravel() if p > 0) for d in (joint, joint.sum(0), joint.sum(1))]
    return entropies[1] + entropies[2] - entropies[0], (entropies[1] + entropies[2]) / entropies[0]


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("shape", [(9, 8, 10), (25, 20)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_direct_sums(kind: str, shape: tuple[int, ...], masked: bool) -> None:
    fixed, warped = images(0, 2, 1, *shape)
    mask = (weights_of(1, 2, 1, *shape) - 0.2).clamp(min=0) if masked else None
    # The linear window is exact; the others are tabulated at eight levels per bin.
    tolerance = 1e-9 if kind == "linear" else 5e-3
    plain = MutualInformation(12, window=kind)(fixed, warped, mask)  # type: ignore[arg-type]
    normalised = MutualInformation(12, window=kind, normalised=True)(fixed, warped, mask)  # type: ignore[arg-type]
    for case in range(2):
        expected = by_hand(fixed[case], warped[case], 12, kind, None if mask is None else mask[case])
        assert plain[case].item() == pytest.approx(-expected[0], rel=tolerance)
        assert normalised[case].item() == pytest.approx(-expected[1], rel=tolerance)


@pytest.mark.parametrize("kind", WINDOWS)
def test_the_tabulated_window(kind: str) -> None:
    parzen = Parzen(10, kind)  # type: ignore[arg-type]
    matrix = parzen.matrix(torch.device("cpu"))
    np.testing.assert_allclose(matrix.sum(dim=0), 1)
    at = np.linspace(1, 8, parzen.levels) if kind == "cubic" else np.linspace(0, 9, parzen.levels)
    expected = window_by_hand(kind, np.arange(10)[:, None] - at)
    np.testing.assert_allclose(matrix, expected / expected.sum(axis=0), atol=1e-12)


def test_agrees_with_monai() -> None:
    # MONAI's bins span [0, 1]; it adds 1e-7 to all densities, and ours is tabulated.
    fixed, warped = images(2, 2, 1, 16, 15, 14, dtype=torch.float32)
    monai = [GlobalMutualInformationLoss("gaussian", 23)(w[None], f[None]) for f, w in zip(fixed, warped, strict=True)]
    ours = MutualInformation(23, window="gaussian", intensity_range=(0, 1))(fixed, warped)
    torch.testing.assert_close(ours, torch.stack(monai), rtol=3e-3, atol=0)


def levels(seed: int, count: int, *shape: int) -> Tensor:
    image = torch.randint(0, count, shape, generator=torch.Generator().manual_seed(seed)).double()
    image.flatten()[:count] = torch.arange(count).double()
    return image


def test_of_an_image_with_itself_is_its_entropy() -> None:
    image = levels(3, 6, 1, 1, 9, 10).square().remainder(7)
    probabilities = torch.unique(image, return_counts=True)[1] / image.numel()
    entropy = -(probabilities * probabilities.log()).sum().item()
    assert MutualInformation(7, window="linear", intensity_range=(0, 6))(image, image).item() == pytest.approx(-entropy)


def test_a_bijection_of_intensities_changes_nothing() -> None:
    fixed, warped = levels(4, 6, 1, 1, 12, 13), levels(5, 6, 1, 1, 12, 13)
    warped = torch.where(warped > 3, fixed, warped)
    similarity = MutualInformation(6, window="linear")
    permuted = torch.tensor([3.0, 5, 0, 1, 4, 2], dtype=torch.float64)[warped.long()]
    expected = similarity(fixed, warped)
    torch.testing.assert_close(similarity(fixed, permuted), expected)
    assert expected < -0.1
    for normalised in (False, True):
        cubic = MutualInformation(normalised=normalised)
        torch.testing.assert_close(cubic(fixed, -3 * warped + 100), cubic(fixed, warped))
        assert cubic(fixed, 5 - fixed) == pytest.approx(cubic(fixed, fixed).item())


def test_bounds() -> None:
    image, unrelated = levels(6, 5, 1, 1, 60, 60), levels(7, 5, 1, 1, 60, 60)
    assert -0.01 < MutualInformation()(image, unrelated).item() <= 1e-6
    normalised = MutualInformation(5, window="linear", normalised=True)
    assert normalised(image, image).item() == pytest.approx(-2)
    assert normalised(image, unrelated).item() == pytest.approx(-1, abs=0.01)
    assert normalised(image, torch.ones_like(image)).item() == pytest.approx(-1)
    assert MutualInformation()(image, torch.ones_like(image)).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_a_step_in_float32() -> None:
    """A large volume in chunks: the energy changes along the gradient by its square length."""
    fixed, warped = images(8, 1, 1, 50, 51, 52, dtype=torch.float32)
    bound = MutualInformation(intensity_range=(-0.5, 1.5)).bind(fixed)
    energy, gradient = bound.value_and_gradient(warped)
    step = 1e-3 / gradient.abs().max()
    change = (bound(warped - step * gradient) - energy).item()
    assert change == pytest.approx(-(step * gradient.square().sum()).item(), rel=0.05)


def test_samples() -> None:
    fixed, warped = images(9, 2, 1, 40, 41, dtype=torch.float32)
    warped[1], fixed[1] = warped[0], fixed[0]
    everything = MutualInformation()(fixed, warped)
    sampled = MutualInformation(samples=0.5, seed=3)
    energy, gradient = sampled.bind(fixed).value_and_gradient(warped)
    assert energy[0] == energy[1]
    assert energy[0].item() != everything[0].item()
    assert energy[0].item() == pytest.approx(everything[0].item(), rel=0.2)
    assert (gradient[0] != 0).sum() == 820
    assert MutualInformation(samples=0.5, seed=4)(fixed, warped)[0] != energy[0]
    mask = torch.zeros(2, 1, 40, 41)
    mask[..., :10] = 1
    assert (sampled.bind(fixed, mask).value_and_gradient(warped)[1][..., 10:] == 0).all()
    torch.testing.assert_close(
        MutualInformation(samples=1.0)(fixed, warped, mask),
        MutualInformation()(fixed[..., :10].contiguous(), warped[..., :10].contiguous()),
    )


def test_intensities_outside_the_range_count_as_the_ends_and_have_no_gradient() -> None:
    fixed, warped = images(10, 1, 1, 12, 13)
    similarity = MutualInformation(8, intensity_range=(0.3, 0.7))
    energy, gradient = similarity.bind(fixed).value_and_gradient(warped)
    assert energy.item() == pytest.approx(similarity(fixed.clamp(0.3, 0.7), warped.clamp(0.3, 0.7)).item())
    outside = (warped < 0.3) | (warped > 0.7)
    assert outside.any()
    assert (gradient[outside] == 0).all()
    assert (gradient[~outside] != 0).all()


def test_messages() -> None:
    with pytest.raises(ValueError, match="window must be one of"):
        MutualInformation(window="box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bins must be at least 4"):
        MutualInformation(3)
    with pytest.raises(ValueError, match="intensity_range must be"):
        MutualInformation(intensity_range=(1, 1))
    with pytest.raises(ValueError, match="samples must be a share"):
        MutualInformation(samples=0)
