"""ACDC: a synthetic twin in the layout of the challenge, read back, and every fault planted in a copy."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from datamodules.acdc import ACDC
from reg_bench.cli import main
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import Inspection, inspect

SHAPE, FRAMES = (30, 26, 4), 7
GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
# As in the original, ED is mostly but not always the first frame; one patient has it after ES.
ED_ES = {1: (1, 4), 2: (1, 5), 3: (7, 3)}


def affine(number: int) -> np.ndarray:
    """Oblique, anisotropic, another one for each patient."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.1 * number).GetMatrix()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(turn, (3, 3)) * (1.5 + number / 100, 1.25, 10.0)
    matrix[:3, 3] = (-40, 20 + number, 7)
    return matrix


def labels_of(number: int, t: int) -> np.ndarray:
    """Right ventricle 1, wall 2, cavity 3; contracting over time; slice 0 empty at end-systole, 3 always."""
    x, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = abs((t - (ED_ES.get(number, (1, 4))[0] - 1)) % FRAMES - FRAMES / 2) / (FRAMES / 2)
    labels = np.zeros(SHAPE, np.uint8)
    for z in range(3):
        radius = np.hypot(x - 17 - number % 2, y - 13)
        labels[:, :, z][np.hypot(x - 8, y - 12) < 3 + 2 * phase] = 1
        labels[:, :, z][radius < 7 + phase] = 2
        labels[:, :, z][radius < 3 + 2 * phase] = 3
    if t != ED_ES.get(number, (1, 4))[0] - 1:
        labels[:, :, 0] = 0
    return labels


def series_of(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    brightness = np.array([100, 350, 120, 420])
    frames = [brightness[labels_of(number, t)] + rng.normal(0, 8, SHAPE) + np.arange(SHAPE[0])[:, None, None]
              for t in range(FRAMES)]  # fmt: skip
    return np.stack(frames, axis=-1).astype(np.int16)


def save(path: Path, array: np.ndarray, number: int, seconds: float | None = None) -> None:
    image = nib.Nifti1Image(array, affine(number))
    image.header.set_xyzt_units("mm", "sec")
    if seconds is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], seconds))
    nib.save(image, path)


def info(folder: Path, **entries: object) -> None:
    number = int(folder.name.removeprefix("patient"))
    ed, es = ED_ES.get(number, (1, 4))
    lines = {"ED": ed, "ES": es, "Group": GROUPS[number % 5], "Height": 184.0, "NbFrame": FRAMES, "Weight": 95.0}
    lines = {key: value for key, value in (lines | entries).items() if value is not None}
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def patient(root: Path, part: str, number: int) -> Path:
    name = f"patient{number:03d}"
    folder = root / part / name
    folder.mkdir(parents=True)
    info(folder)
    series = series_of(number)
    # Patient 1 has a believable time between frames, the others the filling value of one second.
    save(folder / f"{name}_4d.nii.gz", series, number, 0.04 if number == 1 else 1.0)
    for frame in ED_ES.get(number, (1, 4)):
        save(folder / f"{name}_frame{frame:02d}.nii.gz", series[..., frame - 1], number)
        save(folder / f"{name}_frame{frame:02d}_gt.nii.gz", labels_of(number, frame - 1), number)
    return folder


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("acdc")
    for number in range(1, 11):
        patient(root, "training", number)
    for number in (101, 102):
        patient(root, "testing", number)
    for part in ("training", "testing"):
        (root / part / "MANDATORY_CITATION.md").write_text("Please cite ...")
    return root


@pytest.fixture
def faulty(twin: Path, tmp_path: Path) -> Path:
    """A copy of three training patients and one for test, to be spoilt."""
    for name in ("training/patient001", "training/patient002", "training/patient003", "testing/patient101"):
        shutil.copytree(twin / name, tmp_path / "faulty" / name)
    return tmp_path / "faulty"


def checked(root: Path, **options: Any) -> Inspection:
    return inspect(build_datamodule({"class_path": "acdc", "init_args": options}, root=root))


def faults(root: Path, **options: Any) -> list[str]:
    return [str(f) for f in checked(root, **options).faults]


