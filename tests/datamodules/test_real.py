"""The datasets of real images: the fixed evaluation pairs, exact truths, and options."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy import ndimage

from datamodules.brain_slices import BrainSlices
from datamodules.brain_warp import BrainWarp
from datamodules.cine_sax import CineSax
from datamodules.ct_warp import CtWarp
from datamodules.echo_real import EchoReal
from datamodules.hippocampus import Hippocampus
from datamodules.sunnybrook import Sunnybrook
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError, DataError, MissingExtraError
from reg_bench.types import RegistrationPair

data = pytest.mark.data
FOLDERS = [Hippocampus, Sunnybrook, CineSax, CtWarp, BrainSlices]


def identity_dice(pairs: Iterable[RegistrationPair]) -> dict[int, float]:
    """Mean over the pairs of each label's Dice without registration, in plain NumPy."""
    values: dict[int, list[float]] = {}
    for pair in pairs:
        assert pair.fixed_labels is not None
        assert pair.moving_labels is not None
        for label in pair.label_names or {}:
            a, b = (labels.numpy() == label for labels in (pair.fixed_labels, pair.moving_labels))
            values.setdefault(label, []).append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return {label: float(np.mean(v)) for label, v in values.items()}


def all_test_pairs(module: RegistrationDataModule) -> list[RegistrationPair]:
    return [module.load(record) for record in module.records("test")]


def assert_plain(pair: RegistrationPair) -> None:
    for f in fields(pair):
        value = getattr(pair, f.name)
        if isinstance(value, torch.Tensor):
            assert type(value) is torch.Tensor, f.name
            assert value.is_contiguous(), f.name
    for image in (pair.fixed, pair.moving):
        assert image.dtype == torch.float32
        assert 0 <= float(image.min()) < float(image.max())


@data
def test_hippocampus_identity(data_root: Path) -> None:
    module = Hippocampus(root=data_root / "hippocampus_msd")
    pairs = all_test_pairs(module)
    assert len(pairs) == len(set(module.case_ids("test"))) == 40
    assert {pair.spatial_shape for pair in pairs} == {(48, 64, 48)}
    dice = identity_dice(pairs)
    assert round(float(np.mean(list(dice.values()))), 3) == 0.551
    assert_plain(pairs[0])


@data
def test_hippocampus_pairs_are_the_fixed_ones(data_root: Path) -> None:
    lines = (data_root / "hippocampus_msd" / "split.csv").read_text().split()
    names = sorted(line.split(",")[0][12:15] for line in lines if line.endswith(",test"))
    expected = [f"{names[i]}-{names[(i + step) % 20]}" for step in (1, 7) for i in range(20)]
    assert Hippocampus(root=data_root / "hippocampus_msd").case_ids("test") == expected


@data
def test_hippocampus_matches_and_scales_intensities(data_root: Path) -> None:
    module = Hippocampus(root=data_root / "hippocampus_msd")
    plain = Hippocampus(root=data_root / "hippocampus_msd", match=False)
    apart = []
    for each in (module, plain):
        pair = each.load(each.records("test")[3])
        assert_plain(pair)
        assert float(pair.fixed.max()) == 1
        inside = [image[image > 0].numpy() for image in (pair.fixed, pair.moving)]
        quantiles = [np.quantile(values, np.linspace(0.5, 0.95, 10)) for values in inside]
        apart.append(float(np.abs(quantiles[0] - quantiles[1]).mean()))
    assert apart[0] < 0.5 * apart[1]


@data
def test_hippocampus_affine_is_that_of_the_padded_fixed_image(data_root: Path) -> None:
    module = Hippocampus(root=data_root / "hippocampus_msd", match=False)
    record = module.records("test")[0]
    pair, image = module.load(record), sitk.ReadImage(str(record["fixed"]))
    assert pair.fixed_affine is not None
    # The brightest voxel of the box, taken to the world, and looked up in the file.
    index = np.unravel_index(int(pair.fixed[0, 0].argmax()), pair.spatial_shape)
    ras = pair.fixed_affine[0].numpy() @ [*index, 1]
    found = image.TransformPhysicalPointToIndex((-ras[0], -ras[1], ras[2]))
    values = sitk.GetArrayFromImage(image)
    assert float(image[found]) >= np.percentile(values, 99.5) * (1 - 1e-6)


