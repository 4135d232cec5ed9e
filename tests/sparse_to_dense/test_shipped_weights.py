"""The weights that come with the package: what they are for, and that they fill in better than what they must beat."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reg_bench.random_diffeomorphisms import random_diffeomorphisms
from reg_bench.sparse_to_dense import (
    NormalizedConvolution,
    ThinPlateInterpolation,
    TrackerErrors,
    end_point_error,
    observe,
)
from reg_bench.weights_files import weights_folder

SHAPE = (256, 256)


def smooth_field() -> Tensor:
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    rows, columns = 5 * torch.sin(y / 40) * torch.cos(x / 50), 6 * torch.cos(y / 45 + 0.3) * torch.sin(x / 60)
    return torch.stack((rows, columns))[None]


@pytest.fixture(scope="module")
def shot() -> Tensor:
    """Fields that no training saw."""
    rng = np.random.default_rng(4711)
    sigma, distance = rng.uniform(40, 99, 6) / math.sqrt(2), rng.uniform(4, 19, 6)
    generator = torch.Generator().manual_seed(4711)
    return random_diffeomorphisms(SHAPE, sigma.tolist(), distance.tolist(), generator, with_inverse=False).displacement


@pytest.mark.parametrize(("trend", "bar"), [(None, 0.585), (40.0, 0.25)])
def test_smooth_field_at_150_points(trend: float | None, bar: float) -> None:
    """The author's network has 0.585."""
    truth = smooth_field()
    chosen = torch.from_numpy(np.random.RandomState(0).permutation(256 * 256)[:150])
    points = torch.stack((chosen // 256, chosen % 256), dim=1).float()[None]
    values = truth[0].flatten(1)[:, chosen].T[None]
    assert float(end_point_error(torch.zeros_like(truth), truth)) == pytest.approx(3.391, abs=1e-3)
    with torch.inference_mode():
        assert float(end_point_error(NormalizedConvolution(trend=trend)(points, values, None, SHAPE).u, truth)) <= bar


@pytest.mark.parametrize("trend", [None, 40.0])
def test_fields_from_shooting(shot: Tensor, trend: float | None) -> None:
    seen = observe(shot, 150, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        field = NormalizedConvolution(trend=trend)(seen.points, seen.values, seen.confidence, SHAPE)
    assert end_point_error(field.u, shot).mean() <= 0.4 * end_point_error(torch.zeros_like(shot), shot).mean()


@pytest.mark.parametrize("count", [66, 150, 655])
def test_noise_and_outliers_do_less_harm_than_to_a_spline(shot: Tensor, count: int) -> None:
    seen = observe(shot, count, torch.Generator().manual_seed(count), TrackerErrors(1.0, 0.1, 15.0))
    with torch.inference_mode():
        errors = [
            end_point_error(method(seen.points, seen.values, seen.confidence, SHAPE).u, shot).mean()
            for method in (NormalizedConvolution(), ThinPlateInterpolation())
        ]
    assert errors[0] < 0.9 * errors[1]


def test_constants_stay_constant_and_no_layer_has_a_bias() -> None:
    network = NormalizedConvolution()
    assert not any(layer.bias.any() for layer in network.layers)
    points = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(0)) * 99
    field = network(points, torch.full_like(points, 3.0), None, (100, 100))
    assert (field.u - 3).abs().max() < 1e-5


def test_card_tells_of_the_file() -> None:
    path = weights_folder() / "nconv.pt"
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.keys() >= {"network", "parameters", "command", "seed", "steps", "versions", "validation"}
    assert card["parameters"] == sum(v.numel() for v in torch.load(path, weights_only=True).values())
