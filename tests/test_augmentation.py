"""Augmentation: what belongs together stays together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reg_bench import field
from reg_bench.augmentation import Augmentation, flipped, moved
from reg_bench.errors import ConfigError
from reg_bench.synthesis import landmarks_in, random_diffeomorphism, smooth_noise
from reg_bench.types import PointPairs, RegistrationPair, collate_pairs

SHAPES = [(40, 33), (22, 30, 18)]


def known_pair(
    shape: tuple[int, ...], seed: int = 0, spacing: tuple[float, ...] | None = (1.0, 1.5, 2.0)
) -> RegistrationPair:
    """A smooth pair with its exact truth, labels and landmarks."""
    dims = len(shape)
    moving = smooth_noise(shape, smoothness=5, seed=seed)[None, None]
    u, _ = random_diffeomorphism(shape, seed=seed, max_displacement=2.0, smoothness=6)
    labels = (moving > 0).to(torch.uint8) + (moving > 0.7).to(torch.uint8)
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[(..., *[slice(4, -4)] * dims)] = True
    points = landmarks_in(mask[0, 0], 12, seed)
    spacing_mm = None if spacing is None else torch.tensor([spacing[:dims]])
    return RegistrationPair(
        case_ids=(f"case{seed}",),
        fixed=field.warp(moving, u),
        moving=moving,
        fixed_spacing_mm=spacing_mm,
        moving_spacing_mm=spacing_mm,
        fixed_labels=field.warp(labels, u, mode="nearest"),
        moving_labels=labels,
        points={"landmarks": PointPairs((points,), (points + field.sample(u, points[None])[0],))},
        mask=mask,
        true_displacement=u,
    )


def rotation(dims: int, degrees: float, scale: float = 1.0) -> np.ndarray:
    matrix = np.eye(dims) * scale
    c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
    matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1] = c, -s, s, c
    return matrix


@pytest.mark.parametrize("shape", SHAPES)
def test_flip_is_exact_and_its_own_inverse(shape: tuple[int, ...]) -> None:
    pair = known_pair(shape)
    once = flipped(pair, [0, 1])
    assert torch.equal(once.fixed, pair.fixed.flip(2, 3))
    assert pair.true_displacement is not None
    assert once.true_displacement is not None
    # The corner's displacement, by hand.
    corner = once.true_displacement[0, :, 0, 0]
    expected = pair.true_displacement[0, :, -1, -1].clone()
    expected[:2] *= -1
    assert torch.equal(corner, expected)
    back = flipped(once, [0, 1])
    assert torch.equal(back.true_displacement, pair.true_displacement)
    assert pair.points is not None
    assert back.points is not None
    torch.testing.assert_close(back.points["landmarks"].moving[0], pair.points["landmarks"].moving[0])


def test_flip_of_grids_of_different_length() -> None:
    """Fixed voxel 1 of 5 shows moving voxel 3 of 8: mirrored, voxel 3 of 5 shows voxel 4 of 8."""
    fixed, moving = torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 8, 4)
    fixed[0, 0, 1], moving[0, 0, 3] = 1, 1
    u = torch.zeros(1, 2, 5, 4)
    u[:, 0] = 2
    pair = flipped(RegistrationPair(("a",), fixed, moving, true_displacement=u), [0])
    assert float(pair.fixed[0, 0, 3, 0]) == float(pair.moving[0, 0, 4, 0]) == 1
    assert pair.true_displacement is not None
    assert torch.equal(pair.true_displacement[0, 0], torch.ones(5, 4))


def error_of_truth(pair: RegistrationPair) -> float:
    """Largest difference of the fixed image and the moving one warped by the truth, inside the mask."""
    assert pair.true_displacement is not None
    assert pair.mask is not None
    difference = (field.warp(pair.moving, pair.true_displacement) - pair.fixed).abs()
    return float(difference[pair.mask].max())


def error_of_points(pair: RegistrationPair) -> float:
    assert pair.true_displacement is not None
    assert pair.points is not None
    sets = pair.points["landmarks"]
    moved_by_truth = sets.fixed[0] + field.sample(pair.true_displacement, sets.fixed[0][None])[0]
    return float((moved_by_truth - sets.moving[0]).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [None, (1.0, 1.5, 2.0)])
def test_affine_keeps_truth_points_and_labels_together(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    pair = known_pair(shape, spacing=spacing)
    after = moved(pair, rotation(len(shape), 12.0, scale=1.05), np.array([1.0, -2.0, 0.5][: len(shape)]))
    assert float((after.fixed - pair.fixed).abs().max()) > 0.3
    # Interpolation of smooth images: linear twice.
    assert error_of_truth(after) < 0.06
    assert error_of_points(after) < 0.03
    wrong = replace(after, true_displacement=pair.true_displacement)
    assert error_of_truth(wrong) > 3 * error_of_truth(after)
    assert error_of_points(wrong) > 5 * error_of_points(after)
    assert after.fixed_labels is not None
    assert after.moving_labels is not None
    assert after.fixed_labels.dtype == torch.uint8
    assert after.true_displacement is not None
    warped = field.warp(after.moving_labels, after.true_displacement, mode="nearest")
    assert after.mask is not None
    assert float((warped == after.fixed_labels)[after.mask].float().mean()) > 0.9


def test_quarter_turn_agrees_with_numpy() -> None:
    pair = known_pair((21, 21), spacing=None)
    turned = moved(pair, rotation(2, 90.0), np.zeros(2))
    torch.testing.assert_close(turned.fixed, torch.rot90(pair.fixed, -1, (2, 3)), atol=1e-4, rtol=0)
    assert pair.points is not None
    assert turned.points is not None
    before, after = pair.points["landmarks"].fixed[0], turned.points["landmarks"].fixed[0]
    # The same grey value lies under each point.
    torch.testing.assert_close(
        field.sample(turned.fixed, after[None]), field.sample(pair.fixed, before[None]), atol=1e-3, rtol=0
    )


def test_points_that_leave_the_image_are_dropped_from_both_sets() -> None:
    pair = known_pair((40, 33), spacing=None)
    corner = torch.tensor([[1.0, 1.0], [20.0, 16.0]])
    pair = replace(pair, points={"landmarks": PointPairs((corner,), (corner + 1,))}, true_displacement=None)
    after = moved(pair, np.eye(2), np.array([5.0, 0.0]))
    assert after.points is not None
    torch.testing.assert_close(after.points["landmarks"].fixed[0], torch.tensor([[15.0, 16.0]]))
    torch.testing.assert_close(after.points["landmarks"].moving[0], torch.tensor([[16.0, 17.0]]))


def test_truth_without_mask_gets_one_where_the_old_image_ends() -> None:
    pair = replace(known_pair((40, 33), spacing=None), mask=None)
    after = moved(pair, np.eye(2), np.array([5.0, 0.0]))
    assert after.mask is not None
    assert bool(after.mask[0, 0, :35].all())
    assert not bool(after.mask[0, 0, 35:].any())


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_at_once_on_a_batch(shape: tuple[int, ...]) -> None:
    batch = collate_pairs([known_pair(shape, seed) for seed in range(3)])
    before = batch.fixed.clone()
    after = Augmentation(flip_axes=(0,), gamma=0, bias=0, noise=0, blur=0, rotation_degrees=8)(batch)
    assert torch.equal(batch.fixed, before)
    assert after.case_ids == batch.case_ids
    for single in after.split():
        assert type(single.fixed) is torch.Tensor
        assert single.fixed.dtype == torch.float32
        assert error_of_truth(single) < 0.08
        assert error_of_points(single) < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_intensity_changes_images_independently_and_nothing_else(shape: tuple[int, ...]) -> None:
    pair = replace(known_pair(shape), moving=known_pair(shape).fixed, true_displacement=None)
    after = Augmentation(rotation_degrees=0, scale=0, translation=0, probability=1.0)(pair)
    assert torch.isfinite(after.fixed).all()
    assert not torch.equal(after.fixed, after.moving)
    assert not torch.equal(after.fixed, pair.fixed)
    # Still the same picture.
    assert np.corrcoef(after.fixed.flatten(), pair.fixed.flatten())[0, 1] > 0.7
    assert torch.equal(after.fixed_labels, pair.fixed_labels)
    assert after.points is not None
    assert pair.points is not None
    assert torch.equal(after.points["landmarks"].fixed[0], pair.points["landmarks"].fixed[0])


@pytest.mark.parametrize("switch", ["gamma", "bias", "noise", "blur"])
def test_each_intensity_switch_works_alone(switch: str) -> None:
    pair = known_pair((24, 20))
    off = {"gamma": 0.0, "bias": 0.0, "noise": 0.0, "blur": 0.0}
    still = {"rotation_degrees": 0.0, "scale": 0.0, "translation": 0.0, "probability": 1.0}
    unchanged = Augmentation(**off, **still)(pair)
    torch.testing.assert_close(unchanged.fixed, pair.fixed)
    augmentation = Augmentation(**{**off, switch: 0.5}, **still)
    # Draws follow from torch's seed as well, and some are of next to no effect.
    changes = [float((augmentation(pair).fixed - pair.fixed).abs().max()) for _ in range(8)]
    assert max(changes) > 1e-3


def test_same_seed_same_draws_and_new_draws_each_time() -> None:
    pair = known_pair((24, 20))
    first, second, other = Augmentation(seed=3), Augmentation(seed=3), Augmentation(seed=4)
    a, b = first(pair), first(pair)
    assert torch.equal(second(pair).fixed, a.fixed)
    assert torch.equal(second(pair).fixed, b.fixed)
    assert not torch.equal(a.fixed, b.fixed)
    assert not torch.equal(other(pair).fixed, a.fixed)


def test_global_random_state_is_left_alone() -> None:
    pair = known_pair((24, 20))
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    Augmentation(probability=1.0)(pair)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": -1.0}, "noise must not be negative"),
        ({"probability": 1.5}, "probability must lie in 0..1"),
        ({"scale": 1.0}, "scale must be below 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**arguments)


def test_flip_of_an_axis_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="flip axis 2 of a 2-D pair"):
        Augmentation(flip_axes=(2,))(known_pair((24, 20)))