@data
def test_hippocampus_training_pairs_come_from_their_own_subjects(data_root: Path) -> None:
    root = data_root / "hippocampus_msd"
    lines = (root / "split.csv").read_text().split()
    of = {line.split(",")[0][12:15]: line.split(",")[1] for line in lines[1:]}
    module = Hippocampus(root=root, train_pairs=100, val_pairs=30)
    for split, count in (("train", 100), ("val", 30), ("test", 40)):
        ids = module.case_ids(split)  # type: ignore[arg-type]
        assert len(set(ids)) == count
        members = [tuple(i.split("-")) for i in ids]
        assert {of[subject] for pair in members for subject in pair} == {split}
        assert all(a != b for a, b in members)
    assert module.case_ids("train") == Hippocampus(root=root, train_pairs=100).case_ids("train")
    assert module.case_ids("train") != Hippocampus(root=root, train_pairs=100, seed=1).case_ids("train")
    # 20 subjects make 380 ordered pairs, however many are asked for.
    assert len(Hippocampus(root=root, val_pairs=10**6).case_ids("val")) == 380


@data
def test_sunnybrook_identity(data_root: Path) -> None:
    module = Sunnybrook(root=data_root / "sunnybrook_ed_es")
    pairs = all_test_pairs(module)
    assert len(pairs) == len(set(module.case_ids("test"))) == 68
    assert round(identity_dice(pairs)[1], 3) == 0.758
    assert {pair.spatial_shape for pair in pairs} == {(128, 128)}
    assert pairs[0].fixed_spacing_mm is None
    assert_plain(pairs[0])
    # End-systole is fixed: the cavity is smaller there.
    areas = [[float(m.sum()) for m in (p.fixed_labels, p.moving_labels) if m is not None] for p in pairs]
    assert np.mean([a < b for a, b in areas]) > 0.95
    patients = {split: {i.split("/")[0] for i in module.case_ids(split)} for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert [len(patients[s]) for s in ("train", "val", "test")] == [18, 4, 8]
    assert not patients["train"] & patients["test"]


@data
def test_sunnybrook_axes_are_x_and_y(data_root: Path) -> None:
    module = Sunnybrook(root=data_root / "sunnybrook_ed_es")
    record = module.records("test")[5]
    with np.load(str(record["file"])) as stored:
        rows = stored["mask"][record["index"], 1, 32:160, 32:160]
    labels = module.load(record).fixed_labels
    assert labels is not None
    assert np.array_equal(labels[0, 0].numpy().T, rows)


@data
def test_cine_sax_identity(data_root: Path) -> None:
    pairs = all_test_pairs(CineSax(root=data_root / "cine_sax_pig", phases=(11,)))
    assert len(pairs) == 11
    dice = identity_dice(pairs)
    assert [round(dice[1], 3), round(dice[2], 3)] == [0.837, 0.644]
    assert round(float(np.mean(list(dice.values()))), 3) == 0.741
    assert_plain(pairs[0])
    assert pairs[0].fixed_spacing_mm is not None
    torch.testing.assert_close(pairs[0].fixed_spacing_mm, torch.full((1, 2), 0.8203), atol=1e-4, rtol=0)


@data
def test_cine_sax_sequence_and_options(data_root: Path) -> None:
    root = data_root / "cine_sax_pig"
    assert len(CineSax(root=root).case_ids("test")) == 11 * 19
    module = CineSax(root=root, slices=(8,), phases=(3, 11))
    assert module.case_ids("test") == ["slice08/003", "slice08/011"]
    record = module.records("test")[1]
    sequence = module.sequence(record)
    assert sequence.frames.shape == (1, 20, 1, 144, 144)
    assert sequence.labelled_frames == tuple(range(20))
    pair = module.load(record)
    assert torch.equal(pair.fixed, sequence.frames[:, 11])
    assert torch.equal(pair.moving, sequence.frames[:, 0])
    assert pair.frames == (11,)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(record["labels"])))
    assert pair.fixed_labels is not None
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), stored[11, 8].T)
    with pytest.raises(ConfigError, match=r"phases must lie in 1\.\.19, got 20"):
        CineSax(root=root, phases=(20,))
    with pytest.raises(DataError, match="split 'train' is empty"):
        module.case_ids("train")


