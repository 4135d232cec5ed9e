"""Lucas-Kanade against motions in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.lucas_kanade import LucasKanade
from reg_bench.field import jacobian_determinant
from reg_bench.types import collate_pairs
from tests.lightning_modules.shapes import Array, error_in_object, pair_of, shifted


def wave(x: Array) -> Array:
    """A smooth local motion of up to 2 mm."""
    return x + 2.0 * np.stack([np.sin(x[1] / 9.0), np.cos(x[0] / 8.0)])


@pytest.mark.parametrize("spacing", [None, (1.4, 2.1)])
@pytest.mark.parametrize("normalise_voxels", [0.0, 6.0])
def test_shift_has_right_axis_sign_and_size(spacing: tuple[float, float] | None, normalise_voxels: float) -> None:
    pair, truth = pair_of((48, 40), shifted(4.2, -4.2), spacing)
    assert error_in_object(LucasKanade(normalise_voxels=normalise_voxels)(pair).u, truth, pair) < 0.2


def test_local_motion_is_followed_without_folding() -> None:
    pair, truth = pair_of((48, 48), wave)
    u = LucasKanade()(pair).u
    before = error_in_object(torch.zeros_like(u), truth, pair)
    assert error_in_object(u, truth, pair) < 0.1 * before
    assert float(jacobian_determinant(u).min()) > 0


def test_three_dimensions_with_thick_slices() -> None:
    pair, truth = pair_of((36, 36, 14), shifted(2.0, -1.5, 2.5), (1.0, 1.0, 2.5))
    assert error_in_object(LucasKanade()(pair).u, truth, pair) < 0.2


def test_gain_and_offset_are_ignored_once_normalised() -> None:
    pair, truth = pair_of((48, 40), shifted(2.0, -3.0), contrast=lambda v: 0.3 * v + 4)
    assert error_in_object(LucasKanade(normalise_voxels=6.0)(pair).u, truth, pair) < 0.2


def test_a_batch_is_its_cases() -> None:
    pairs = [pair_of((40, 36), shifted(a, -a))[0] for a in (1.0, 2.5)]
    together = LucasKanade()(collate_pairs(pairs)).u
    assert torch.equal(together, torch.cat([LucasKanade()(p).u for p in pairs]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": (10, 10)}, "one entry per level, got .4.0, 2.0, 1.0. and .10, 10."),
        ({"shrink_factors": (1.0, 2.0, 4.0)}, "must descend to 1 or more"),
        ({"window_voxels": 0.0}, "window_voxels must be positive, got 0"),
        ({"smoothing_voxels": -1.0}, "smoothing_voxels and normalise_voxels must be at least 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LucasKanade(**settings)
