"""Convolutions by oneDNN against torch's own in double precision, and where they must stand aside."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reg_bench.direct_convolution import DirectConvolutions


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"padding": (2, 1, 0), "dilation": (2, 1, 1)},
        {"stride": (1, 2, 1), "groups": 2},
    ],
)
def test_values_are_of_conv3d(options: dict[str, Any], channels_last: bool) -> None:
    image, weight, bias = volume(1, 4, 9, 8, 7), volume(6, 4 // options.get("groups", 1), 3, 3, 3), volume(6)
    if channels_last:
        image = image.to(memory_format=torch.channels_last_3d)
    expected = F.conv3d(image.double(), weight.double(), bias.double(), **options).float()
    with torch.no_grad(), DirectConvolutions():
        torch.testing.assert_close(F.conv3d(image, weight, bias, **options), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(
            F.conv3d(image, weight, **options), expected - bias[:, None, None, None], atol=1e-4, rtol=1e-5
        )


def test_modules_are_convolved_directly_inside_only() -> None:
    layer, image = nn.Conv3d(2, 3, 3, padding=1), volume(1, 2, 6, 6, 6)
    with patch("torch.mkldnn_convolution", wraps=torch.mkldnn_convolution) as direct, torch.inference_mode():
        usual = layer(image)
        assert not direct.called
        with DirectConvolutions():
            torch.testing.assert_close(layer(image), usual, atol=1e-5, rtol=1e-5)
        assert direct.call_count == 1


@pytest.mark.parametrize("case", ["gradient", "double", "same", "unbatched"])
def test_everything_else_goes_its_usual_way(case: str) -> None:
    image, weight, padding = volume(1, 2, 5, 5, 5), volume(3, 2, 3, 3, 3), 1
    if case == "double":
        image, weight = image.double(), weight.double()
    if case == "gradient":
        weight.requires_grad_()
    if case == "unbatched":
        image = image[0]
    given: Any = "same" if case == "same" else padding
    expected = F.conv3d(image, weight, padding=padding)
    with patch("torch.mkldnn_convolution", side_effect=AssertionError), DirectConvolutions():
        found = F.conv3d(image, weight, padding=given)
    torch.testing.assert_close(found, expected)
    if case == "gradient":
        found.sum().backward()
        assert weight.grad is not None
