"""`score`, both profiles as a whole, the policy for missing and vanishing labels, and the JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from reg_bench.errors import ConfigError
from reg_bench.metrics import all_metrics, score, to_json
from reg_bench.types import DisplacementField, PointPairs, RegistrationPair

surface_distance = pytest.importorskip("surface_distance")
np.Inf = np.inf  # surface-distance 0.1 still asks for it

SHAPE, MOVING_SHAPE = (22, 18, 26), (24, 17, 25)


def case(seed: int = 0, size: float = 3.0) -> tuple[RegistrationPair, DisplacementField]:
    """A pair on two grids of different size and spacing; label 4 stands in the moving map only."""
    rng = np.random.default_rng(seed)

    def labels(shape: tuple[int, ...], count: int) -> torch.Tensor:
        fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 2) for _ in range(count + 1)]
        return torch.from_numpy(np.argmax(fields, 0).astype(np.int16))[None, None]

    u = np.stack([ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3) for _ in SHAPE])
    u = (u / np.abs(u).max() * size).astype(np.float16).astype(np.float32)
    fixed_points = rng.uniform(-0.5, 1, (12, 3)).clip(0) * (np.array(SHAPE) - 1)
    fixed_points[0, 0] = -0.2
    pair = RegistrationPair(
        ("case",),
        torch.from_numpy(rng.random((1, 1, *SHAPE), np.float32)),
        torch.from_numpy(rng.random((1, 1, *MOVING_SHAPE), np.float32)),
        torch.tensor([[1.0, 1.5, 2.0]]),
        torch.tensor([[0.7, 2.5, 1.1]]),
        fixed_labels=labels(SHAPE, 3),
        moving_labels=labels(MOVING_SHAPE, 4),
        points={
            "landmarks": PointPairs(
                (torch.from_numpy(fixed_points),), (torch.from_numpy(fixed_points + rng.standard_normal((12, 3))),)
            )
        },
        mask=torch.from_numpy(rng.random((1, 1, *SHAPE)) < 0.6),
        true_displacement=torch.zeros(1, 3, *SHAPE),
    )
    return pair, DisplacementField.for_pair(torch.from_numpy(u)[None], pair)


def learn2reg_by_hand(pair: RegistrationPair, u: np.ndarray, labels: list[int], spacing: np.ndarray) -> dict:
    """The evaluation written out with SciPy and the package surface-distance."""
    fixed, moving = (x[0, 0].numpy() for x in (pair.fixed_labels, pair.moving_labels))
    grid = np.stack(np.meshgrid(*map(np.arange, fixed.shape), indexing="ij"))
    warped = ndimage.map_coordinates(moving, grid + u.astype(float), order=0)
    dice, hd95 = [], []
    for k in labels:
        if not (fixed == k).any() or not (moving == k).any():
            dice.append(math.nan)
            hd95.append(math.nan)
            continue
        f, w = fixed == k, warped == k
        dice.append(2 * (f & w).sum() / (f.sum() + w.sum()))
        found = surface_distance.compute_surface_distances(f, w, np.ones(3))
        hd95.append(surface_distance.compute_robust_hausdorff(found, 95))
    points = pair.points["landmarks"]
    at = np.stack([ndimage.map_coordinates(c.astype(float), points.fixed[0].numpy().T) for c in u], -1)
    tre = np.linalg.norm((points.fixed[0].numpy() + at - points.moving[0].numpy()) * spacing, axis=1)
    rows = [[np.gradient(c, axis=a) for a in range(3)] for c in u.astype(float)]
    matrix = np.moveaxis(np.array(rows), (0, 1), (-2, -1)) + np.eye(3)
    logarithm = np.log(np.clip(np.linalg.det(matrix) + 3, 1e-9, 1e9))[2:-2, 2:-2, 2:-2]
    return {"dice": dice, "hd95": hd95, "tre_landmarks": tre.tolist(), "log": logarithm}


def assert_same(found: dict, expected: list[float]) -> None:
    expected = [None if not math.isfinite(v) else v for v in expected]
    assert [v is None for v in found["values"].values()] == [v is None for v in expected]
    for a, b in zip(found["values"].values(), expected, strict=True):
        assert a is None or a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("official", ["2022", "2020"])
def test_learn2reg_profile(seed: int, official: str) -> None:
    pair, field = case(seed, size=3.0 + 10 * seed)
    pair = replace(pair, label_names={k: str(k) for k in (1, 2, 3, 4, 9)})
    spacing = (pair.moving_spacing_mm if official == "2022" else pair.fixed_spacing_mm)[0].numpy()
    expected = learn2reg_by_hand(pair, field.u[0].numpy(), [1, 2, 3, 4, 9], spacing)
    found = to_json(score(pair, field, official=official))["learn2reg"]
    for name in ("dice", "hd95", "tre_landmarks"):
        assert_same(found[name], expected[name])
        mean = np.nanmean(expected[name])
        assert found[name]["mean"] == (pytest.approx(mean, abs=1e-5) if np.isfinite(mean) else None)
    inside = pair.mask[0, 0].numpy()[2:-2, 2:-2, 2:-2]
    assert found["sdlogj"]["mean"] == pytest.approx(expected["log"][inside].std(), abs=1e-5)
    plain = to_json(score(pair, field, masked=False, metrics=["sdlogj"]))["learn2reg"]
    assert plain["sdlogj"]["mean"] == pytest.approx(expected["log"].std(), abs=1e-5)
    assert found["num_foldings"]["mean"] == 0
    assert found["hd95"]["unit"] == "voxel"
    assert found["tre_landmarks"]["unit"] == "mm"


def test_zero_field_leaves_the_maps_as_they_are() -> None:
    pair, field = case()
    pair = replace(pair, moving=pair.fixed, moving_labels=pair.fixed_labels)
    found = to_json(score(pair, DisplacementField.for_pair(torch.zeros_like(field.u), pair)))
    for profile in found.values():
        assert set(profile["dice"]["values"].values()) == {1.0}
        assert set(profile["hd95"]["values"].values()) == {0.0}
        assert profile["sdlogj"]["mean"] == 0
    assert found["strict"]["nonpositive_fraction"]["mean"] == 0
    assert found["strict"]["ncc"]["mean"] == pytest.approx(1)
    assert found["strict"]["mse"]["mean"] == pytest.approx(0, abs=1e-12)
    assert found["strict"]["end_point_error"]["mean"] == 0


def missing_labels() -> tuple[RegistrationPair, DisplacementField]:
    """Label 1 in both maps, 2 in both but carried out of the image, 3 fixed only, 4 moving only, 5 nowhere."""
    fixed, moving = torch.zeros(2, 1, 1, 10, 12, 8, dtype=torch.uint8)
    fixed[..., 4:7, 4:7, 4:7] = moving[..., 5:8, 4:7, 4:7] = 1
    fixed[..., 1, 1, 1] = moving[..., 0, 1, 1] = 2
    fixed[..., 8, 8, 6] = 3
    moving[..., 9, 8, 6] = 4
    pair = RegistrationPair(
        ("case",),
        torch.rand(1, 1, 10, 12, 8),
        torch.rand(1, 1, 10, 12, 8),
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[1.0, 2.0, 3.0]]),
        fixed_labels=fixed,
        moving_labels=moving,
        label_names={k: str(k) for k in range(1, 6)},
    )
    u = torch.zeros(1, 3, 10, 12, 8)
    u[:, 0] = 1
    return pair, DisplacementField.for_pair(u, pair)


def test_missing_and_vanishing_labels() -> None:
    found = to_json(score(*missing_labels()))
    strict, official = found["strict"], found["learn2reg"]
    assert strict["dice"]["values"] == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0, "5": None}
    assert strict["dice"]["mean"] == 0.25
    diagonal = math.sqrt(9**2 + (2 * 11) ** 2 + (3 * 7) ** 2)
    assert strict["hd95"]["values"] == {"1": 0.0, "2": pytest.approx(diagonal), "3": None, "4": None, "5": None}
    assert strict["hd95"]["mean"] == pytest.approx(diagonal / 2)
    assert strict["labels_counted"]["values"] == {"hd95": 2.0, "all": 4.0}
    assert official["dice"]["values"] == {"1": 1.0, "2": 0.0, "3": None, "4": None, "5": None}
    assert official["dice"]["mean"] == 0.5
    assert official["hd95"]["values"] == {"1": 0.0, "2": None, "3": None, "4": None, "5": None}
    assert official["hd95"]["mean"] is None
    assert official["labels_counted"]["mean"] == 2


def test_nothing_improves_when_labels_leave_the_image() -> None:
    pair, field = missing_labels()
    away = DisplacementField.for_pair(torch.full_like(field.u, 100.0), pair)
    before, after = (to_json(score(pair, f))["strict"] for f in (field, away))
    assert after["dice"]["mean"] < before["dice"]["mean"]
    assert after["hd95"]["mean"] > before["hd95"]["mean"]
    assert after["labels_counted"] == before["labels_counted"]


def test_units_without_spacing() -> None:
    pair, field = case()
    pair = replace(pair, fixed_spacing_mm=None, moving_spacing_mm=None)
    found = to_json(score(pair, field, backward=DisplacementField(torch.zeros(1, 3, *MOVING_SHAPE))))["strict"]
    for name in ("hd95", "tre_landmarks", "end_point_error", "inverse_consistency"):
        assert found[name]["unit"] == "voxel"
    assert found["dice"]["unit"] == "1"


def test_only_what_the_case_allows() -> None:
    pair = RegistrationPair(("bare",), torch.rand(1, 1, 20, 22), torch.rand(1, 1, 20, 22))
    found = to_json(score(pair, DisplacementField(torch.zeros(1, 2, 20, 22))))
    assert set(found["strict"]) == {"sdlogj", "nonpositive_fraction", "ncc", "ssim", "mse"}
    assert set(found["learn2reg"]) == {"sdlogj", "num_foldings"}


def test_selection_of_metrics_and_profiles() -> None:
    pair, field = case()
    for wanted in (["tre"], ["tre_landmarks"], ["tre_keypoints", "tre_landmarks"]):
        assert {v.metric for v in score(pair, field, metrics=wanted)} == {"tre_landmarks"}
    assert score(pair, field, metrics=["tre_keypoints"]) == []
    values = score(pair, field, profiles=("strict",), metrics=["dice", "mse"])
    assert {(v.profile, v.metric) for v in values} == {("strict", "dice"), ("strict", "mse")}
    with pytest.raises(ConfigError, match="did you mean 'dice'"):
        score(pair, field, metrics=["dise"])
    with pytest.raises(ConfigError, match="unknown profile 'loose'"):
        score(pair, field, profiles=("loose",))


def test_2d_scores() -> None:
    fixed = np.zeros((30, 40), np.uint8)
    fixed[8:20, 10:25] = 1
    moving = np.roll(fixed, 2, 0)
    to_batch = lambda a: torch.from_numpy(a)[None, None]  # noqa: E731
    pair = RegistrationPair(
        ("flat",),
        to_batch(fixed.astype(np.float32)),
        to_batch(moving.astype(np.float32)),
        fixed_labels=to_batch(fixed),
        moving_labels=to_batch(moving),
    )
    zero = DisplacementField(torch.zeros(1, 2, 30, 40))
    shifted = DisplacementField(torch.stack([torch.full((30, 40), 2.0), torch.zeros(30, 40)])[None])
    before, after = (to_json(score(pair, f))["learn2reg"] for f in (zero, shifted))
    found = surface_distance.compute_surface_distances(fixed > 0, moving > 0, np.ones(2))
    assert before["hd95"]["mean"] == surface_distance.compute_robust_hausdorff(found, 95)
    assert before["dice"]["mean"] == pytest.approx(10 / 12)
    assert after["hd95"]["mean"] == 0
    assert after["dice"]["mean"] == 1


def test_json_has_no_bare_nan() -> None:
    pair, field = missing_labels()
    text = json.dumps(to_json(score(pair, field)), allow_nan=False)
    assert "NaN" not in text


def test_messages() -> None:
    pair, field = case()
    with pytest.raises(ValueError, match="the field has shape"):
        score(pair, DisplacementField(field.u[..., 1:]))
    with pytest.raises(ValueError, match="backward field has shape"):
        score(pair, field, backward=field)
    with pytest.raises(ValueError, match="'2020' or '2022'"):
        score(pair, field, official="2021")


def test_metrics_describe_themselves() -> None:
    found = {metric.name: metric for metric in all_metrics()}
    expected = {"dice", "hd95", "tre", "sdlogj", "nonpositive_fraction", "num_foldings", "end_point_error"}
    assert expected | {"inverse_consistency", "ncc", "ssim", "mse", "labels_counted"} <= set(found)
    for metric in found.values():
        assert metric.better in ("higher", "lower", "neutral")
        assert set(metric.units) == set(metric.profiles)
        assert (type(metric).__doc__ or "").splitlines()[0].endswith((".", ":"))