@pytest.mark.parametrize(("dimension", "each"), [(2, 2), (3, 1)])
def test_check_of_a_sound_folder(dimension: int, each: int, twin: Path) -> None:
    result = checked(twin, dimension=dimension)
    assert result.findings == []
    assert result.subjects == {"train": 8, "val": 2, "test": 2}
    assert result.cases == {"train": 8 * each, "val": 2 * each, "test": 2 * each}
    assert result.loaded == result.frames == 12 * each
    assert result.labels == {f"{k}": 12 * each for k in ("1 right ventricle", "2 myocardium", "3 left ventricle")}
    counts = result.survey.counts
    assert counts["patients"] == 12
    assert {k: counts[f"group {k}"] for k in GROUPS} == {"DCM": 2, "HCM": 3, "MINF": 3, "NOR": 2, "RV": 2}
    if dimension == 2:
        assert counts["slices"] == 48
        assert counts["slices left out without labels in both frames"] == 24
        assert result.shapes == {"30 x 26": 24}
        assert result.spacings["1.51 x 1.25 mm"] == 2


@pytest.mark.parametrize("number", [1, 3])
def test_volume_is_what_was_put_in(number: int, twin: Path) -> None:
    data = ACDC(root=twin, dimension=3)
    records = {r["subjects"][0]: (r, s) for s in ("train", "val", "test") for r in data.records(s)}  # type: ignore[arg-type]
    record, split = records[f"patient{number:03d}"]
    ed, es = ED_ES[number]
    assert record["case_id"] == f"patient{number:03d}/{es - 1:03d}"
    pair = data.case(record["case_id"], split)  # type: ignore[arg-type]
    both = series_of(number)[..., [es - 1, ed - 1]].astype(float)
    expected = np.clip((both - both.min()) / (np.percentile(both, 99.5) - both.min()), 0, 1)
    np.testing.assert_allclose(pair.fixed[0, 0].numpy(), expected[..., 0], atol=1e-5)
    np.testing.assert_allclose(pair.moving[0, 0].numpy(), expected[..., 1], atol=1e-5)
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), labels_of(number, es - 1))
    assert np.array_equal(pair.moving_labels[0, 0].numpy(), labels_of(number, ed - 1))
    assert pair.frames == (es - 1,)
    assert pair.fixed_affine is not None
    np.testing.assert_allclose(pair.fixed_affine[0].numpy(), affine(number), atol=1e-5)
    header = sitk.ReadImage(record["fixed"])
    corner = np.array([*header.TransformIndexToPhysicalPoint([n - 1 for n in SHAPE])]) * (-1, -1, 1)
    ours = pair.fixed_affine[0].numpy() @ [*(n - 1 for n in SHAPE), 1]
    np.testing.assert_allclose(ours[:3], corner, atol=1e-3)
    assert pair.fixed_spacing_mm is not None
    assert pair.fixed_spacing_mm[0].tolist() == pytest.approx([1.5 + number / 100, 1.25, 10.0], abs=1e-5)


def test_slices_are_those_with_labels_in_both_frames(twin: Path) -> None:
    data = ACDC(root=twin)
    assert data.case_ids("test") == [f"patient{n}/slice{z:02d}/003" for n in (101, 102) for z in (1, 2)]
    pair = data.case("patient101/slice02/003")
    assert pair.fixed_labels is not None
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), labels_of(101, 3)[:, :, 2])
    both = series_of(101)[:, :, 2, [3, 0]].astype(float)
    expected = np.clip((both - both.min()) / (np.percentile(both, 99.5) - both.min()), 0, 1)
    np.testing.assert_allclose(pair.fixed[0, 0].numpy(), expected[..., 0], atol=1e-5)
    assert pair.label_names == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}


def test_frames_can_be_exchanged(twin: Path) -> None:
    forth = ACDC(root=twin).case("patient101/slice01/003")
    back = ACDC(root=twin, fixed="ED").case("patient101/slice01/000")
    assert torch.equal(forth.fixed, back.moving)
    assert torch.equal(forth.moving, back.fixed)
    assert forth.fixed_labels is not None
    assert back.moving_labels is not None
    assert torch.equal(forth.fixed_labels, back.moving_labels)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("number", [1, 3])
def test_sequence_holds_all_frames_and_two_label_maps(dimension: int, number: int, twin: Path) -> None:
    data = ACDC(root=twin, dimension=dimension, val_share=0)  # type: ignore[arg-type]
    record = next(r for r in data.sequence_records("train") if r["subjects"] == [f"patient{number:03d}"])
    sequence = data.sequence(record)
    stored = series_of(number) if dimension == 3 else series_of(number)[:, :, 1]
    expected = np.clip((stored - stored.min()) / (np.percentile(stored, 99.5) - stored.min()), 0, 1)
    np.testing.assert_allclose(sequence.frames[0, :, 0].numpy(), np.moveaxis(expected, -1, 0), atol=1e-5)
    ed, es = (frame - 1 for frame in ED_ES[number])
    assert sequence.reference == ed
    assert sequence.labelled_frames == tuple(sorted((ed, es)))
    assert sequence.seconds_per_frame == pytest.approx(0.04 if number == 1 else 1 / FRAMES)
    pair, case = sequence.pair(es), data.load(record)
    assert pair.case_ids == case.case_ids
    for role in ("fixed_labels", "moving_labels", "fixed_spacing_mm", "fixed_affine"):
        assert torch.allclose(getattr(pair, role), getattr(case, role), atol=1e-5), role
    assert ACDC(root=twin, seconds_per_frame=0.03, val_share=0).sequence(
        next(iter(ACDC(root=twin, val_share=0).records("train")))
    ).seconds_per_frame == pytest.approx(0.03)