@data
@pytest.mark.parametrize("case", ["pd-shift", "pd-rotation", "t1-shift", "t1-rotation"])
def test_brain_slices_truth_holds(case: str, data_root: Path) -> None:
    """The moving picture pulled by the truth, with SciPy, is the PD slice."""
    module = BrainSlices(root=data_root / "brain2d_itk")
    pair = module.case(case)
    assert pair.true_displacement is not None
    assert pair.mask is not None
    assert pair.spatial_shape == (221, 257)
    u, inside = pair.true_displacement[0].numpy(), pair.mask[0, 0].numpy()
    places = np.indices(pair.spatial_shape) + u
    pulled = ndimage.map_coordinates(pair.moving[0, 0].numpy().astype(float), places, order=1, mode="nearest")
    reference = module.case("pd-shift").fixed[0, 0].numpy()
    assert np.corrcoef(pulled[inside], reference[inside])[0, 1] > (0.9999 if case.endswith("shift") else 0.98)
    if case.endswith("shift"):
        assert np.allclose(u[0], 13)
        assert np.allclose(u[1], 17)
        assert np.array_equal(reference[20:150, 20:150], pair.moving[0, 0].numpy()[33:163, 37:167])
    assert pair.points is not None
    sets = pair.points["landmarks"]
    carried = [ndimage.map_coordinates(c, sets.fixed[0].numpy().T, order=1) for c in u]
    np.testing.assert_allclose(sets.moving[0].numpy(), sets.fixed[0].numpy() + np.array(carried).T, atol=1e-3)


@data
def test_brain_slices_rotation_is_that_of_simpleitk(data_root: Path) -> None:
    pair = BrainSlices(root=data_root / "brain2d_itk").case("pd-rotation")
    transform = sitk.Euler2DTransform((110.0, 128.0), np.radians(10.0), (13.09, 15.92))
    assert pair.true_displacement is not None
    for x, y in ((0, 0), (200, 30), (57, 240)):
        expected = np.array(transform.TransformPoint((float(x), float(y)))) - (x, y)
        np.testing.assert_allclose(pair.true_displacement[0, :, x, y].numpy(), expected, atol=1e-4)


def test_brain_slices_knows_its_cases() -> None:
    with pytest.raises(DataError, match="no case 'pd-shfit'; there are pd-shift"):
        BrainSlices(cases=("pd-shfit",))


def assert_truth(pair: RegistrationPair, *, exact: bool) -> None:
    """Fixed is the moving image pulled by the truth, labels and landmarks likewise; by SciPy."""
    assert pair.true_displacement is not None
    assert pair.mask is not None
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    assert pair.points is not None
    u = pair.true_displacement[0].numpy().astype(float)
    places = np.indices(pair.spatial_shape) + u
    pulled = ndimage.map_coordinates(pair.moving[0, 0].numpy().astype(float), places, order=1, mode="nearest")
    fixed, inside = pair.fixed[0, 0].numpy(), pair.mask[0, 0].numpy()
    if exact:
        np.testing.assert_allclose(pulled, fixed, atol=1e-4)
    else:
        assert np.corrcoef(pulled[inside], fixed[inside])[0, 1] > 0.9
        assert np.abs(pulled - fixed).max() > 0.02
    labels = pair.moving_labels[0, 0].numpy()
    near = labels[
        tuple(np.clip(np.floor(p + 0.5).astype(int), 0, n - 1) for p, n in zip(places, labels.shape, strict=True))
    ]
    assert (near == pair.fixed_labels[0, 0].numpy()).mean() > 0.9999
    sets = pair.points["landmarks"]
    carried = [ndimage.map_coordinates(c, sets.fixed[0].numpy().T.astype(float), order=1) for c in u]
    np.testing.assert_allclose(sets.moving[0].numpy(), sets.fixed[0].numpy() + np.array(carried).T, atol=1e-3)
    jacobian = np.stack([np.stack(np.gradient(c)) for c in u]).transpose(2, 3, 4, 0, 1) + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0


