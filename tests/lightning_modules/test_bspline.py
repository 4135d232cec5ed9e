"""`bspline` and Paper I's B-spline against motions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.simpleitk_bridge import to_image
from lightning_modules.simpleitk_bspline import BSpline, mesh_size
from lightning_modules.simpleitk_paper1 import BSplinePaper1
from reg_bench.types import collate_pairs
from tests.lightning_modules.shapes import Array, error_in_object, pair_of, shifted


def bend(x: Array) -> Array:
    """A smooth local motion of up to 2 mm."""
    return x + 2.0 * np.stack([np.sin(x[1] / 12.0), np.cos(x[0] / 12.0)])


@pytest.mark.parametrize("spacing", [None, (1.4, 2.1)])
def test_shift_has_right_axis_sign_and_size(spacing: tuple[float, float] | None) -> None:
    pair, truth = pair_of((48, 40), shifted(4.2, -4.2), spacing)
    assert error_in_object(BSpline()(pair).u, truth, pair) < 0.2


def test_local_motion() -> None:
    pair, truth = pair_of((56, 56), bend)
    assert error_in_object(BSpline()(pair).u, truth, pair) < 0.15


def test_volume() -> None:
    pair, truth = pair_of((24, 22, 20), shifted(1.5, -2.0, 1.0))
    assert error_in_object(BSpline(samples=4000)(pair).u, truth, pair) < 0.3


def test_moving_grid_of_its_own() -> None:
    pair, truth = pair_of((48, 40), shifted(2.0, -1.0), (1.0, 1.0), moving_shape=(32, 60), moving_spacing=(1.5, 0.75))
    assert error_in_object(BSpline()(pair).u, truth, pair) < 0.25


@pytest.mark.parametrize("method", [BSpline(), BSplinePaper1()], ids=["bspline", "bspline-20"])
def test_identical_images_do_not_move(method: BSpline | BSplinePaper1) -> None:
    pair, _ = pair_of((33, 29), shifted(0.0, 0.0))
    assert float(method(pair).u.abs().max()) < 1e-3


def test_paper1_follows_a_shift() -> None:
    pair, truth = pair_of((64, 64), shifted(3.0, -2.0))
    assert error_in_object(BSplinePaper1()(pair).u, truth, pair) < 1.0


def test_batch_equals_single_cases_and_seed_decides() -> None:
    a, _ = pair_of((32, 24), shifted(2.0, 1.0))
    b, _ = pair_of((32, 24), shifted(-1.0, 2.0))
    method = BSpline(samples=200, iterations=5)
    both = method(collate_pairs([a, b])).u
    assert torch.equal(both, torch.cat([method(a).u, method(b).u]))
    assert not torch.equal(BSpline(samples=200, iterations=5, seed=2)(a).u, both[:1])


def test_control_grid() -> None:
    def mesh(shape: tuple[int, ...], fewest: int = 6) -> tuple[int, ...]:
        return mesh_size(to_image(np.zeros(shape, np.float32), np.ones(len(shape))), 20.0, fewest)

    assert mesh((256, 256)) == (13, 13)
    assert mesh((64, 64, 64)) == (6, 6, 6)
    assert mesh((64, 64), fewest=1) == (3, 3)
    assert mesh((5, 24)) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"shrink_factors": []}, "shrink_factors"), ({"grid_voxels": 0.0}, "grid_voxels, .* must be positive")],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BSpline(**arguments)
