"""What holds for every similarity: gradients, masks, batches, dtypes, constant images, messages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reg_bench.similarity import LNCC, MIND, NCC, NGF, SSD, Differentiable, MutualInformation, Similarity, SoftDice

SYMMETRIC: dict[str, Callable[[], Similarity]] = {
    "ssd": SSD,
    "ncc": NCC,
    "ncc-signed": lambda: NCC(signed=True),
    "lncc": lambda: LNCC(3),
    "lncc-signed": lambda: LNCC(5, signed=True),
    "lncc-zeros": lambda: LNCC(3, border="zeros"),
    "mi": lambda: MutualInformation(8, intensity_range=(-0.1, 1.1)),
    "nmi-linear": lambda: MutualInformation(6, window="linear", normalised=True, intensity_range=(-0.1, 1.1)),
    "mi-gaussian": lambda: MutualInformation(8, window="gaussian", intensity_range=(-0.1, 1.1), samples=0.5),
    "ngf": NGF,
    "mind": lambda: MIND(1, 1),
}
EVERY = {**SYMMETRIC, "soft-dice": SoftDice}
each = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
each_symmetric = pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC)
shapes = pytest.mark.parametrize("shape", [(6, 5, 7), (8, 9)], ids=["3d", "2d"])


def images(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two images `(B, C, *S)` that have something in common."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return first, 0.5 * first + 0.5 * second


def weights_of(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@each_symmetric
@shapes
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_in_both_images(make: Callable[[], Similarity], shape: tuple[int, ...], masked: bool) -> None:
    fixed, warped = (image.requires_grad_() for image in images(0, 2, 2, *shape))
    mask = weights_of(1, 2, 1, *shape) if masked else None
    spacing = torch.tensor([[1.0, 2.0, 0.5], [1.0, 1.0, 1.0]])[:, : len(shape)]
    assert torch.autograd.gradcheck(lambda f, w: make()(f, w, mask, spacing), (fixed, warped), fast_mode=True)


@each
def test_value_and_gradient_equal_autograd(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(2, 2, 2, 6, 5, 7)
    bound = make().bind(fixed, weights_of(3, 2, 1, 6, 5, 7))
    value, gradient = bound.value_and_gradient(warped)
    by_autograd = Differentiable(bound).value_and_gradient(warped)
    torch.testing.assert_close((value, gradient), by_autograd)
    torch.testing.assert_close(bound(warped), value)
    assert value.shape == (2,)
    assert gradient.shape == warped.shape
    assert not value.requires_grad
    assert not gradient.requires_grad


@each
def test_binding_again_and_calling_again_change_nothing(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(4, 1, 1, 6, 5, 7)
    similarity = make()
    bound = similarity.bind(fixed)
    first = bound.value_and_gradient(warped)
    bound.value_and_gradient(fixed)
    assert torch.equal(bound.value_and_gradient(warped)[0], first[0])
    assert torch.equal(bound.value_and_gradient(warped)[1], first[1])
    assert torch.equal(similarity(fixed, warped), first[0])


@each
@shapes
def test_a_case_of_a_batch_is_as_if_alone(make: Callable[[], Similarity], shape: tuple[int, ...]) -> None:
    fixed, warped = images(5, 3, 2, *shape)
    fixed[1], warped[2] = 100 * fixed[1], 3 - warped[2]
    mask = weights_of(6, 3, 1, *shape)
    mask[0] = 0
    together = make().bind(fixed, mask).value_and_gradient(warped)
    for case in range(3):
        one = slice(case, case + 1)
        alone = make().bind(fixed[one], mask[one]).value_and_gradient(warped[one])
        torch.testing.assert_close((together[0][one], together[1][one]), alone)


@each
def test_channels_count_alike(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(7, 1, 3, 8, 9)
    alone = [make()(fixed[:, c : c + 1], warped[:, c : c + 1]) for c in range(3)]
    torch.testing.assert_close(make()(fixed, warped), torch.stack(alone).mean(dim=0))


@each
def test_only_the_proportions_of_a_mask_count(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(8, 2, 1, 6, 5, 7)
    weights = weights_of(9, 2, 1, 6, 5, 7)
    torch.testing.assert_close(make()(fixed, warped, 1e6 * weights), make()(fixed, warped, weights))
    everywhere = torch.ones(2, 1, 6, 5, 7, dtype=torch.bool)
    torch.testing.assert_close(make()(fixed, warped, everywhere), make()(fixed, warped))


@each
def test_an_empty_mask_gives_nothing(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(10, 1, 1, 6, 5, 7)
    energy, gradient = make().bind(fixed, torch.zeros(1, 1, 6, 5, 7)).value_and_gradient(warped)
    assert energy.item() == 0
    assert not gradient.any()


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [(0.0, 0.0), (7.3, 7.3), (1234.567, 0.1)])
def test_constant_images_stay_finite(
    make: Callable[[], Similarity], dtype: torch.dtype, values: tuple[float, float]
) -> None:
    constants = [torch.full((1, 1, 6, 5, 7), value, dtype=dtype) for value in values]
    varied = images(11, 1, 1, 6, 5, 7, dtype=dtype)[0]
    for fixed, warped in [(constants[0], constants[1]), (constants[0], varied), (varied, constants[1])]:
        energy, gradient = make().bind(fixed).value_and_gradient(warped)
        assert energy.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


@each
def test_identical_images_are_not_beaten_by_a_shift(make: Callable[[], Similarity]) -> None:
    image = torch.nn.functional.avg_pool2d(images(12, 1, 1, 26, 26)[0], 3, 1)
    similarity = make()
    best = similarity(image, image)
    for axis in (2, 3):
        for step in (-1, 1):
            assert similarity(image, image.roll(step, axis)) > best


@each
def test_half_precision_is_computed_in_float32(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(13, 1, 1, 8, 9, dtype=torch.float16)
    energy, gradient = make().bind(fixed).value_and_gradient(warped)
    assert energy.dtype == torch.float32
    assert gradient.dtype == torch.float16
    torch.testing.assert_close(energy, make()(fixed.float(), warped.float()))


@each
def test_an_axis_of_length_one(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(14, 1, 1, 1, 8, 9)
    energy, gradient = make().bind(fixed).value_and_gradient(warped)
    assert energy.isfinite().all()
    assert gradient.isfinite().all()


@each
def test_messages(make: Callable[[], Similarity]) -> None:
    fixed, warped = images(15, 1, 1, 8, 9)
    with pytest.raises(ValueError, match=r"warped must be .* of the shape of fixed, \(1, 1, 8, 9\)"):
        make()(fixed, warped[..., :-1])
    with pytest.raises(ValueError, match="fixed must be floating point images"):
        make()(fixed.long(), warped)
    with pytest.raises(ValueError, match=r"mask must be \(B, 1, \*spatial\) = \(1, 1, 8, 9\)"):
        make()(fixed, warped, torch.ones(8, 9))
    with pytest.raises(ValueError, match="mask must hold finite weights of at least 0"):
        make()(fixed, warped, -torch.ones(1, 1, 8, 9))


def test_a_fixed_image_without_gradient_says_so() -> None:
    fixed, warped = images(16, 1, 1, 8, 9)
    with pytest.raises(ValueError, match="fixed has no gradient"):
        SoftDice()(fixed.requires_grad_(), warped)


def test_the_gradient_flows_through_what_made_the_warped_image() -> None:
    fixed, moving = images(17, 1, 1, 8, 9)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    SSD()(fixed, moving * scale).sum().backward()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, (2 * (moving - fixed) * moving).mean())
