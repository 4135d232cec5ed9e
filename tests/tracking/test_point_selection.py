"""Selection of points: densities, corners against brute force, seeds, cases of a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from reg_bench.tracking import (
    Corners,
    GivenPoints,
    MaskDensity,
    PointSelection,
    RegularGrid,
    corner_strength,
    mask_distance,
    spaced_peaks,
)


def disc(size: int, radius: float) -> Tensor:
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    return ((i - middle) ** 2 + (j - middle) ** 2 <= radius**2)[None, None]


def texture(batch: int, *shape: int, seed: int = 0) -> Tensor:
    noise = np.random.default_rng(seed).normal(size=(batch, 1, *shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 2, 2))).float()


def test_density_falls_with_the_distance_from_the_mask() -> None:
    """For a disc of radius 25 in 256 x 256 and 1 / (1 + d), 58 % of the points lie inside (deviation 4 % per draw)."""
    image, mask = torch.zeros(1, 1, 256, 256), disc(256, 25)
    shares = []
    for seed in range(12):
        index = MaskDensity(150, seed).select(image, mask)[0].long()
        assert len({tuple(p) for p in index.tolist()}) == 150
        shares.append(mask[0, 0, index[:, 0], index[:, 1]].float().mean().item())
    assert np.mean(shares) == pytest.approx(0.58, abs=3 * 0.04 / math.sqrt(12))


def test_distance_is_of_scipy_and_zero_for_empty_masks() -> None:
    masks = torch.cat((disc(31, 4), torch.zeros(1, 1, 31, 31, dtype=torch.bool)))
    distance = mask_distance(masks)
    assert torch.equal(distance[0, 0], torch.from_numpy(ndimage.distance_transform_edt(~masks[0, 0].numpy())))
    assert not distance[1].any()


def test_without_a_mask_every_quarter_gets_its_share() -> None:
    points = MaskDensity(2000, 1).select(torch.zeros(1, 1, 64, 96))[0]
    quarter = (points[:, 0] >= 32).long() * 2 + (points[:, 1] >= 48).long()
    assert torch.bincount(quarter, minlength=4).tolist() == pytest.approx([500] * 4, abs=80)


@pytest.mark.parametrize("selection", [MaskDensity(40, 3), Corners(40, 5.0, near_mask=6.0), RegularGrid(9.0)])
def test_each_case_as_if_alone_and_again_the_same(selection: PointSelection) -> None:
    images, masks = texture(2, 64, 80), torch.zeros(2, 1, 64, 80)
    masks[0, :, 10:30, 20:40] = 1
    masks[1, :, 30:50, 40:60] = 1
    both = selection.select(images, masks)
    assert torch.equal(both, selection.select(images, masks))
    for k in range(2):
        assert torch.equal(both[k : k + 1], selection.select(images[k : k + 1], masks[k : k + 1]))


def test_strength_is_the_smaller_eigenvalue() -> None:
    image = texture(1, 24, 20).double()
    smooth = ndimage.gaussian_filter(image[0, 0].numpy(), 1.0, mode="nearest")
    gradients = np.stack(np.gradient(smooth))
    tensor = [[ndimage.gaussian_filter(a * b, 1.5, mode="nearest") for b in gradients] for a in gradients]
    expected = np.linalg.eigvalsh(np.moveaxis(np.array(tensor), (0, 1), (2, 3)))[..., 0]
    np.testing.assert_allclose(corner_strength(image)[0, 0].numpy(), expected, atol=1e-10)


def test_corners_of_a_rectangle_are_found() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:40, 15:50] = 1.0
    found = {tuple(p) for p in Corners(4, 8.0).select(image)[0].tolist()}
    for corner in ((20, 15), (20, 49), (39, 15), (39, 49)):
        assert min(math.dist(corner, p) for p in found) < 2


def test_corners_keep_their_distance_and_stay_near_the_mask() -> None:
    image, mask = texture(1, 96, 96), disc(96, 15)
    points = Corners(30, 6.0, near_mask=10.0).select(image, mask)[0]
    apart = torch.cdist(points, points) + 1e9 * torch.eye(30)
    assert apart.min() >= 6
    assert (mask_distance(mask)[0, 0, points[:, 0].long(), points[:, 1].long()] <= 10).all()


def test_peaks_are_greedy() -> None:
    strength = texture(1, 30, 22, seed=4)[0, 0].abs()
    order = np.argsort(-strength.numpy().ravel())
    expected: list[tuple[int, int]] = []
    for index in order:
        place = divmod(int(index), 22)
        if len(expected) < 12 and all(math.dist(place, p) >= 4.5 for p in expected):
            expected.append(place)
    assert spaced_peaks(strength, 12, 4.5).long().tolist() == [list(p) for p in expected]


def test_distance_gives_way_to_the_number() -> None:
    assert len(torch.unique(spaced_peaks(torch.zeros(5, 5), 25, 10.0), dim=0)) == 25


def test_grid_is_centred() -> None:
    points = RegularGrid(10.0).select(torch.zeros(2, 1, 41, 36))
    assert points.shape == (2, 5 * 4, 2)
    assert points[0, 0].tolist() == [0.0, 2.5]
    assert torch.equal(points.mean(1), torch.tensor([[20.0, 17.5]] * 2))


def test_given_points_are_returned() -> None:
    points = GivenPoints([[1.5, 2.0], [3.0, 9.0]]).select(torch.zeros(2, 1, 10, 10, dtype=torch.float64))
    assert points.dtype == torch.float64
    assert points.tolist() == [[[1.5, 2.0], [3.0, 9.0]]] * 2


def test_bad_input_is_named() -> None:
    image = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"count must lie in 1\.\.64.*got 65"):
        MaskDensity(65).select(image)
    with pytest.raises(ValueError, match=r"mask must be \(B, 1, H, W\)"):
        MaskDensity(5).select(image, torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        Corners(0)
    with pytest.raises(ValueError, match="must lie in the image"):
        GivenPoints([[9.0, 1.0]]).select(image)
    with pytest.raises(ValueError, match="spacing_voxels must be positive, got 0"):
        RegularGrid(0)


def test_candidates_spread_evenly_and_keep_the_density() -> None:
    """Gaps between nearest neighbours vary less and their least is wider; the share inside the mask stays."""
    image, mask = torch.zeros(1, 1, 128, 128), disc(128, 25)

    def drawn(candidates: int, seed: int) -> Tensor:
        points = MaskDensity(150, seed, candidates).select(image, mask)[0]
        assert len({tuple(p) for p in points.tolist()}) == 150
        return points

    def inside(points: Tensor) -> float:
        index = points.long()
        return mask[0, 0, index[:, 0], index[:, 1]].float().mean().item()

    def gaps(points: Tensor) -> Tensor:
        return torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1)

    seeds = range(4)
    alone, spread = [drawn(1, s) for s in seeds], [drawn(6, s) for s in seeds]
    assert np.mean([inside(p) for p in spread]) == pytest.approx(np.mean([inside(p) for p in alone]), abs=0.05)
    for independent, even in zip(alone, spread, strict=True):
        assert gaps(even).min() > 1.5 * gaps(independent).min()
        assert gaps(even).mean() > 1.3 * gaps(independent).mean()


def test_candidates_run_out_at_the_pixels_there_are() -> None:
    points = MaskDensity(12, 0, candidates=5).select(torch.zeros(1, 1, 4, 4))[0]
    assert len({tuple(p) for p in points.tolist()}) == 12
    assert len(MaskDensity(16, 0, candidates=5).select(torch.zeros(1, 1, 4, 4))[0]) == 16
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        MaskDensity(12, 0, candidates=0)
