"""The Demons family and Paper I's Demons against motions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from lightning_modules.simpleitk_bridge import distinct_levels, level_factors, to_image
from lightning_modules.simpleitk_demons import Demons
from lightning_modules.simpleitk_paper1 import DemonsPaper1
from reg_bench.field import jacobian_determinant
from reg_bench.method import RegistrationModule
from reg_bench.types import RegistrationPair, collate_pairs
from tests.lightning_modules.shapes import Array, error_in_object, pair_of, shifted

FORCES = ["classic", "symmetric", "diffeomorphic"]


def wave(x: Array) -> Array:
    """A smooth local motion of up to 2 mm."""
    return x + 2.0 * np.stack([np.sin(x[1] / 9.0), np.cos(x[0] / 8.0)])


@pytest.mark.parametrize("forces", FORCES)
@pytest.mark.parametrize("spacing", [None, (1.4, 2.1)])
def test_shift_has_right_axis_sign_and_size(forces: str, spacing: tuple[float, float] | None) -> None:
    pair, truth = pair_of((48, 40), shifted(4.2, -4.2), spacing)
    assert error_in_object(Demons(forces)(pair).u, truth, pair) < 0.35


@pytest.mark.parametrize("forces", FORCES)
def test_local_motion(forces: str) -> None:
    pair, truth = pair_of((48, 48), wave)
    u = Demons(forces)(pair).u
    before = error_in_object(torch.zeros_like(u), truth, pair)
    assert before > 1.5
    assert error_in_object(u, truth, pair) < 0.2 * before
    assert float(jacobian_determinant(u).min()) > 0


@pytest.mark.parametrize("forces", FORCES)
def test_pyramid_finds_what_one_level_does_not(forces: str) -> None:
    pair, truth = pair_of((64, 64), shifted(9.0, 0.0))
    single = Demons(forces, shrink_factors=[1.0], iterations=[40])(pair).u
    error = error_in_object(Demons(forces)(pair).u, truth, pair)
    assert error < 0.5
    assert 4 * error < error_in_object(single, truth, pair)


def test_volume_of_odd_sizes_and_thick_slices() -> None:
    pair, truth = pair_of((31, 27, 11), shifted(1.5, -2.0, 3.0), (1.0, 1.0, 3.0))
    assert error_in_object(Demons("symmetric")(pair).u, truth, pair) < 0.3


def test_moving_grid_of_its_own() -> None:
    pair, truth = pair_of((48, 40), shifted(2.0, -1.0), (1.0, 1.0), moving_shape=(32, 60), moving_spacing=(1.5, 0.75))
    assert float(truth.abs().max()) > 10
    assert error_in_object(Demons("symmetric")(pair).u, truth, pair) < 0.3


@pytest.mark.parametrize("forces", FORCES)
def test_result_does_not_depend_on_unit_of_length_or_intensity(forces: str) -> None:
    """Micrometres for millimetres and 12-bit for 0..1 change nothing."""
    pair, _ = pair_of((40, 36), wave, (1.4, 2.1))
    scaled = RegistrationPair(
        ("scaled",), 4000 * pair.fixed + 100, 37 * pair.moving - 5, *[1e3 * torch.tensor([[1.4, 2.1]])] * 2
    )
    method = Demons(forces)
    assert torch.allclose(method(pair).u, method(scaled).u, atol=0.02)


def test_axes_are_treated_alike() -> None:
    pair, _ = pair_of((40, 36), wave, (1.4, 2.1))
    turned = RegistrationPair(("turned",), pair.fixed.mT, pair.moving.mT, *[torch.tensor([[2.1, 1.4]])] * 2)
    method = Demons("symmetric")
    assert torch.allclose(method(turned).u.mT.flip(1), method(pair).u, atol=1e-3)


@pytest.mark.parametrize("method", [*map(Demons, FORCES), DemonsPaper1()], ids=[*FORCES, "paper1"])
def test_identical_images_do_not_move(method: RegistrationModule) -> None:
    pair, _ = pair_of((33, 21), shifted(0.0, 0.0))
    assert float(method(pair).u.abs().max()) < 1e-6


def test_histogram_matching_bridges_a_change_of_contrast() -> None:
    pair, truth = pair_of((48, 48), shifted(3.0, 0.0), contrast=lambda v: np.sqrt(v))
    errors = [error_in_object(Demons(histogram_matching=matched)(pair).u, truth, pair) for matched in (True, False)]
    assert errors[0] < 0.75 * errors[1]


def test_paper1_follows_a_small_shift() -> None:
    pair, truth = pair_of((48, 48), shifted(2.0, -1.0))
    # The total smoothing holds it back: less than half of 2.2 voxels is what these settings leave.
    assert error_in_object(DemonsPaper1()(pair).u, truth, pair) < 1.0


def test_one_level_is_the_filter_itself() -> None:
    """Without a pyramid nothing but normalisation happens around the ITK filter."""
    pair, _ = pair_of((30, 24), shifted(1.0, 1.0))
    u = Demons("classic", shrink_factors=[1.0], iterations=[10], sigma_voxels=1.0)(pair).u[0]
    images = []
    for tensor in (pair.fixed, pair.moving):
        low, high = np.percentile(tensor.numpy(), [0.1, 99.9])
        scaled = ((tensor[0, 0].numpy() - low) / (high - low)).clip(0, 1)
        images.append(sitk.GetImageFromArray(scaled.T.astype(np.float32)))
    demons = sitk.DemonsRegistrationFilter()
    demons.SetNumberOfIterations(10)
    demons.SetStandardDeviations(1.0)
    demons.SetMaximumRMSError(0.0)
    expected = sitk.GetArrayFromImage(demons.Execute(*images))
    assert np.allclose(u.numpy(), expected.transpose(2, 1, 0), atol=1e-4)


def test_batch_equals_single_cases() -> None:
    a, _ = pair_of((32, 24), shifted(2.0, 1.0))
    b, _ = pair_of((32, 24), shifted(-1.0, 2.0))
    method = Demons("diffeomorphic")
    assert torch.equal(method(collate_pairs([a, b])).u, torch.cat([method(a).u, method(b).u]))


def test_short_axes_keep_their_size() -> None:
    image = to_image(np.zeros((64, 40, 6), np.float32), np.array([1.0, 1.0, 1.0]))
    assert level_factors(image, 4.0, 16).tolist() == [4.0, 2.5, 1.0]
    small = to_image(np.zeros((24, 20), np.float32), np.ones(2))
    levels = distinct_levels(small, (4.0, 2.0, 1.0), 16)
    assert [(number, factors.tolist()) for number, factors in levels] == [(1, [1.5, 1.25]), (2, [1.0, 1.0])]
    thick = to_image(np.zeros((64, 64, 64), np.float32), np.array([1.0, 1.0, 3.0]))
    assert level_factors(thick, 4.0, 16).tolist() == pytest.approx([4.0, 4.0, 4 / 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": [40, 40]}, "one entry per level"),
        ({"shrink_factors": [1.0, 2.0, 4.0]}, "descend"),
        ({"sigma_voxels": -1.0}, "sigma_voxels must not be negative, got -1.0"),
        ({"forces": "strong"}, "forces must be one of classic, symmetric, diffeomorphic, got 'strong'"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Demons(**arguments)
