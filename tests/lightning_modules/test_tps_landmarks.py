"""`tps-landmarks` on landmarks whose motion is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from lightning_modules.tps_landmarks import TpsLandmarks, merged
from reg_bench.discovery import build_method
from reg_bench.metrics import score
from reg_bench.types import DisplacementField, PointPairs, RegistrationPair, collate_pairs


def bent(points: Tensor) -> Tensor:
    """A smooth map of voxels `(N, D)`: a shift, a shear and some waves."""
    turned = points.roll(1, dims=1)
    return points + 2.0 + 0.08 * turned + 1.2 * torch.sin(turned / 9)


def pair_of_points(
    shape: tuple[int, ...] = (40, 34), count: int = 40, *, seed: int = 0, spacing: tuple[float, ...] | None = None
) -> RegistrationPair:
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.rand(count, len(shape), generator=generator, dtype=torch.float64) * (torch.tensor(shape) - 1)
    blank = torch.zeros(1, 1, *shape)
    known = None if spacing is None else torch.tensor([spacing])
    return RegistrationPair(
        (f"case-{seed}",),
        blank,
        blank.clone(),
        fixed_spacing_mm=known,
        moving_spacing_mm=known,
        points={"landmarks": PointPairs((fixed,), (bent(fixed),))},
    )


def left(field: DisplacementField, pair: RegistrationPair, name: str = "landmarks") -> Tensor:
    """Distances in voxels of the landmarks after registration, read from the field on the grid."""
    assert pair.points is not None
    fixed, moving = pair.points[name].fixed[0].float(), pair.points[name].moving[0].float()
    return (fixed + field.at(fixed) - moving).norm(dim=1)


@pytest.mark.parametrize(("shape", "count"), [((40, 34), 40), ((20, 24, 18), 60)])
def test_fitted_landmarks_meet_and_the_others_come_near(shape: tuple[int, ...], count: int) -> None:
    pair = pair_of_points(shape, count)
    everything = left(TpsLandmarks(holdout=0)(pair), pair)
    assert everything.max() < 0.1  # what linear interpolation between voxels leaves
    half = left(TpsLandmarks()(pair), pair)
    assert half[::2].max() < 0.1
    still = left(DisplacementField(torch.zeros(1, len(shape), *shape)), pair)
    assert half[1::2].mean() < 0.3 * still.mean()
    assert half[1::2].mean() > 5 * half[::2].mean()


@pytest.mark.parametrize("spacing", [None, (0.7, 2.0)])
def test_equals_scipy_in_the_space_of_millimetres(spacing: tuple[float, float] | None) -> None:
    pair = pair_of_points(spacing=spacing, count=15)
    assert pair.points is not None
    fixed, moving = (p[0].numpy() for p in (pair.points["landmarks"].fixed, pair.points["landmarks"].moving))
    edges = np.array(spacing or (1.0, 1.0))
    spline = RBFInterpolator(fixed * edges, moving - fixed, kernel="thin_plate_spline", degree=1)
    grid = np.indices((40, 34)).reshape(2, -1).T
    expected = spline(grid * edges).T.reshape(2, 40, 34)
    np.testing.assert_allclose(TpsLandmarks(holdout=0)(pair).u[0].numpy(), expected, atol=5e-3)


def test_landmarks_on_voxels_are_interpolated_exactly_and_in_the_right_direction() -> None:
    pair = pair_of_points(count=10)
    fixed = torch.tensor([[3.0, 4.0], [30.0, 5.0], [20.0, 30.0], [8.0, 25.0], [15.0, 15.0]], dtype=torch.float64)
    shift = torch.tensor([[1.0, 0.0], [0.0, -2.0], [3.0, 1.0], [0.0, 0.0], [-1.5, 0.5]], dtype=torch.float64)
    u = TpsLandmarks(holdout=0)(replace(pair, points={"landmarks": PointPairs((fixed,), (fixed + shift,))})).u
    i, j = fixed.long().T
    torch.testing.assert_close(u[0][:, i, j].T, shift.float(), atol=1e-3, rtol=0)


def test_grids_of_other_spacing_are_related_index_to_index() -> None:
    pair = replace(pair_of_points(spacing=(1.0, 2.0)), moving_spacing_mm=torch.tensor([[0.5, 3.0]]))
    assert left(TpsLandmarks(holdout=0)(pair), pair).max() < 0.1


def test_every_third_can_be_held_out_and_is_not_seen() -> None:
    pair = pair_of_points(count=31)
    assert pair.points is not None
    landmarks = pair.points["landmarks"]
    spoiled = landmarks.moving[0].clone()
    spoiled[2::3] += 100
    other = replace(pair, points={"landmarks": PointPairs(landmarks.fixed, (spoiled,))})
    assert torch.equal(TpsLandmarks(holdout=3)(pair).u, TpsLandmarks(holdout=3)(other).u)
    spoiled[0] += 1
    assert not torch.equal(TpsLandmarks(holdout=3)(pair).u, TpsLandmarks(holdout=3)(other).u)


def test_rows_tell_fitted_from_held_out_landmarks() -> None:
    pair = pair_of_points(count=20)
    values = {v.label: v.value for v in score(pair, TpsLandmarks()(pair)) if v.metric == "tre_landmarks"}
    fitted = [values[str(i)] for i in range(0, 20, 2)]
    held_out = [values[str(i)] for i in range(1, 20, 2)]
    assert max(fitted) < 0.1 < float(np.mean(held_out))


def test_ransac_drops_wrong_landmarks() -> None:
    pair = pair_of_points((30, 30, 30), 50)
    assert pair.points is not None
    moving = pair.points["landmarks"].moving[0].clone()
    moving[::5] += torch.tensor([12.0, -9.0, 10.0])
    spoiled = replace(pair, points={"landmarks": PointPairs(pair.points["landmarks"].fixed, (moving,))})
    right = torch.arange(50) % 5 != 0
    plain = left(TpsLandmarks(holdout=3)(spoiled), pair)[right].mean()
    robust = left(TpsLandmarks(holdout=3, ransac_mm=5.0)(spoiled), pair)[right].mean()
    assert robust < 0.3 * plain


def test_smoothing_gives_up_exactness_for_less_bending() -> None:
    pair = pair_of_points()
    errors = [float(left(TpsLandmarks(holdout=0, lam=lam)(pair), pair).mean()) for lam in (0.0, 1.0, 1e3, 1e9)]
    assert errors == sorted(errors)
    stiff = TpsLandmarks(holdout=0, lam=1e12)(pair).u
    bend = stiff[:, :, 2:] - 2 * stiff[:, :, 1:-1] + stiff[:, :, :-2]
    assert bend.abs().max() < 1e-3


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_landmarks_give_the_affine_map_nearest_to_none(count: int) -> None:
    pair = pair_of_points((12, 14, 10), count, seed=4)
    found = TpsLandmarks(holdout=0)(pair)
    assert left(found, pair).max() < 1e-3
    if count == 1:
        assert (found.u - found.u[:, :, :1, :1, :1]).abs().max() < 1e-4


def test_landmarks_of_one_slice_or_plane_and_repeated_ones() -> None:
    pair = pair_of_points((16, 18, 14), 24)
    assert pair.points is not None
    fixed = pair.points["landmarks"].fixed[0].clone()
    fixed[:, 2] = 5.0
    slice_ = replace(pair, points={"landmarks": PointPairs((fixed,), (bent(fixed),))})
    assert left(TpsLandmarks(holdout=0)(slice_), slice_).max() < 0.1
    oblique = fixed.clone()
    oblique[:, 2] = 0.5 * fixed[:, 0] + 2
    moved = oblique * torch.tensor([1.1, 0.9, 1.0]) + 1.0
    plane = replace(pair, points={"landmarks": PointPairs((oblique,), (moved,))})
    assert left(TpsLandmarks(holdout=0)(plane), plane).max() < 1e-3
    twice = torch.cat((fixed, fixed[:1]))
    repeated = replace(pair, points={"landmarks": PointPairs((twice,), (bent(twice),))})
    torch.testing.assert_close(
        TpsLandmarks(holdout=0)(repeated).u, TpsLandmarks(holdout=0)(slice_).u, atol=1e-4, rtol=0
    )


def test_partners_of_equal_points_are_averaged() -> None:
    source = torch.tensor([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]])
    target = torch.tensor([[2.0, 0.0], [7.0, 7.0], [4.0, 1.0]])
    distinct, means = merged(source, target)
    assert distinct.tolist() == [[0, 5], [1, 2]]
    assert means.tolist() == [[7, 7], [3, 0.5]]


def test_the_set_is_chosen_by_name() -> None:
    pair = pair_of_points()
    assert pair.points is not None
    landmarks = pair.points["landmarks"]
    other = PointPairs(landmarks.fixed, (landmarks.fixed[0] + 1,))
    shifted = torch.ones_like(TpsLandmarks()(pair).u)
    both = replace(pair, points={"keypoints": other, "landmarks": landmarks})
    assert torch.equal(TpsLandmarks()(both).u, TpsLandmarks()(pair).u)
    torch.testing.assert_close(TpsLandmarks("keypoints")(both).u, shifted, atol=1e-3, rtol=0)
    only = replace(pair, points={"target": other, "keypoints": other})
    torch.testing.assert_close(TpsLandmarks()(only).u, shifted, atol=1e-3, rtol=0)
    assert "needs the points 'nodules', the case has ['landmarks']" in (TpsLandmarks("nodules").accepts(pair) or "")


def test_cases_of_a_batch_come_out_as_if_alone() -> None:
    one, two = pair_of_points(count=12), pair_of_points(count=30, seed=1)
    both = TpsLandmarks(ransac_mm=4.0)(collate_pairs([one, two])).u
    assert torch.equal(both, torch.cat([TpsLandmarks(ransac_mm=4.0)(p).u for p in (one, two)]))
    assert both.dtype == torch.float32


def test_what_it_cannot_take() -> None:
    pair = pair_of_points()
    assert TpsLandmarks().accepts(pair) is None
    assert "needs points" in (TpsLandmarks().accepts(replace(pair, points=None)) or "")
    none = PointPairs((torch.zeros(0, 2),), (torch.zeros(0, 2),))
    assert "at least one point" in (TpsLandmarks().accepts(replace(pair, points={"landmarks": none})) or "")
    with pytest.raises(ValueError, match="case-0: TpsLandmarks needs points"):
        TpsLandmarks()(replace(pair, points=None))
    with pytest.raises(ValueError, match="holdout must be 0 or at least 2, got 1"):
        TpsLandmarks(holdout=1)
    with pytest.raises(ValueError, match="lam must be at least 0"):
        TpsLandmarks(lam=-1.0)
    with pytest.raises(ValueError, match="ransac_mm must be positive"):
        TpsLandmarks(ransac_mm=0.0)


def test_it_has_a_name() -> None:
    assert isinstance(build_method("tps-landmarks"), TpsLandmarks)
