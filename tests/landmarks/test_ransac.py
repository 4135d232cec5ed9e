"""Random sample consensus on points of which many are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reg_bench.landmarks import KINDS, fit, ransac
from tests.landmarks.maps import points, true_map


def spoiled(kind: str, dims: int, share: float, seed: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and which of 50 pairs are right; wrong ones are off by 15 to 60."""
    source = points(50, dims, seed=seed)[0]
    target = true_map(kind, dims)(source[None])[0] + points(50, dims, seed=seed + 100, spread=1.0)[0] * noise
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(50, generator=generator)[: round(50 * share)]
    away = torch.nn.functional.normalize(points(len(wrong), dims, seed=seed + 200)[0], dim=1)
    target[wrong] += away * (15 + 45 * torch.rand(len(wrong), 1, generator=generator, dtype=torch.float64))
    right = torch.ones(50, dtype=torch.bool)
    right[wrong] = False
    return source, target, right


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.6])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_points_are_found_and_the_map_is_exact(kind: str, dims: int, share: float, seed: int) -> None:
    source, target, right = spoiled(kind, dims, share, seed)
    found = ransac(source, target, 1.0, kind, seed=seed)
    assert torch.equal(found.inliers, right)
    truth = true_map(kind, dims)
    torch.testing.assert_close(found.map.matrix, truth.matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.map.offset, truth.offset, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_least_squares_alone_would_be_far_off(kind: str) -> None:
    source, target, right = spoiled(kind, 3, 0.4, 0)
    plain = fit(source[None], target[None], kind)(source[None])[0]
    robust = ransac(source, target, 1.0, kind).map(source[None])[0]
    assert float((plain - target)[right].norm(dim=1).mean()) > 2
    assert float((robust - target)[right].norm(dim=1).mean()) < 1e-5


def test_noise_is_averaged_over_all_inliers() -> None:
    source, target, right = spoiled("affine", 3, 0.4, 5, noise=0.3)
    found = ransac(source, target, 1.5)
    assert torch.equal(found.inliers, right)
    expected = fit(source[right][None], target[right][None], "affine")
    torch.testing.assert_close(found.map.matrix, expected.matrix)


def test_the_seed_alone_decides_the_draws() -> None:
    source, target, _ = spoiled("affine", 3, 0.6, 3, noise=0.4)
    torch.manual_seed(1)
    first = ransac(source, target, 1.0, trials=20, seed=4)
    torch.manual_seed(2)
    again = ransac(source, target, 1.0, trials=20, seed=4)
    assert torch.equal(first.map.matrix, again.map.matrix)
    others = [ransac(source, target, 1.0, trials=1, seed=s).map.matrix for s in range(5)]
    assert any(not torch.equal(others[0], other) for other in others[1:])


def test_few_points_are_all_inliers() -> None:
    source = points(3, 3)[0]
    found = ransac(source, source + 50, 1.0, "affine")
    assert found.inliers.all()
    torch.testing.assert_close(found.map(source[None])[0], source + 50)


def test_wrong_arguments_are_named() -> None:
    p = points(6, 2)[0]
    with pytest.raises(ValueError, match=r"two equal shapes \(N, D\)"):
        ransac(p, p[:5], 1.0)
    with pytest.raises(ValueError, match="threshold and trials must be positive, got 0"):
        ransac(p, p, 0)
    with pytest.raises(ValueError, match="threshold and trials must be positive"):
        ransac(p, p, 1.0, trials=0)
    with pytest.raises(ValueError, match="kind must be one of"):
        ransac(p, p, 1.0, "bent")  # type: ignore[arg-type]
