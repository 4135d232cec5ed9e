"""The truth of every phantom: image, labels, landmarks and field must tell the same story."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from datamodules.phantom_breathing import PhantomBreathing
from datamodules.phantom_cine import PhantomCine
from datamodules.phantom_lung import PhantomLung
from datamodules.phantom_volume import PhantomVolume
from reg_bench import synthesis_heart
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import DataError
from reg_bench.types import RegistrationPair

Make = Callable[..., RegistrationDataModule]
CLEAN = {"noise": 0.0, "drift": 0.0}


def cine(**options) -> PhantomCine:
    return PhantomCine(**{"size": (144, 160), "length": 8, "sequences": 2, **options})


def breathing(**options) -> PhantomBreathing:
    return PhantomBreathing(**{"size": (128, 140), "length": 12, "sequences": 2, **options})


def volume(**options) -> PhantomVolume:
    return PhantomVolume(**{"cases": 2, "size": (48, 52, 56), **options})


def lung(**options) -> PhantomLung:
    return PhantomLung(**{"cases": 2, "size": (48, 40, 52), "landmarks": 40, **options})


ALL = pytest.mark.parametrize("make", [cine, breathing, volume, lung])


def worst(data: RegistrationDataModule) -> RegistrationPair:
    """The pair of the first subject with the largest motion."""
    records = data.records("test")
    first = [r for r in records if r["seed"] == records[0]["seed"]]
    return max((data.load(r) for r in first), key=lambda p: float(p.true_displacement.norm(dim=1).max()))


def warped(image: torch.Tensor, u: torch.Tensor, order: int) -> np.ndarray:
    """`image(x + u(x))` by SciPy."""
    a = u[0].double().numpy()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in a.shape[1:]), indexing="ij"))
    return ndimage.map_coordinates(image[0, 0].double().numpy(), grid + a, order=order, mode="nearest")


def mean_dice(a: np.ndarray, b: np.ndarray, labels: list[int]) -> float:
    return float(np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in labels]))


@ALL
def test_landmarks_follow_the_field(make: Make) -> None:
    pair = worst(make())
    u = pair.true_displacement[0].double().numpy()
    for points in (pair.points or {}).values():
        fixed, moving = points.fixed[0].double().numpy(), points.moving[0].double().numpy()
        there = fixed + np.stack([ndimage.map_coordinates(c, fixed.T, order=1) for c in u], axis=1)
        assert np.linalg.norm(there - moving, axis=1).max() < 0.05
        assert np.linalg.norm(fixed - moving, axis=1).mean() > 0.5
        limit = np.array(pair.spatial_shape) - 1
        assert (fixed >= 0).all()
        assert (fixed <= limit).all()


@ALL
def test_labels_follow_the_field(make: Make) -> None:
    pair = worst(make())
    labels = sorted(pair.label_names or {})
    fixed, moving = pair.fixed_labels[0, 0].numpy(), pair.moving_labels[0, 0].numpy()
    assert set(np.unique(fixed)) == set(np.unique(moving)) == {0, *labels}
    truth = mean_dice(warped(pair.moving_labels, pair.true_displacement, 0).round(), fixed, labels)
    assert truth > (0.955 if pair.dimension == 2 else 0.92)
    # A field of the wrong sign must be far worse: the labels can tell.
    assert mean_dice(warped(pair.moving_labels, -pair.true_displacement, 0).round(), fixed, labels) < truth - 0.15


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (cine(**CLEAN), 0.15),
        (breathing(**CLEAN), 0.15),
        (volume(**CLEAN), 0.15),
        # Vessels of 900 HU are hardly wider than a voxel: interpolating the moving image blurs them.
        (PhantomLung(cases=1, noise_hu=0.0, density_change=0.0), 0.35),
    ],
    ids=["cine", "breathing", "volume", "lung"],
)
def test_noise_free_reference_warps_onto_the_frame(data: RegistrationDataModule, tolerance: float) -> None:
    pair = worst(data)
    fixed, moving = pair.fixed[0, 0].numpy(), pair.moving[0, 0].numpy()
    inside = ndimage.binary_erosion(pair.mask[0, 0].numpy(), iterations=3)

    def rms(image: np.ndarray) -> float:
        return float(np.sqrt(((image - fixed)[inside] ** 2).mean()))

    assert rms(warped(pair.moving, pair.true_displacement, 3)) < tolerance * rms(moving)
    assert rms(warped(pair.moving, -pair.true_displacement, 3)) > rms(moving) * 0.8


@ALL
def test_jacobian_of_the_truth_is_positive_in_tissue(make: Make) -> None:
    pair = worst(make())
    u = pair.true_displacement[0].double().numpy()
    rows = np.stack([np.stack(np.gradient(c), axis=-1) for c in u], axis=-2)
    determinant = np.linalg.det(rows + np.eye(len(u)))
    if make is breathing:
        # Across the pleura the truth jumps: only away from it is there a derivative.
        determinant = determinant[ndimage.binary_erosion(pair.mask[0, 0].numpy(), iterations=2)]
    assert determinant.min() > 0.05


@ALL
def test_largest_motion_is_as_asked(make: Make) -> None:
    data = make(max_motion=3.0, **({"length": 50, "size": (64, 64)} if make in (cine, breathing) else {}))
    assert float(worst(data).true_displacement.norm(dim=1).max()) == pytest.approx(3.0, rel=0.02)


@ALL
def test_no_motion_is_exactly_the_zero_field(make: Make) -> None:
    pair = worst(make(max_motion=0.0))
    assert not bool(pair.true_displacement.any())
    assert torch.equal(pair.fixed_labels, pair.moving_labels)
    assert torch.allclose(pair.points["landmarks"].fixed[0], pair.points["landmarks"].moving[0], atol=1e-5)


@ALL
def test_same_seed_same_case_other_seed_other_case(make: Make) -> None:
    first, again, other = make(), make(), make(seed=1)
    record = first.records("val")[-1]
    a, b = first.load(record), again.load(record)
    assert torch.equal(a.fixed, b.fixed)
    assert torch.equal(a.true_displacement, b.true_displacement)
    c = other.load(other.records("val")[-1])
    assert not torch.allclose(a.true_displacement, c.true_displacement)
    assert first.checksum() == again.checksum() != other.checksum()
    assert first.checksum() != make(max_motion=2.5).checksum()


@ALL
def test_splits_share_no_seed(make: Make) -> None:
    seeds = [{r["seed"] for r in make(seed=s).records(k)} for s in (0, 1) for k in ("train", "val", "test")]
    assert len(set.union(*seeds)) == sum(len(s) for s in seeds) == 12


@ALL
def test_pairs_are_plain_and_complete(make: Make) -> None:
    pair = worst(make())
    assert pair.fixed.dtype == pair.moving.dtype == pair.true_displacement.dtype == torch.float32
    assert pair.mask.dtype == torch.bool
    assert 0.02 < float(pair.mask.float().mean()) < 0.8
    assert pair.fixed_spacing_mm.shape == (1, pair.dimension)
    assert torch.equal(pair.fixed_affine.diagonal(dim1=1, dim2=2)[0, :-1].float(), pair.fixed_spacing_mm[0])
    assert bool(torch.isfinite(pair.fixed).all())
    # A pair has memory of its own, not a view of its whole sequence.
    assert pair.fixed.untyped_storage().nbytes() == pair.fixed.numel() * 4


@pytest.mark.parametrize("make", [cine, breathing])
def test_sequence_holds_the_pairs(make: Make) -> None:
    data = make()
    record = data.records("test")[3]
    sequence, pair = data.sequence(record), data.load(record)
    frame = record["frame"]
    assert sequence.reference == 0
    assert not bool(sequence.true_displacement[:, 0].any())
    assert torch.equal(sequence.frames[:, frame], pair.fixed)
    assert torch.equal(sequence.frames[:, 0], pair.moving)
    assert pair.case_ids == (record["case_id"],) == (f"test000/{frame:03d}",)
    assert pair.frames == (frame,)


def test_the_last_sequence_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = synthesis_heart.heart_sequence

    def counting(config, *, seed, case_id):
        made.append(case_id)
        return original(config, seed=seed, case_id=case_id)

    monkeypatch.setattr("datamodules.phantom_cine.heart_sequence", counting)
    data = cine(size=(64, 64), length=4)
    for record in data.records("test"):
        data.load(record)
    assert made == ["test000", "test001"]


def test_a_subset_of_frames_is_spread_and_leaves_the_motion_alone() -> None:
    few, every = PhantomCine(frames=6, sequences=1), PhantomCine(sequences=1)
    frames = [r["frame"] for r in few.records("test")]
    assert len(frames) == 6
    assert frames[0] >= 1
    assert frames[-1] <= 19
    assert max(np.diff(frames)) <= 4
    assert set(few.case_ids("test")) < set(every.case_ids("test"))
    assert len(every.case_ids("test")) == 19


def test_breathing_tracks_its_target() -> None:
    pair = worst(breathing())
    target = pair.points["target"].fixed[0][0]
    inside = torch.nonzero(pair.fixed_labels[0, 0] == 3).float()
    assert float((inside.mean(dim=0) - target).norm()) < 0.6
    assert torch.equal(pair.points["landmarks"].fixed[0][0], target)


def test_volume_has_ten_organs_one_small_and_takes_anisotropic_voxels() -> None:
    data = volume(size=(56, 64, 40), spacing_mm=(1.5, 1.5, 3.0))
    pair = worst(data)
    assert pair.spatial_shape == (56, 64, 40)
    assert pair.fixed_spacing_mm.tolist() == [[1.5, 1.5, 3.0]]
    sizes = torch.bincount(pair.fixed_labels.flatten().long())[1:]
    assert len(sizes) >= 10
    assert int(sizes.min()) < 0.1 * int(sizes.max())


def test_lung_has_a_hundred_landmarks_inside_its_mask() -> None:
    pair = worst(PhantomLung(cases=1))
    points = pair.points["landmarks"].fixed[0]
    assert points.shape == (100, 3)
    assert pair.spatial_shape == (80, 64, 80)
    nearest = (points + 0.5).floor().long()
    assert bool(pair.mask[0, 0][tuple(nearest.T)].all())
    assert float((points - pair.points["landmarks"].moving[0]).norm(dim=1).mean()) > 2.0


def test_difficulty_is_as_meant() -> None:
    def identity_dice(pair: RegistrationPair) -> float:
        labels = sorted(pair.label_names or {})
        return mean_dice(pair.moving_labels[0, 0].numpy(), pair.fixed_labels[0, 0].numpy(), labels)

    heart = PhantomCine(sequences=1, size=(128, 128))
    assert 0.65 < np.mean([identity_dice(heart.load(r)) for r in heart.records("test")]) < 0.77
    trunk = PhantomVolume(cases=3)
    assert 0.60 < np.mean([identity_dice(trunk.load(r)) for r in trunk.records("test")]) < 0.77


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (cine, {"sequences": 0}, "sequences must be positive"),
        (cine, {"frames": 8}, r"frames must lie in 1\.\.7"),
        (breathing, {"noise": -0.1}, "noise must not be negative"),
        (volume, {"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm must be positive"),
        (lung, {"max_motion": -1.0}, "max_motion must not be negative"),
    ],
)
def test_options_that_make_no_sense_are_named(make: Make, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**options)


def test_motion_beyond_what_a_heart_can_do_is_refused() -> None:
    data = cine(max_motion=60.0)
    with pytest.raises(DataError):
        data.load(data.records("test")[0])


@pytest.mark.parametrize(("dataset", "size"), [(PhantomCine, (48, 48)), (PhantomVolume, (20, 20, 20))])
def test_another_contrast_changes_the_moving_image_alone(dataset: type, size: tuple[int, ...]) -> None:
    pairs = {}
    for contrast in ("same", "inverted", "non-monotonic"):
        data = dataset(size=size, contrast=contrast)
        pairs[contrast] = data.load(data.records("test")[0])
    same = pairs["same"]
    top = same.moving.max()
    torch.testing.assert_close(pairs["inverted"].moving, top - same.moving)
    torch.testing.assert_close(pairs["non-monotonic"].moving, (0.7 * top - same.moving).abs())
    for pair in pairs.values():
        assert torch.equal(pair.fixed, same.fixed)
        assert torch.equal(pair.moving_labels, same.moving_labels)
        assert torch.equal(pair.true_displacement, same.true_displacement)
    with pytest.raises(DataError, match="contrast must be one of same, inverted, non-monotonic, got 'negative'"):
        dataset(size=size, contrast="negative")
