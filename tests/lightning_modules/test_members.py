"""`identity`, `truth`, one method after another, and everything that has a name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.affine_then import AffineThen
from lightning_modules.identity import Identity
from lightning_modules.simpleitk_affine import Affine
from lightning_modules.simpleitk_demons import Demons
from lightning_modules.truth import Truth
from reg_bench.discovery import build_method, members
from reg_bench.field import warp
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair
from tests.lightning_modules.shapes import error_in_object, linear, pair_of, rotation, shifted

NAMED = {
    "identity", "truth", "affine", "rigid", "similarity", "demons", "demons-symmetric", "demons-diffeomorphic",
    "demons-40", "demons-100", "demons-paper1", "bspline", "bspline-20", "affine+demons",
    "affine+demons-symmetric", "affine+demons-diffeomorphic", "affine+bspline",
}  # fmt: skip


class Known(RegistrationModule):
    """Returns a given field and remembers the pair that it saw."""

    def __init__(self, u: torch.Tensor) -> None:
        super().__init__()
        self.u = u
        self.seen: list[RegistrationPair] = []

    def register(self, pair: RegistrationPair) -> DisplacementField:
        self.seen.append(pair)
        return DisplacementField.for_pair(self.u, pair)


def test_identity_is_zero() -> None:
    pair, _ = pair_of((7, 5), shifted(1.0, 0.0), (1.0, 2.0))
    field = Identity()(pair)
    assert field.u.shape == (1, 2, 7, 5)
    assert not field.u.any()
    assert field.spacing_mm is pair.fixed_spacing_mm


def test_truth_is_the_known_field() -> None:
    pair, truth = pair_of((7, 5), shifted(1.0, -2.0))
    assert "needs true_displacement" in (Truth().accepts(pair) or "")
    known = RegistrationPair(("known",), pair.fixed, pair.moving, true_displacement=truth)
    assert Truth().accepts(known) is None
    assert torch.equal(Truth()(known).u, truth)
    with pytest.raises(ValueError, match="case: has no true_displacement"):
        Truth()(pair)


def test_fields_are_composed_in_the_right_order() -> None:
    """First doubles x, then shifts by one: `w(x) = 2 (x + 1) - x`, not `2 x + 1 - x`."""
    moving = torch.arange(20.0).reshape(1, 1, 20, 1).repeat(1, 1, 1, 4)
    pair = RegistrationPair(("ramp",), moving[:, :, :9], moving)
    doubling = torch.zeros(1, 2, 9, 4)
    doubling[0, 0] = torch.arange(9.0)[:, None]
    shift = torch.zeros(1, 2, 9, 4)
    shift[:, 0] = 1.0
    first, then = Known(doubling), Known(shift)
    w = AffineThen(first, then)(pair).u
    assert w[0, 0, :8, 0].tolist() == [x + 2 for x in range(8)]
    assert not w[0, 1].any()
    assert warp(moving, w)[0, 0, 2, 0] == 6
    # The second method sees the moving image already warped, on the fixed grid.
    assert torch.equal(then.seen[0].moving, warp(moving, doubling))


def test_second_method_cannot_cheat() -> None:
    pair, truth = pair_of((9, 9), shifted(1.0, 0.0))
    then = Known(torch.zeros(1, 2, 9, 9))
    full = RegistrationPair(
        ("full",),
        pair.fixed,
        pair.moving,
        moving_labels=torch.ones(1, 1, 9, 9, dtype=torch.int64),
        true_displacement=truth,
    )
    AffineThen(Identity(), then)(full)
    assert then.seen[0].true_displacement is None
    assert then.seen[0].moving_labels is None


def test_affine_first_reaches_what_demons_alone_does_not() -> None:
    turn = rotation(35.0)
    pair, truth = pair_of((56, 56), linear(turn, np.array([27.5, 27.5])))
    both = AffineThen(Affine("rigid"), Demons("symmetric"))
    alone = error_in_object(Demons("symmetric")(pair).u, truth, pair)
    assert error_in_object(both(pair).u, truth, pair) < min(0.3, 0.25 * alone)


def test_a_reason_of_either_method_counts() -> None:
    pair, _ = pair_of((9, 9), shifted(0.0, 0.0))
    assert "true_displacement" in (AffineThen(Identity(), Truth()).accepts(pair) or "")
    assert AffineThen(Identity(), Identity()).accepts(pair) is None


def test_all_names_are_there_and_say_what_they_are() -> None:
    known = {m.name: m for m in members("methods")}
    assert known.keys() >= NAMED
    for name in NAMED:
        assert 20 < len(known[name].summary) < 140, name


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_methods_can_be_built(name: str) -> None:
    assert isinstance(build_method(name), RegistrationModule)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rigid", {"transform": "rigid"}),
        ("demons-symmetric", {"forces": "symmetric", "shrink_factors": (4.0, 2.0, 1.0), "iterations": (40, 40, 40)}),
        (
            "demons-40",
            {"forces": "classic", "shrink_factors": (1.0,), "iterations": (40,), "sigma_voxels": 1.0,
             "histogram": (1024, 7), "intensity_scale": 256.0},
        ),
        ("demons-100", {"forces": "classic", "shrink_factors": (1.0,), "iterations": (100,), "histogram": None}),
    ],
)  # fmt: skip
def test_named_settings_arrive(name: str, expected: dict[str, Any]) -> None:
    method = build_method(name)
    assert {key: getattr(method, key) for key in expected} == expected


def test_composed_settings_arrive() -> None:
    method = build_method("affine+demons-diffeomorphic")
    assert isinstance(method, AffineThen)
    assert isinstance(method.first, Affine)
    assert isinstance(method.then, Demons)
    assert method.then.forces == "diffeomorphic"
