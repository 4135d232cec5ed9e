"""Convolution of few channels against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reg_bench.narrow_convolution import convolve_same


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 5), (9, 3), (11, 1)])
@pytest.mark.parametrize("shape", [(8, 7), (4, 5), (6, 9), (36, 11)])
@pytest.mark.parametrize("channels", [(1, 2), (4, 2), (2, 1), (5, 3)])
@pytest.mark.parametrize("graph", [True, False])
def test_equals_conv2d(size: tuple[int, int], shape: tuple[int, int], channels: tuple[int, int], graph: bool) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, channels[0], *shape, dtype=torch.float64)
    kernel = torch.randn(*channels[::-1], *size, dtype=torch.float64, requires_grad=graph)
    expected = F.conv2d(image, kernel, padding=[k // 2 for k in size])
    torch.testing.assert_close(convolve_same(image, kernel), expected)


def test_equals_conv3d_and_keeps_exact_zeros() -> None:
    image, kernel = torch.randn(1, 2, 4, 5, 6), torch.rand(2, 2, 3, 3, 3)
    torch.testing.assert_close(convolve_same(image, kernel), F.conv3d(image, kernel, padding=1))
    point = torch.zeros(1, 1, 12, 12)
    point[..., 5, 6] = 1
    assert int((convolve_same(point, torch.rand(1, 1, 5, 5) + 0.1) != 0).sum()) == 25


def test_gradient() -> None:
    image = torch.randn(1, 2, 8, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolve_same, (image, kernel), fast_mode=True)
    with torch.inference_mode():
        convolve_same(image, kernel)
    convolve_same(image, kernel).sum().backward()
