"""SSD and global NCC against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.similarity import NCC, SSD
from tests.similarity.test_common import images, weights_of


def test_ssd_equals_numpy() -> None:
    fixed, warped = images(0, 2, 2, 6, 5, 7)
    mask = weights_of(1, 2, 1, 6, 5, 7)
    difference = (fixed - warped).numpy() ** 2
    np.testing.assert_allclose(SSD()(fixed, warped), difference.mean(axis=(1, 2, 3, 4)))
    both = np.broadcast_to(mask.numpy(), difference.shape)
    expected = [np.average(d, weights=w) for d, w in zip(difference, both, strict=True)]
    np.testing.assert_allclose(SSD()(fixed, warped, mask), expected)


def test_ssd_gradient_is_that_of_the_thesis() -> None:
    fixed, warped = images(2, 1, 1, 8, 9)
    gradient = SSD().bind(fixed).value_and_gradient(warped)[1]
    torch.testing.assert_close(gradient, -2 * (fixed - warped) / 72)


def test_ncc_equals_numpy() -> None:
    fixed, warped = images(3, 1, 1, 6, 5, 7)
    correlation = np.corrcoef(fixed.flatten(), warped.flatten())[0, 1]
    assert NCC(signed=True)(fixed, warped).item() == pytest.approx(1 - correlation)
    assert NCC()(fixed, warped).item() == pytest.approx(1 - correlation**2)
    mask = weights_of(4, 1, 1, 6, 5, 7)
    covariance = np.cov(fixed.flatten(), warped.flatten(), aweights=mask.flatten())
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert NCC(signed=True)(fixed, warped, mask).item() == pytest.approx(1 - correlation)


@pytest.mark.parametrize("scale", [2.0, -0.3])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_ncc_of_a_linear_function_is_perfect(scale: float, offset: float) -> None:
    image = images(5, 1, 1, 6, 5, 7, dtype=torch.float32)[0]
    function = scale * image + offset
    assert NCC()(image, function).item() == pytest.approx(0, abs=1e-6)
    assert NCC(signed=True)(image, function).item() == pytest.approx(0 if scale > 0 else 2, abs=1e-6)


def test_ncc_of_a_constant_image_is_that_of_unrelated_ones() -> None:
    image = images(6, 1, 1, 6, 5, 7, dtype=torch.float32)[0]
    assert NCC()(image, torch.full_like(image, 0.1)).item() == pytest.approx(1)
