"""Tensors to SimpleITK and back: axis order, units, grids, and the images that ITK cannot take."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from lightning_modules.affine_then import AffineThen
from lightning_modules.simpleitk_affine import Affine
from lightning_modules.simpleitk_bridge import (
    ImagePair,
    array_of,
    centre_of_intensity,
    coarser,
    displacement_of,
    normalised,
    register_each,
    resample,
    to_image,
    to_voxels,
)
from lightning_modules.simpleitk_bspline import BSpline
from lightning_modules.simpleitk_demons import Demons
from lightning_modules.simpleitk_paper1 import BSplinePaper1, DemonsPaper1
from reg_bench.method import RegistrationModule, check_field
from reg_bench.types import RegistrationPair

METHODS: dict[str, RegistrationModule] = {
    "affine": Affine(iterations=10),
    "demons": Demons(iterations=(5, 5, 5)),
    "demons-symmetric": Demons("symmetric", iterations=(5, 5, 5)),
    "demons-diffeomorphic": Demons("diffeomorphic", iterations=(5, 5, 5)),
    "bspline": BSpline(iterations=3),
    "demons-paper1": DemonsPaper1(),
    "bspline-20": BSplinePaper1(),
    "affine+demons": AffineThen(Affine(iterations=10), Demons(iterations=(5, 5, 5))),
}


def random_pair(*shape: int, channels: int = 1) -> RegistrationPair:
    generator = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(1, channels, *shape, generator=generator) for _ in range(2))
    return RegistrationPair(("noise",), fixed, moving)


def test_axes_keep_their_order() -> None:
    array = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    image = to_image(array, np.array([0.5, 1.0, 2.0]))
    assert image.GetSize() == (3, 4, 5)
    assert image.GetSpacing() == (0.5, 1.0, 2.0)
    assert image[2, 1, 3] == array[2, 1, 3]
    assert (array_of(image) == array).all()


def test_displacement_becomes_voxels_of_index_to_index() -> None:
    """By hand: x = 3 mm apart, y = 0.5 mm, moving voxels twice and half as long."""
    fixed = to_image(np.zeros((5, 4), np.float32), np.array([3.0, 0.5]))
    moving = to_image(np.zeros((5, 4), np.float32), np.array([6.0, 0.25]))
    images = ImagePair(fixed, moving)
    shift = displacement_of(sitk.TranslationTransform(2, (12.0, -1.0)), images)
    u = to_voxels(shift, images)
    # Index (2, 2) lies at (6, 1) mm, goes to (18, 0) mm, which is index (3, 0) of the moving image.
    assert u[:, 2, 2].tolist() == [1.0, -2.0]
    assert to_voxels(shift, ImagePair(fixed, fixed))[:, 2, 2].tolist() == [4.0, -2.0]


def test_normalisation() -> None:
    array = np.arange(10_001, dtype=np.float32)
    scaled = normalised(array)
    assert scaled[10] == pytest.approx(0, abs=1e-6)
    assert scaled[9990] == pytest.approx(1, abs=1e-6)
    assert np.allclose(scaled, normalised(7 * array - 3), atol=1e-6)
    assert not normalised(np.full((4, 4), 3.3, np.float32) + 1e-6).any()
    spike = np.zeros((99, 99), np.float32)
    spike[3, 3] = 5
    assert normalised(spike).max() == 1


def test_coarse_grid_covers_the_same_extent_at_odd_sizes() -> None:
    image = to_image(np.ones((33, 9), np.float32), np.array([1.0, 2.0]))
    coarse = coarser(image, np.array([4.0, 2.0]))
    assert coarse.GetSize() == (9, 5)
    for c, (n, s) in enumerate(zip(image.GetSize(), image.GetSpacing(), strict=True)):
        low = coarse.GetOrigin()[c] - 0.5 * coarse.GetSpacing()[c]
        assert low == pytest.approx(-0.5 * s)
        assert low + coarse.GetSize()[c] * coarse.GetSpacing()[c] == pytest.approx((n - 0.5) * s)
    # No background leaks in at the border, neither down nor up.
    assert np.allclose(array_of(coarse), 1)
    assert np.allclose(array_of(resample(coarse, image)), 1)


def test_centre_of_intensity() -> None:
    array = np.zeros((8, 6), np.float32)
    array[2, 3], array[6, 3] = 1, 3
    assert centre_of_intensity(to_image(array, np.array([2.0, 0.5]))).tolist() == pytest.approx([10.0, 1.5])
    assert centre_of_intensity(to_image(0 * array, np.ones(2))).tolist() == [3.5, 2.5]


def test_channels_are_averaged() -> None:
    pair = random_pair(20, 16, channels=3)
    grey = RegistrationPair(("grey",), pair.fixed.mean(1, True), pair.moving.mean(1, True))
    method = METHODS["demons-symmetric"]
    assert torch.equal(method(pair).u, method(grey).u)


def test_nothing_is_asked_of_constant_images() -> None:
    def never(images: ImagePair) -> None:
        raise AssertionError("called")

    flat = torch.full((1, 1, 8, 8), 3.0)
    field = register_each(RegistrationPair(("flat",), torch.rand(1, 1, 8, 8), flat), never)
    assert not field.u.any()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8), (7, 9, 11), (17, 13, 1), (16, 12, 2), (3, 3), (1, 9)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_any_size_gives_a_field(name: str, shape: tuple[int, ...]) -> None:
    pair = random_pair(*shape)
    with torch.inference_mode():
        field = METHODS[name](pair)
    check_field(field, pair)
    assert field.u.dtype == torch.float32
    for axis, n in enumerate(shape):
        if n == 1:
            assert not field.u[:, axis].any()


@pytest.mark.parametrize("name", METHODS)
def test_constant_image_does_not_move(name: str) -> None:
    pair = random_pair(12, 10)
    flat = RegistrationPair(("flat",), pair.fixed, torch.full_like(pair.moving, 3.3))
    assert not METHODS[name](flat).u.any()
