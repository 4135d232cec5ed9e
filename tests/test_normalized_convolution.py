"""Normalised convolution against its definition in loops, and at the places where it divides by nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.normalized_convolution import NormalizedConv, normalized_convolution


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(*shape: int, share: float = 0.2, seed: int = 1) -> Tensor:
    draw = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(draw < share, draw / share, torch.zeros_like(draw))


def by_loops(x: Tensor, c: Tensor, w: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Equations 2.63a and b, voxel by voxel, of one case."""
    spatial, reach = x.shape[1:], [k // 2 for k in w.shape[2:]]
    c = c.expand_as(x)
    out, certainty = np.zeros((len(w), *spatial)), np.zeros((len(w), *spatial))
    for o, place in itertools.product(range(len(w)), itertools.product(*map(range, spatial))):
        above = below = 0.0
        for i, tap in itertools.product(range(len(x)), itertools.product(*map(range, w.shape[2:]))):
            at = tuple(p + t - r for p, t, r in zip(place, tap, reach, strict=True))
            if all(0 <= a < n for a, n in zip(at, spatial, strict=True)):
                above += float(w[o, i][tap] * c[i][at] * x[i][at])
                below += float(w[o, i][tap] * c[i][at])
        out[o][place] = above / below + float(b[o]) if below else 0.0
        certainty[o][place] = below / float(w[o].sum())
    return out, certainty


@pytest.mark.parametrize("one_confidence", [True, False])
@pytest.mark.parametrize(("spatial", "size"), [((9, 7), (5, 5)), ((6, 8), (1, 3)), ((5, 4, 6), (3, 3, 3))])
def test_equals_loops(spatial: tuple[int, ...], size: tuple[int, ...], one_confidence: bool) -> None:
    x, w, b = noise(2, 3, *spatial), noise(2, 3, *size, seed=2).abs(), noise(2, seed=3)
    c = sparse(2, 1 if one_confidence else 3, *spatial, share=0.08 if one_confidence else 0.02)
    values, confidence = normalized_convolution(x.float(), c.float(), w.float(), b.float())
    for k in range(2):
        expected, certainty = by_loops(x[k], c[k], w, b)
        assert (certainty == 0).any()
        assert certainty.any()
        np.testing.assert_allclose(values[k].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(confidence[k].numpy(), certainty, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_a_constant_stays_constant_and_values_stay_within_what_was_seen(dims: int, share: float) -> None:
    torch.manual_seed(0)
    layer = NormalizedConv(2, 3, 5, dims)
    shape = (1, 2, *(17, 15, 11)[:dims])
    c = sparse(*shape, share=share).float()
    assert c.any()
    values, confidence = layer(torch.full(shape, 3.7), c)
    known = confidence > 0
    assert (values[known] - 3.7).abs().max() < 1e-5
    assert not values[~known].any()
    x = noise(*shape).float()
    values = layer(x, c)[0]
    assert values.max() <= x[c > 0].max() + 1e-5
    assert values.min() >= x[c > 0].min() - 1e-5


def test_the_printed_denominator_would_not_keep_a_constant() -> None:
    """Equation 2.63a without the applicability below: the test above would notice."""
    w, c = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)), sparse(1, 1, 9, 9).float()
    sums = torch.nn.functional.conv2d(3.7 * c, w, padding=2)
    printed = sums / torch.nn.functional.conv2d(c, torch.ones_like(w), padding=2).clamp(min=1e-20)
    assert (printed[sums > 0] - 3.7).abs().max() > 0.1


def test_confidence_is_full_inside_where_it_was_and_scales_with_what_it_was() -> None:
    layer = NormalizedConv(2, 2, 5)
    x = noise(1, 2, 12, 12).float()
    values, confidence = layer(x, torch.ones(1, 2, 12, 12))
    torch.testing.assert_close(confidence[..., 2:-2, 2:-2], torch.ones(1, 2, 8, 8))
    assert confidence.max() <= 1 + 1e-6
    c = sparse(1, 2, 12, 12).float()
    values, confidence = layer(x, c)
    again, scaled = layer(x, 0.3 * c)
    torch.testing.assert_close(again, values)
    torch.testing.assert_close(scaled, 0.3 * confidence)
    layer.bias = None
    torch.testing.assert_close(layer(2.5 * x, c)[0], 2.5 * layer(x, c)[0])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("confidence", [0.0, 1e-30])
def test_no_confidence_gives_zeros_and_finite_gradients(dims: int, confidence: float) -> None:
    layer = NormalizedConv(1, 2, 3, dims)
    torch.nn.init.constant_(layer.bias, 0.5)
    x = noise(1, 1, *(6,) * dims).float().requires_grad_()
    c = torch.full_like(x, confidence).requires_grad_()
    values, certainty = layer(x, c)
    assert values.abs().max() <= (1e-29 if confidence else 0)
    assert certainty.max() <= 1e-29
    (values.square().sum() + certainty.sum()).backward()
    for tensor in (x, c, layer.weight, layer.bias):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_gradients_stay_finite_next_to_faint_confidence() -> None:
    layer = NormalizedConv(1, 1, 3)
    c = torch.zeros(1, 1, 9, 9)
    c[..., 1, 1], c[..., 5, 5], c[..., 7, 2] = 1.0, 2e-19, 1e-38
    c.requires_grad_()
    values, certainty = layer(torch.randn(1, 1, 9, 9), c)
    (values.square().sum() + certainty.sum()).backward()
    assert c.grad is not None
    assert c.grad.isfinite().all()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient(dims: int, channels: int) -> None:
    shape = (4, 3, 3)[:dims]
    x = noise(1, 2, *shape).requires_grad_()
    c = (sparse(1, channels, *shape, share=1.0) + 0.1).requires_grad_()
    w, b = noise(2, 2, *(3,) * dims, seed=4).abs().add(0.1).requires_grad_(), noise(2).requires_grad_()
    assert torch.autograd.gradcheck(normalized_convolution, (x, c, w, b), fast_mode=True)


@pytest.mark.parametrize("one_confidence", [True, False])
def test_fields_that_share_their_confidence_are_as_if_alone(one_confidence: bool) -> None:
    x, w, b = noise(3, 2, 4, 8, 9), noise(5, 4, 3, 3, seed=2).abs(), noise(5)
    c = sparse(3, 1 if one_confidence else 4, 8, 9)
    together, confidence = normalized_convolution(x, c, w, b)
    assert together.shape == (3, 2, 5, 8, 9)
    for k in range(2):
        alone, certainty = normalized_convolution(x[:, k], c, w, b)
        torch.testing.assert_close(together[:, k], alone)
        torch.testing.assert_close(confidence, certainty)


def test_kernels_are_positive_whatever_the_optimizer_does() -> None:
    torch.manual_seed(0)
    layer = NormalizedConv(1, 2, 5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for _ in range(10):
        optimizer.zero_grad()
        layer(noise(1, 1, 9, 9).float(), sparse(1, 1, 9, 9).float())[0].sum().backward()
        before = layer.weight.detach().clone()
        optimizer.step()
    assert layer.kernel.min() >= 0
    assert layer.weight.min() < 0
    layer(noise(1, 1, 9, 9).float(), sparse(1, 1, 9, 9).float())
    assert (layer.weight != before).any()
    torch.testing.assert_close(layer.kernel, torch.log1p(torch.exp(10 * layer.weight)) / 10)


def test_wrong_arguments_are_named() -> None:
    x, c, w = torch.zeros(1, 2, 5, 5), torch.zeros(1, 1, 5, 5), torch.ones(1, 2, 3, 3)
    with pytest.raises(ValueError, match=r"kernel must be .* odd lengths, got \(1, 2, 2, 3\)"):
        normalized_convolution(x, c, torch.ones(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"values must be \(B, 2, \*S\)"):
        normalized_convolution(x[:, :1], c, w)
    with pytest.raises(ValueError, match=r"confidence must be .* got \(1, 1, 4, 5\)"):
        normalized_convolution(x, c[:, :, 1:], w)
    with pytest.raises(ValueError, match="confidence must have 1 or 2 channels, got 3"):
        normalized_convolution(x, torch.zeros(1, 3, 5, 5), w)
    with pytest.raises(ValueError, match="dims must be 2 or 3, got 1"):
        NormalizedConv(1, 1, 3, 1)
    with pytest.raises(ValueError, match="size odd, got 1, 1 and 4"):
        NormalizedConv(1, 1, 4)
