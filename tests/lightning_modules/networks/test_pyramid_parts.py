"""The parts of the registration pyramid, each against a plain computation of the same."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.pyramid_affine import AffineEstimator, affine_field, mapped_vectors
from lightning_modules.networks.pyramid_blocks import Block
from lightning_modules.networks.pyramid_estimator import ContextNetwork, DenseEstimator
from lightning_modules.networks.pyramid_features import LaplacianFeatures, LearnedFeatures
from lightning_modules.networks.pyramid_upsampling import Upsampling, repeated_convolution
from reg_bench.field import warp
from reg_bench.pyramid import laplacian_pyramid

SHAPES = [(4, 6), (3, 4, 5)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def is_3d(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_block_is_convolution_then_rectifier_then_normalisation(shape: tuple[int, ...]) -> None:
    block = Block(len(shape), 2, 3, "batch", stride=2)
    image = noise(2, 2, *shape)
    convolve = F.conv3d if is_3d(shape) else F.conv2d
    rectified = F.leaky_relu(convolve(image, block.convolution.weight, stride=2, padding=1), 0.2)
    axes = (0, *range(2, rectified.ndim))
    mean, variance = rectified.mean(axes, keepdim=True), rectified.var(axes, keepdim=True, unbiased=False)
    torch.testing.assert_close(block(image), (rectified - mean) / (variance + 1e-3).sqrt(), atol=1e-5, rtol=1e-5)
    # Keras' momentum of 0.99 leaves a hundredth to the new batch.
    torch.testing.assert_close(block.normalisation.running_mean, 0.01 * mean.flatten(), atol=1e-6, rtol=1e-5)


def plain_dense(estimator: DenseEstimator, image: Tensor) -> tuple[Tensor, Tensor]:
    """The DenseNet as it is usually written: everything so far is put together before every layer."""
    convolve = F.conv3d if image.ndim == 5 else F.conv2d
    values = image
    for layer, norm in zip(estimator.layers, estimator.normalisations, strict=True):
        new = norm(F.leaky_relu(convolve(values, layer.weight, layer.bias, padding=1), 0.2))
        values = torch.cat((new, values), dim=1)
    last = estimator.displacement
    return convolve(values, last.weight, last.bias, padding=1), values


@pytest.mark.parametrize("kind", ["batch", "instance", None])
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_estimator_equals_the_plain_one(shape: tuple[int, ...], kind: str | None) -> None:
    estimator = DenseEstimator(len(shape), 5, (4, 3, 2), kind).double()
    for parameter in estimator.parameters():
        nn.init.normal_(parameter, std=0.3)
    image = noise(2, 5, *shape, dtype=torch.float64).requires_grad_()
    expected, values = plain_dense(estimator, image)
    u, results = estimator(image)
    torch.testing.assert_close(u, expected, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(torch.cat(results, dim=1), values, atol=1e-12, rtol=1e-10)
    leaves = [image, *estimator.parameters()]
    # A bias before a normalisation over the batch has gradients of rounding errors alone: compared absolutely.
    for ours, plain in zip(
        torch.autograd.grad(u.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(estimator(image)[0], expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_of_the_repeated_map_without_repeating_it(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    image = noise(2, 3, *shape, dtype=torch.float64).requires_grad_()
    kernel = noise(4, 3, *(3,) * dims, seed=1, dtype=torch.float64).requires_grad_()
    bias = noise(4, seed=2, dtype=torch.float64)
    repeated = image
    for axis in range(2, image.ndim):
        repeated = repeated.repeat_interleave(2, dim=axis)
    expected = (F.conv3d if is_3d(shape) else F.conv2d)(repeated, kernel, bias, padding=1)
    ours = repeated_convolution(image, kernel, bias)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)
    upstream = noise(*ours.shape, seed=3, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(ours, (image, kernel), upstream),
        torch.autograd.grad(expected, (image, kernel), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("doubling", ["convolution", "linear"])
@pytest.mark.parametrize("shape", SHAPES)
def test_upsampling_keeps_a_constant_physical_shift(shape: tuple[int, ...], doubling: str) -> None:
    shift = torch.tensor([1.0, -2.0, 0.5])[: len(shape)]
    u = shift.reshape(1, -1, *(1,) * len(shape)).expand(1, -1, *shape)
    finer, carried = Upsampling(len(shape), 5, 7, doubling)(u, [noise(1, 2, *shape), noise(1, 3, *shape)])
    assert carried is not None
    assert carried.shape == (1, 7, *(2 * n for n in shape))
    # Voxels whose ends meet grow by (2 n - 1) / (n - 1), those that are halved by 2.
    factor = torch.tensor([2.0 if doubling == "convolution" else (2 * n - 1) / (n - 1) for n in shape])
    expected = (shift * factor).reshape(1, -1, *(1,) * len(shape)).expand_as(finer)
    torch.testing.assert_close(finer, expected, atol=1e-5, rtol=1e-5)


def test_affine_step_is_zero_at_first_and_reads_the_means() -> None:
    step = AffineEstimator(3, 2)
    fixed, warped = noise(2, 2, 3, 4, 5), noise(2, 2, 3, 4, 5, seed=1)
    assert not step(fixed, warped).any()
    nn.init.normal_(step.linear.weight)
    means = torch.cat((fixed.mean((2, 3, 4)), warped.mean((2, 3, 4))), dim=1)
    expected = (means @ step.linear.weight.T).reshape(2, 3, 4)
    torch.testing.assert_close(step(fixed, warped), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 14), (8, 11, 14)])
def test_affine_field_is_a_rotation_as_torch_rotates(shape: tuple[int, ...]) -> None:
    """10 degrees in the plane of the last two axes, and a shift, on a grid of unequal sides."""
    dims, angle = len(shape), math.radians(10)
    offset = torch.zeros(1, dims, dims + 1)
    cosine, sine = math.cos(angle), math.sin(angle)
    offset[0, -2:, dims - 2 : dims] = torch.tensor([[cosine - 1, -sine], [sine, cosine - 1]])
    offset[0, :, dims] = torch.tensor([0.1, -0.2, 0.3])[:dims]
    # torch counts the axes from the last.
    matrix = offset[:, :, :dims] + torch.eye(dims)
    theta = torch.cat((matrix.flip(1, 2), offset[:, :, dims:].flip(1)), dim=2)
    image = noise(1, 2, *shape)
    grid = F.affine_grid(theta, [1, 2, *shape], align_corners=True)
    expected = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(image, affine_field(offset, shape)), expected, atol=1e-4, rtol=1e-4)


def test_affine_step_on_vectors() -> None:
    offset = noise(2, 3, 4)
    nothing = torch.zeros(2, 3, 2, 3, 4)
    only_translation = offset[:, :, 3, None, None, None].expand_as(nothing)
    torch.testing.assert_close(mapped_vectors(offset, nothing), only_translation)
    u = noise(2, 3, 2, 3, 4, seed=1)
    matrix = offset[:, :, :3] + torch.eye(3)
    expected = torch.einsum("bij,bj...->bi...", matrix, u) + only_translation
    torch.testing.assert_close(mapped_vectors(offset, u), expected, atol=1e-5, rtol=1e-5)


def test_features_halve_and_have_the_widths_of_the_paper() -> None:
    features = LearnedFeatures(3, 1, (16, 32, 32, 32), 3, "batch")
    shapes = [tuple(level.shape[1:]) for level in features(noise(1, 1, 64, 64, 64))]
    assert shapes == [(1, 64, 64, 64), (16, 32, 32, 32), (32, 16, 16, 16), (32, 8, 8, 8), (32, 4, 4, 4)]


def test_laplacian_features_are_the_bands_at_unit_size() -> None:
    image = noise(2, 2, 16, 8)
    features, bands = LaplacianFeatures(2, 2)(image), laplacian_pyramid(image, 3, smallest_size=1)
    for level, band in zip(features, bands, strict=True):
        assert level.shape == band.shape
        torch.testing.assert_close(level.square().mean((1, 2, 3)), torch.ones(2), atol=1e-4, rtol=1e-4)
        ratio = level[0] / band[0]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_context_sees_as_far_as_its_dilations() -> None:
    """3 voxels of the last layer, and of each dilated one twice the dilation more."""
    context = ContextNetwork(2, 2, (3, 3), (1, 4), None)
    for layer in (*(block.convolution for block in context.blocks), context.displacement):
        nn.init.constant_(layer.weight, 1.0)
    image = torch.zeros(1, 2, 21, 21)
    image[..., 10, 10] = 1.0
    seen = context(image)[0, 0] != 0
    reach = {a + b + c for a, b, c in itertools.product((-1, 0, 1), (-4, 0, 4), (-1, 0, 1))}
    expected = torch.tensor([n - 10 in reach for n in range(21)])
    assert torch.equal(seen, expected[:, None] & expected)