def test_val_is_drawn_from_every_group_with_the_seed(twin: Path) -> None:
    people = ACDC(root=twin, val_share=0.5).subjects()
    group = {f"patient{n:03d}": GROUPS[n % 5] for n in range(1, 103)}
    assert sorted(group[p] for p in people["val"]) == sorted(GROUPS)
    assert sorted(group[p] for p in people["train"]) == sorted(GROUPS)
    assert people["test"] == ["patient101", "patient102"]
    assert ACDC(root=twin, val_share=0.5).subjects() == people
    assert any(ACDC(root=twin, val_share=0.5, seed=s).subjects() != people for s in range(1, 5))


def test_folder_above_and_folder_of_patients(twin: Path, tmp_path: Path) -> None:
    """The archive unpacks to `database/training`; `root` may be what holds it."""
    (tmp_path / "database").symlink_to(twin)
    assert ACDC(root=tmp_path).case_ids("test") == ACDC(root=twin).case_ids("test")
    people = ACDC(root=twin / "training").subjects()
    assert [len(people[s]) for s in ("train", "val", "test")] == [6, 2, 2]
    notes = [str(f) for f in ACDC(root=twin / "training").survey().findings]
    assert notes == ["no folder testing: 2 of 10 patients are held out for test"]


def test_unpacked_files_serve_as_well(faulty: Path) -> None:
    before = ACDC(root=faulty).case("patient101/slice01/003")
    for path in faulty.rglob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert faults(faulty) == []
    assert torch.equal(ACDC(root=faulty).case("patient101/slice01/003").fixed, before.fixed)


def test_options_that_cannot_be() -> None:
    for options, words in (
        ({"dimension": 4}, "dimension must be 2 or 3"),
        ({"fixed": "es"}, "fixed must be 'ES' or 'ED'"),
        ({"val_share": 1.0}, "val_share must lie in"),
        ({"seconds_per_frame": 0.0}, "must be positive"),
    ):
        with pytest.raises(ConfigError, match=words):
            ACDC(**options)  # type: ignore[arg-type]


def test_no_folder_tells_where_to_obtain_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"creatis[^$]*patientNNN_frameMM_gt\.nii\.gz"):
        ACDC(root=tmp_path / "nowhere").records("test")
    (found,) = faults(tmp_path)
    assert found.startswith("no folder training/patientNNN or testing/patientNNN")


def cut(path: Path, share: float = 0.6) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


ONE = "training/patient001"
CFG, SERIES = f"{ONE}/Info.cfg", f"{ONE}/patient001_4d.nii.gz"
ED, ES = f"{ONE}/patient001_frame01.nii.gz", f"{ONE}/patient001_frame04.nii.gz"
ED_GT, ES_GT = f"{ONE}/patient001_frame01_gt.nii.gz", f"{ONE}/patient001_frame04_gt.nii.gz"


def nan_voxel(path: Path) -> None:
    image = series_of(1)[..., 3].astype(np.float32)
    image[1, 2, 1] = np.nan
    save(path, image, 1)


