"""Intensities against NumPy's percentiles and local statistics by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.field import gaussian
from reg_bench.intensities import locally_normalised, unit_range


@pytest.mark.parametrize("shape", [(2, 3, 17, 11), (2, 1, 9, 8, 7)])
def test_percentiles_are_numpys_per_case_and_channel(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 40 + 100
    found = unit_range(image, (2.0, 97.5))
    for case in range(shape[0]):
        for channel in range(shape[1]):
            values = image[case, channel].numpy()
            low, high = np.percentile(values, (2.0, 97.5))
            expected = np.clip((values - low) / (high - low), 0, 1)
            np.testing.assert_allclose(found[case, channel].numpy(), expected, atol=1e-12)


def test_scale_and_offset_do_not_matter() -> None:
    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unit_range(1000 * image - 300), unit_range(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, -7.0, 1e6])
def test_a_constant_image_becomes_zero(value: float) -> None:
    image = torch.full((1, 1, 8, 8), value)
    image[0, 0, 3, 3] += abs(value) * 1e-6
    assert torch.equal(unit_range(image), torch.zeros_like(image))


def test_integers_are_taken_and_few_bright_voxels_are_cut() -> None:
    image = torch.zeros(1, 1, 10, 10, dtype=torch.int16)
    image[0, 0, 0, 0] = 5
    assert unit_range(image).dtype == torch.float32
    assert unit_range(image, (0.0, 50.0)).max() == 1.0


def test_local_mean_and_contrast_are_removed() -> None:
    rng = torch.Generator().manual_seed(2)
    image = torch.rand(1, 1, 40, 40, generator=rng, dtype=torch.float64)
    plain = locally_normalised(image, 3.0, 1e-6)
    # Local statistics of a gain and an offset cancel exactly.
    torch.testing.assert_close(locally_normalised(0.3 * image + 5, 3.0, 1e-6), plain, atol=1e-4, rtol=0)
    mean, square = gaussian(image, 3.0), gaussian(image * image, 3.0)
    expected = (image - mean) / (square - mean**2).sqrt()
    torch.testing.assert_close(plain, expected, atol=1e-6, rtol=0)


def test_noise_below_the_floor_stays_small_and_bad_settings_are_named() -> None:
    noise = torch.randn(1, 1, 30, 30, generator=torch.Generator().manual_seed(3)) * 1e-4
    assert float(locally_normalised(noise, 2.0, 0.05).abs().max()) < 0.02
    with pytest.raises(ValueError, match="sigma_voxels > 0 and floor > 0, got 0"):
        locally_normalised(noise, 0.0)
