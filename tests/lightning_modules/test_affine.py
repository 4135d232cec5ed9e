"""`affine` and its restrictions against motions in closed form, and against ITK's metric."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from lightning_modules.simpleitk_affine import Affine, transform_of
from lightning_modules.simpleitk_bridge import ImagePair, normalised, to_image
from reg_bench.field import warp
from reg_bench.types import RegistrationPair, collate_pairs
from tests.lightning_modules.shapes import error_in_object, linear, pair_of, rotation, shifted

CENTRE = np.array([19.5, 19.5])


@pytest.mark.parametrize("transform", ["translation", "rigid", "similarity", "affine"])
def test_shift_has_right_axis_sign_and_size(transform: str) -> None:
    pair, truth = pair_of((40, 44), shifted(6.0, -4.5), (1.5, 1.0))
    u = Affine(transform)(pair).u
    assert truth[0, :, 0, 0].tolist() == [4.0, -4.5]
    assert error_in_object(u, truth, pair) < 0.1


def test_rotation_is_found_by_rigid() -> None:
    pair, truth = pair_of((40, 40), linear(rotation(12.0), CENTRE))
    u = Affine("rigid")(pair).u
    assert error_in_object(u, truth, pair) < 0.1
    # d u_y / dx is the sine of the angle: a mirrored convention would change its sign.
    slope = float((u[0, 1, 1:] - u[0, 1, :-1]).mean())
    assert np.rad2deg(np.arcsin(slope)) == pytest.approx(12.0, abs=0.3)


def test_scale_is_found_by_similarity_and_not_by_rigid() -> None:
    pair, truth = pair_of((40, 40), linear(1.15 * np.eye(2), CENTRE))
    assert error_in_object(Affine("similarity")(pair).u, truth, pair) < 0.2
    assert error_in_object(Affine("rigid")(pair).u, truth, pair) > 0.3


def test_shear_is_found_by_affine() -> None:
    matrix = np.array([[1.05, 0.12], [0.0, 0.95]])
    pair, truth = pair_of((40, 40), linear(matrix, CENTRE))
    assert error_in_object(Affine("affine")(pair).u, truth, pair) < 0.15


def test_volume_with_anisotropic_voxels() -> None:
    turn = np.eye(3)
    turn[:2, :2] = rotation(8.0)
    pair, truth = pair_of((32, 30, 20), linear(turn, np.array([15.5, 14.5, 14.0])), (1.0, 1.0, 1.5))
    assert error_in_object(Affine("rigid", samples=8000)(pair).u, truth, pair) < 0.15


def test_contrast_may_be_inverted() -> None:
    pair, truth = pair_of((40, 40), shifted(3.0, 2.0), contrast=lambda v: 5.0 - 2.0 * v**2)
    assert error_in_object(Affine("rigid")(pair).u, truth, pair) < 0.2


def test_moving_grid_of_its_own() -> None:
    """Index to index: u takes fixed indices to indices of a moving image with other voxels."""
    pair, truth = pair_of((40, 40), shifted(2.0, -3.0), (1.0, 1.0), moving_shape=(28, 60), moving_spacing=(1.5, 0.75))
    u = Affine("translation")(pair).u
    assert error_in_object(u, truth, pair) < 0.1
    assert float((warp(pair.moving, u) - pair.fixed)[..., 5:-5, 5:-5].abs().max()) < 0.15


def test_grids_are_centred_when_that_is_better() -> None:
    """A shift far beyond the object: only a start by centre of intensity or grid finds it."""
    pair, _ = pair_of((64, 64), shifted(0.0, 0.0))
    far = RegistrationPair(("far",), torch.roll(pair.fixed, (22, -20), (2, 3)), pair.moving)
    u = Affine("translation")(far).u
    assert u[0, :, 40, 10].tolist() == pytest.approx([-22.0, 20.0], abs=0.2)


def test_identical_images_do_not_move() -> None:
    pair, _ = pair_of((33, 21), shifted(0.0, 0.0))
    assert float(Affine()(pair).u.abs().max()) == 0.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_never_worse_than_no_motion_by_its_own_metric(seed: int) -> None:
    """Unrelated noise lures any optimiser away; ITK's metric judges, evaluated here on its own."""
    rng = np.random.default_rng(seed)
    fixed, moving = (rng.random((24, 20), dtype=np.float32) for _ in range(2))
    images = ImagePair(*(to_image(normalised(a), np.ones(2)) for a in (fixed, moving)))
    found = Affine(iterations=30).estimate(images)

    def cost(transform: sitk.Transform) -> float:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetInitialTransform(transform)
        return method.MetricEvaluate(images.fixed, images.moving)

    nothing = sitk.TranslationTransform(2)
    assert found is None or cost(found) <= cost(nothing)


def test_lost_optimiser_returns_no_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, _ = pair_of((24, 24), shifted(0.0, 0.0))

    def lost(*_: object) -> None:
        raise RuntimeError("All samples map outside moving image buffer")

    monkeypatch.setattr(Affine, "_descend", lost)
    assert float(Affine()(pair).u.abs().max()) == 0.0


def test_batch_equals_single_cases_and_seed_decides() -> None:
    a, _ = pair_of((40, 40), shifted(2.0, 1.0))
    b, _ = pair_of((40, 40), shifted(-3.0, 2.0))
    method = Affine("rigid", samples=500)
    both = method(collate_pairs([a, b])).u
    assert torch.equal(both, torch.cat([method(a).u, method(b).u]))
    assert not torch.equal(Affine("rigid", samples=500, seed=2)(a).u, both[:1])


def test_global_state_is_left_alone() -> None:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    state, random_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    pair, _ = pair_of((24, 24), shifted(1.0, 0.0))
    Affine()(pair)
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == random_state).all()


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("dims", [2, 3])
def test_transform_of_keeps_the_mapping(kind: str, dims: int) -> None:
    images = ImagePair(*(to_image(np.zeros((9, 7, 8)[:dims], np.float32), np.ones(dims)) for _ in range(2)))
    start = sitk.Euler2DTransform() if dims == 2 else sitk.Euler3DTransform()
    start.SetCenter((1.0, 2.0, 3.0)[:dims])
    start.SetTranslation((0.5, -0.25, 2.0)[:dims])
    _ = start.SetAngle(0.3) if dims == 2 else start.SetRotation(0.3, -0.2, 0.1)
    point = (5.0, -4.0, 1.0)[:dims]
    assert transform_of(kind, images, start).TransformPoint(point) == pytest.approx(start.TransformPoint(point))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transform": "rigit"}, "transform must be one of translation, rigid, similarity, affine, got 'rigit'"),
        ({"shrink_factors": []}, "shrink_factors"),
        ({"bins": 2}, "bins at least 5"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(**arguments)