def zero_spacing(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = np.float32(0).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def seven(root: Path) -> None:
    labels = labels_of(1, 3)
    labels[3, 3, 1] = 7
    save(root / ES_GT, labels, 1)


FAULTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "no Info.cfg": (lambda r: (r / CFG).unlink(), (CFG, "missing; it says which frames are ED and ES")),
    "no ED": (lambda r: info(r / ONE, ED=None), (CFG, "no line `ED: <number>`")),
    "no ES": (lambda r: info(r / ONE, ES=None), (CFG, "no line `ES: <number>`")),
    "ES no number": (lambda r: info(r / ONE, ES="twelve"), (CFG, "ES is 'twelve', expected a number from 1")),
    "ED counted from 0": (lambda r: info(r / ONE, ED=0), (CFG, "ED is '0', expected a number from 1")),
    "ED and ES the same": (lambda r: info(r / ONE, ES=1), (CFG, "ED and ES are the same frame 1")),
    "ES beyond NbFrame": (lambda r: info(r / ONE, NbFrame=3), (CFG, "ES is frame 4, NbFrame only 3")),
    "ES beyond the series": (
        lambda r: save(r / SERIES, series_of(1)[..., :3], 1),
        (SERIES, "holds 3 frames; ES is frame 4 in Info.cfg"),
    ),
    "another ES": (lambda r: info(r / ONE, ES=5), (f"{ONE}/patient001_frame05.nii.gz", "missing", "ES is frame 5")),
    "no image": (lambda r: (r / ED).unlink(), (ED, "missing; Info.cfg says that ED is frame 1")),
    "no labels": (lambda r: (r / ES_GT).unlink(), (ES_GT, "missing; Info.cfg says that ES is frame 4")),
    "no series": (lambda r: (r / SERIES).unlink(), (SERIES, "no such file")),
    "truncated image": (lambda r: cut(r / ES), (ES, "truncated")),
    "truncated labels": (lambda r: cut(r / ED_GT), (ED_GT, "truncated")),
    "truncated series": (lambda r: cut(r / SERIES), (SERIES, "truncated")),
    "no NIfTI": (lambda r: (r / ED).write_text("no image"), (ED, "unreadable")),
    "labels of another size": (
        lambda r: save(r / ED_GT, labels_of(1, 0)[:, :, :3], 1),
        (ED_GT, "labels of (30, 26, 3) voxels, their image has (30, 26, 4)"),
    ),
    "frames of unequal size": (
        lambda r: (save(r / ES, series_of(1)[1:, ..., 3], 1), save(r / ES_GT, labels_of(1, 3)[1:], 1)),
        (ES, "expected frames of one series"),
    ),
    "series of another size": (lambda r: save(r / SERIES, series_of(1)[:, :-1], 1), (SERIES, "frames of (30, 25, 4)")),
    "series of three axes": (lambda r: save(r / SERIES, series_of(1)[..., 0], 1), (SERIES, "3 axes", "expected 4")),
    "unknown labels": (seven, (ES_GT, "unknown labels [7]; expected 0 to 3")),
    "fractional labels": (lambda r: save(r / ED_GT, labels_of(1, 0) * 0.5, 1), (ED_GT, "whole numbers")),
    "no label at all": (lambda r: save(r / ED_GT, labels_of(1, 0) * 0, 1), (ED_GT, "holds no label")),
    "NaN voxel": (lambda r: nan_voxel(r / ES), ("case patient001/slice01/003", ES, "NaN")),
    "constant image": (
        lambda r: save(r / ED, np.full(SHAPE, 5, np.int16), 1),
        ("case patient001/slice01/003", ED, "constant"),
    ),
    "NaN voxel in the series": (
        lambda r: save(r / SERIES, np.where(np.indices(series_of(1).shape).sum(0) == 9, np.nan, series_of(1)), 1),
        (SERIES, "voxels are NaN"),
    ),
    "constant frame in the series": (
        lambda r: save(r / SERIES, series_of(1) * np.arange(FRAMES, dtype=np.int16), 1),
        (SERIES, "frame 0 (from 0) is constant, every voxel is 0"),
    ),
    "zero spacing": (lambda r: zero_spacing(r / ED), (ED, "zero spacing")),
    "patient in both folders": (
        lambda r: shutil.copytree(r / ONE, r / "testing" / "patient001"),
        ("testing/patient001", "is in both folders, also as training/patient001"),
    ),
    "testing without patients": (
        lambda r: (r / "testing" / "patient101").rename(r / "testing" / "p101"),
        ("testing", "holds no folder patientNNN"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_file(fault: str, faulty: Path) -> None:
    plant, words = FAULTS[fault]
    plant(faulty)
    found = faults(faulty, val_share=0.4)
    assert any(all(w in f for w in words) for f in found), found


def test_all_faults_are_listed_at_once(faulty: Path) -> None:
    (faulty / ES_GT).unlink()
    info(faulty / "training/patient002", ES=None)
    cut(faulty / "training/patient003/patient003_frame03.nii.gz")
    shutil.copytree(faulty / ONE, faulty / "testing/patient001")
    nan_voxel(faulty / "testing/patient101/patient101_frame04.nii.gz")
    found = faults(faulty)
    truncated = "frame03.nii.gz: unreadable or truncated"
    for words in (ES_GT, "patient002/Info.cfg: no line `ES", truncated, "both folders", "NaN"):
        assert any(words in f for f in found), (words, found)
    with pytest.raises(DataError, match=r"4 faults in[^$]*patient002[^$]*"):
        ACDC(root=faulty).records("test")


def test_harmless_oddities_are_notes(faulty: Path) -> None:
    info(faulty / ONE, NbFrame=FRAMES + 2, Group=None)
    info(faulty / "training/patient002", NbFrame=None)
    path = faulty / "training/patient003/patient003_frame03_gt.nii.gz"
    save(path, labels_of(3, 2), 4)
    result = checked(faulty)
    assert result.faults == []
    notes = [str(f) for f in result.findings]
    for words in (
        f"{SERIES}: holds 7 frames, Info.cfg says NbFrame 9; ED and ES are inside",
        f"{CFG}: no line `Group: <name>`",
        "patient002/Info.cfg: no line `NbFrame: <number>`",
        "patient003_frame03_gt.nii.gz: its header places it elsewhere than its image",
    ):
        assert any(words in n for n in notes), (words, notes)


def test_without_any_series_pairs_can_be_had(faulty: Path) -> None:
    for path in faulty.rglob("*_4d.nii.gz"):
        path.unlink()
    result = checked(faulty)
    assert result.faults == []
    assert ["there is no patientNNN_4d.nii.gz" in str(f) for f in result.findings] == [True]
    data = ACDC(root=faulty)
    with pytest.raises(DataError, match=r"patient101_4d\.nii\.gz: no such file"):
        data.sequence(data.records("test")[0])


@pytest.mark.usefixtures("in_this_process")
def test_command_line(twin: Path, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit statuses of `data check`, the picture, and a run of the suite: slices and volumes."""
    arguments = ["data", "check", "acdc", "--out", str(tmp_path / "check")]
    assert main([*arguments, "--root", str(twin), "--pictures", "1", "--limit", "1"]) == 0
    assert "3 cases loaded, no fault" in capsys.readouterr().out
    assert len(list((tmp_path / "check").glob("case-patient*.png"))) == 1
    (faulty / CFG).unlink()
    assert main([*arguments, "--root", str(faulty)]) == 1
    assert main([*arguments, "--root", str(tmp_path / "nowhere")]) == 2

    run = ["run", "acdc", "--data.root", str(twin), "--out", str(tmp_path / "run"), "--limit", "2"]
    assert main([*run, "--methods", "identity,demons-symmetric"]) == 0
    lines = [json.loads(line) for f in (tmp_path / "run").rglob("rows*.jsonl") for line in f.read_text().splitlines()]
    rows = [line for line in lines if line.get("status") not in (None, "started")]
    assert Counter(row["key"]["task"] for row in rows) == {"slices": 4, "volumes": 4, "stream": 12}
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.data
def test_real_cine_in_the_layout_of_the_challenge(data_root: Path, tmp_path: Path) -> None:
    """The short-axis cine as patient 1: all phases, labels at phase 0 and 11."""
    series = nib.load(data_root / "cine_sax_pig" / "cine_sax.nii.gz")
    labels = nib.load(data_root / "cine_sax_pig" / "lv_labels.nii.gz")
    folder = tmp_path / "testing" / "patient001"
    folder.mkdir(parents=True)
    shutil.copy(data_root / "cine_sax_pig" / "cine_sax.nii.gz", folder / "patient001_4d.nii.gz")
    (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: NOR\nHeight: 100.0\nNbFrame: 20\nWeight: 30.0\n")
    images, maps = np.asarray(series.dataobj), np.asarray(labels.dataobj)
    renamed = np.array([0, 3, 2], np.uint8)[maps]
    for t in (0, 11):
        name = f"patient001_frame{t + 1:02d}"
        nib.save(nib.Nifti1Image(images[..., t], series.affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(renamed[..., t], series.affine), folder / f"{name}_gt.nii.gz")
    result = checked(tmp_path, dimension=3)
    assert result.faults == []
    assert result.spacings == {"0.8203 x 0.8203 x 5 mm": 1}
    data = ACDC(root=tmp_path, dimension=3)
    pair = data.case("patient001/011")
    assert pair.fixed_labels is not None
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), renamed[..., 11])
    assert pair.fixed_affine is not None
    np.testing.assert_allclose(pair.fixed_affine[0].numpy(), series.affine, atol=1e-3)
    sequence = data.sequence(data.records("test")[0])
    assert sequence.frames.shape == (1, 20, 1, 144, 144, 20)
    scale = np.percentile(images, 99.5) - images.min()
    expected = np.clip((images[..., 7].astype(float) - images.min()) / scale, 0, 1)
    np.testing.assert_allclose(sequence.frames[0, 7, 0].numpy(), expected, atol=1e-4)