def test_brain_warp() -> None:
    pytest.importorskip("nilearn")
    exact = BrainWarp(resolution_mm=4, cases=2, contrast=0, bias=0, noise=0)
    changed = BrainWarp(resolution_mm=4, cases=2)
    first, second = (all_test_pairs(module) for module in (exact, changed))
    for a, b in zip(first, second, strict=True):
        assert_truth(a, exact=True)
        assert_truth(b, exact=False)
        assert_plain(b)
        assert torch.equal(a.true_displacement, b.true_displacement)
    assert not torch.equal(first[0].true_displacement, first[1].true_displacement)
    assert exact.checksum() != changed.checksum()
    again = BrainWarp(resolution_mm=4, cases=2).case("test-001")
    assert torch.equal(again.fixed, second[1].fixed)
    # Identity leaves room, and the warp stays within what was asked for.
    assert 0.4 < np.mean(list(identity_dice(second).values())) < 0.75
    lengths = [
        float(torch.linalg.vector_norm(p.true_displacement, dim=1).max())
        for p in second
        if p.true_displacement is not None
    ]
    assert all(0.6 * 3 <= length <= 3.001 for length in lengths)


def test_brain_warp_splits_are_different_deformations() -> None:
    pytest.importorskip("nilearn")
    module = BrainWarp(resolution_mm=4, cases=1)
    pairs = [module.load(module.records(split)[0]) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    assert len({float(p.true_displacement.sum()) for p in pairs if p.true_displacement is not None}) == 3
    assert len(module.case_ids("train")) == 4


def test_brain_warp_lies_in_mni_space() -> None:
    """The voxel at the origin of MNI space (the anterior commissure) is inside the brain, at any resolution."""
    pytest.importorskip("nilearn")
    module = BrainWarp(resolution_mm=4, cases=1, max_displacement_mm=0.0, noise=0, bias=0, contrast=0)
    pair = module.case("test-000")
    assert pair.moving_affine is not None
    template = importlib.import_module("nilearn.datasets").load_mni152_template(resolution=1)
    values, to_voxel = template.get_fdata(), np.linalg.inv(template.affine)
    affine = pair.moving_affine[0].numpy()
    for index in ((20, 25, 20), (15, 30, 25), (22, 12, 14)):
        centre = to_voxel @ affine @ [*index, 1]
        block = tuple(slice(round(c - 1.5), round(c + 2.5)) for c in centre[:3])
        assert abs(values[block].mean() - float(pair.moving[0, 0][index])) < 0.01


def test_brain_warp_without_nilearn_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.brain_warp.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'regbench-suite\[demo\]'"):
        BrainWarp().records("test")


@data
def test_ct_warp(data_root: Path) -> None:
    pair = CtWarp(root=data_root / "ct_abdomen", cases=1).case("test-000")
    assert_truth(pair, exact=False)
    assert_plain(pair)
    assert len(pair.label_names or {}) == 61
    assert pair.points is not None
    assert pair.points["landmarks"].fixed[0].shape == (100, 3)
    assert pair.mask is not None
    nearest = pair.points["landmarks"].fixed[0].round().long()
    assert bool(pair.mask[0, 0][tuple(nearest.T)].all())
    assert 0.5 < np.mean(list(identity_dice([pair]).values())) < 0.85


@data
@pytest.mark.slow
def test_ct_warp_is_like_breathing_in(data_root: Path) -> None:
    """Tissue comes from above (+z is the head), least in the pelvis and at the back."""
    pair = CtWarp(root=data_root / "ct_abdomen", cases=1, random_share=0.0, noise=0).case("test-000")
    assert_truth(pair, exact=True)
    assert pair.true_displacement is not None
    assert pair.mask is not None
    upwards = pair.true_displacement[0, 2].clone()
    upwards[~pair.mask[0, 0]] = torch.nan
    assert float(upwards.nan_to_num().min()) > -0.1
    height = [float(part.nanmean()) for part in upwards.tensor_split(4, dim=2)]
    assert height[2] > 5 * height[0]
    # Index 1 runs to the front, for the affine is RAS and its diagonal positive.
    back, front = (float(part.nanmean()) for part in upwards.tensor_split(2, dim=1))
    assert front > 1.2 * back


def test_echo_real() -> None:
    module = EchoReal()
    assert module.case_ids("test") == [f"echo/{t:03d}" for t in range(1, 30)]
    assert EchoReal(frames=4).case_ids("test") == ["echo/007", "echo/014", "echo/022", "echo/029"]
    sequence = module.sequence()
    assert sequence.frames.shape == (1, 30, 1, 176, 176)
    pair = module.case("echo/014")
    assert torch.equal(pair.fixed, sequence.frames[:, 14])
    assert torch.equal(pair.moving, sequence.frames[:, 0])
    assert_plain(pair)
    assert pair.fixed_spacing_mm is not None
    torch.testing.assert_close(pair.fixed_spacing_mm, torch.full((1, 2), 1.021))
    assert pair.fixed_labels is None
    assert pair.points is None
    for frames in (0, 30):
        with pytest.raises(ConfigError, match=r"frames must lie in 1\.\.29"):
            EchoReal(frames=frames)


def test_echo_real_shows_rows_and_columns_that_were_asked_for() -> None:
    """Against pydicom's own conversion to RGB, cropped by hand."""
    from pydicom import examples

    rgb = examples.ybr_color.pixel_array[:, 28:204, 75:251].astype(float)
    grey = (rgb @ [0.299, 0.587, 0.114]).swapaxes(1, 2)
    frames = EchoReal().sequence().frames[0, :, 0].numpy().astype(float)
    assert np.corrcoef(frames.ravel(), grey.ravel())[0, 1] > 0.98
    darkest = grey < np.percentile(grey, 60)
    assert frames[darkest].mean() < 0.1 * frames[~darkest].mean()


def test_echo_real_mask_is_the_scanned_sector() -> None:
    sequence = EchoReal().sequence()
    assert sequence.mask is not None
    inside = sequence.mask[0, 0, 0].numpy()
    assert 0.5 < inside.mean() < 0.8
    assert ndimage.label(inside)[1] == 1
    brightest = sequence.frames[0, :, 0].amax(dim=0).numpy()
    assert brightest[~inside].mean() < 0.05 < brightest[inside].mean()
    # The corners of the picture lie outside the fan.
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()


@pytest.mark.parametrize("cls", FOLDERS)
def test_missing_folder_is_named(cls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"absent.*does not exist"):
        cls(root=tmp_path / "absent").records("test")
    monkeypatch.setenv("REG_BENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{cls.folder}.*does not exist"):
        cls().records("test")
    monkeypatch.delenv("REG_BENCH_DATA")
    with pytest.raises(DataError, match=r"--data\.root DIR, or set REG_BENCH_DATA"):
        cls().records("test")


@pytest.mark.parametrize("cls", FOLDERS)
def test_missing_file_is_named(cls: Any, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("file,patient,split,slices\na.nii.gz,P1,test,2\n")
    with pytest.raises(DataError, match=f"(?s){cls.name}.*missing"):
        cls(root=tmp_path).records("test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,split\nP1,tset\n", "line 2: split must be one of train, val, test, got 'tset'"),
        ("patient,split\nP1,test\nP1,val\n", "line 3: 'P1' occurs twice"),
        ("subject,split\nP1,test\n", "no column 'patient'"),
    ],
)
def test_bad_split_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        Sunnybrook(root=tmp_path).records("test")
    assert "split.csv" in str(error.value)


@data
@pytest.mark.parametrize("cls", [*FOLDERS, EchoReal])
def test_checksum_does_not_depend_on_where_the_data_lies(
    cls: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REG_BENCH_DATA", str(data_root))
    checksum = cls().checksum()
    assert len(checksum) == 16
    if cls.folder:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.symlink_to(data_root / cls.folder)
        assert cls(root=elsewhere).checksum() == checksum


@data
@pytest.mark.parametrize("cls", [Sunnybrook, BrainSlices])
def test_disk_cache_gives_the_same_cases(cls: Any, data_root: Path, tmp_path: Path) -> None:
    root = data_root / cls.folder
    plain = cls(root=root)
    cached = cls(root=root, cache="disk", cache_dir=str(tmp_path))
    for _ in range(2):
        pair = cached.dataset("test", plain.case_ids("test")[:1])[0]
        expected = plain.case(pair.case_ids[0])
        assert_plain(pair)
        assert torch.equal(pair.fixed, expected.fixed)
        assert (pair.label_names, pair.fixed_spacing_mm is None) == (
            expected.label_names,
            expected.fixed_spacing_mm is None,
        )
