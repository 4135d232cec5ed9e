"""Demons in torch: known motions, the pyramid, batches of unlike cases, and the course of the energy."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.demons_torch import DemonsTorch
from lightning_modules.simpleitk_demons import Demons
from reg_bench.types import RegistrationPair, collate_pairs
from tests.lightning_modules.shapes import error_in_object, pair_of, shifted


@pytest.mark.parametrize("forces", ["optical-flow", "thirion", "symmetric"])
@pytest.mark.parametrize("spacing", [None, (1.4, 2.1)])
def test_shift_has_right_axis_sign_and_size(forces: str, spacing: tuple[float, float] | None) -> None:
    pair, truth = pair_of((48, 40), shifted(4.2, -4.2), spacing)
    assert error_in_object(DemonsTorch(forces)(pair).u, truth, pair) < 0.35  # type: ignore[arg-type]


def test_pyramid_finds_what_one_level_does_not() -> None:
    pair, truth = pair_of((64, 64), shifted(9.0, 0.0))
    single = DemonsTorch(shrink_factors=[1.0], iterations=[40])(pair).u
    error = error_in_object(DemonsTorch()(pair).u, truth, pair)
    assert error < 0.5
    assert 4 * error < error_in_object(single, truth, pair)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (DemonsTorch(kernel="bessel", shrink_factors=[1.0], iterations=[15]), "symmetric"),
        (
            DemonsTorch(composition="diffeomorphic", kernel="bessel", shrink_factors=[1.0], iterations=[15]),
            "diffeomorphic",
        ),
    ],
)
def test_one_level_equals_the_method_of_simpleitk(ours: DemonsTorch, theirs: str) -> None:
    """In float32, intensities and spacing as each method prepares them."""
    pair, _ = pair_of((31, 27, 16), shifted(1.5, -2.0, 3.0), (1.0, 1.0, 3.0))
    expected = Demons(theirs, shrink_factors=[1.0], iterations=[15])(pair).u  # type: ignore[arg-type]
    assert float(expected.abs().max()) > 1
    assert (ours(pair).u - expected).abs().max() < 1e-3


def test_moving_grid_of_its_own() -> None:
    pair, truth = pair_of((48, 40), shifted(2.0, -1.0), (1.0, 1.0), moving_shape=(32, 60), moving_spacing=(1.5, 0.75))
    assert float(truth.abs().max()) > 10
    assert error_in_object(DemonsTorch()(pair).u, truth, pair) < 0.3


def test_cases_of_unlike_proportions_come_out_as_if_alone() -> None:
    pairs = [pair_of((40, 36), shifted(2.0, -1.0), spacing)[0] for spacing in ((1.0, 1.0), (1.0, 3.0))]
    method = DemonsTorch(iterations=(5, 5, 5))
    together = method(collate_pairs(pairs)).u
    assert len({row["case"] for row in method.course}) == 1, "both cases have the same name"
    assert len(method.course) == 2 * 3 * 6, "cases, levels, the start and five iterations"
    for k, pair in enumerate(pairs):
        assert torch.equal(method(pair).u[0], together[k])


def test_course_tells_the_energy_of_every_iteration() -> None:
    pair, _ = pair_of((64, 64), shifted(3.0, 0.0))
    method = DemonsTorch(iterations=(3, 4, 5))
    first = method(pair).u
    rows = method.course
    assert [(r["level"], r["iteration"]) for r in rows] == [(lv, k) for lv in range(3) for k in range(4 + lv)]
    assert rows[-1]["energy"] < rows[0]["energy"]
    silent = DemonsTorch(iterations=(3, 4, 5), energies=False)
    assert torch.equal(silent(pair).u, first)
    assert silent.course == []


def test_flat_images_and_thin_axes_do_not_move() -> None:
    flat = torch.full((1, 1, 20, 18), 3.0)
    assert not DemonsTorch()(RegistrationPair(("flat",), flat, flat + 1)).u.any()
    image = torch.rand(1, 1, 20, 18, 1, generator=torch.Generator().manual_seed(0))
    u = DemonsTorch()(RegistrationPair(("slice",), image, image.roll(1, 2))).u
    assert u[:, :2].any()
    assert not u[:, 2].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": (10,)}, r"one entry per level, got \[4.0, 2.0, 1.0\] and \[10\]"),
        ({"shrink_factors": (1.0, 2.0, 4.0)}, "shrink_factors must descend to 1 or more"),
        ({"smallest_size": 1}, "smallest_size at least 2"),
        ({"step_voxels": -0.5}, "step must be finite and not negative, got -0.5"),
    ],
)
def test_settings_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemonsTorch(**change)  # type: ignore[arg-type]
