"""Real images under known maps: what goes with them, whose copies they are, and the same draws for the same seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reg_bench.augmentation import Augmentation, Chain
from reg_bench.errors import ConfigError
from reg_bench.field import jacobian_determinant, warp
from reg_bench.synthesis_shapes import ShapesConfig, shapes_pair
from reg_bench.synthetic_pairs import SyntheticWarp
from reg_bench.training_order import random_states
from reg_bench.types import RegistrationPair, collate_pairs


def pairs(size: tuple[int, ...]) -> RegistrationPair:
    config = ShapesConfig(size=size, landmarks=4)
    return collate_pairs([shapes_pair(config, i, case_id=str(i)) for i in range(2)])


@pytest.mark.parametrize("size", [(40, 32), (20, 24, 22)])
@pytest.mark.parametrize("image", ["fixed", "moving"])
def test_a_copy_is_moved_by_the_true_displacement(size: tuple[int, ...], image: Any) -> None:
    pair = pairs(size)
    torch.manual_seed(0)
    made = SyntheticWarp(distance=(2.0, 3.0), image=image)(pair)
    u = made.true_displacement
    assert u is not None
    assert made.case_ids == pair.case_ids
    assert torch.equal(made.moving, getattr(pair, image))
    assert made.moving_labels is not None
    assert made.fixed_labels is not None
    assert torch.equal(made.moving_labels, getattr(pair, f"{image}_labels"))
    assert torch.equal(made.fixed, warp(made.moving, u))
    assert torch.equal(made.fixed_labels, warp(made.moving_labels, u, mode="nearest"))
    assert made.points is None
    assert float(jacobian_determinant(u).min()) > 0
    assert 2 < float(torch.linalg.vector_norm(u, dim=1).max()) < 0.5 * min(size)
    # Two elements, two maps.
    assert not torch.equal(u[0], u[1])
    assert made.mask is not None
    assert float(made.mask.float().mean()) > 0.95


def test_draws_follow_from_the_random_state() -> None:
    pair, transform = pairs((24, 24)), SyntheticWarp(distance=(1.0, 2.0))
    found = []
    for seed in (1, 1, 2):
        with random_states(seed):
            found.append(transform(pair).true_displacement)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_either_image_is_taken() -> None:
    pair, transform = pairs((16, 16)), SyntheticWarp()
    with random_states(0):
        taken = {torch.equal(transform(pair).moving[:1], pair.fixed[:1]) for _ in range(12)}
    assert taken == {True, False}


def test_transforms_in_a_chain() -> None:
    pair = pairs((24, 24))
    chain = Chain([SyntheticWarp(distance=(1.0, 2.0), image="moving"), Augmentation(probability=1.0, flip_axes=(0,))])
    made = []
    for _ in range(2):
        with random_states(5):
            chain.restart()
            made.append(chain(pair))
    assert torch.equal(made[0].fixed, made[1].fixed)
    assert not torch.equal(made[0].moving, pair.moving)
    assert made[0].true_displacement is not None
    assert float(made[0].true_displacement.abs().max()) > 0.5


def test_wrong_ranges_are_named() -> None:
    with pytest.raises(ConfigError, match=r"got \(0\.3, 0\.1\) and \(0\.0, 4\.0\)"):
        SyntheticWarp(sigma=(0.3, 0.1))
