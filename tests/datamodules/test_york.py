"""York cardiac MR: a synthetic twin in the original MAT files, read back, and every fault planted in a copy."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from scipy import io as scipy_io

from datamodules.york import York
from reg_bench.cli import main
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError, DataError, MissingExtraError
from reg_bench.inspection import Inspection, inspect

ROWS, COLUMNS, SLICES, FRAMES = 44, 36, 6, 5
Cells = np.ndarray


def ring(centre: tuple[float, float], radius: float, points: int = 32) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + 0.8 * radius * np.sin(angle)], axis=1)


def contours(number: int, z: int, t: int) -> np.ndarray:
    """65 x 2 as in the original: endocardium, a row of zeros, epicardium; x, y counted from 1."""
    centre = (16.3 + number / 3, 23.7 + z / 4)
    inner = 8 - t % 4 + number / 7
    return np.concatenate([ring(centre, inner), [[0, 0]], ring(centre, inner + 4.2)])


def subject(number: int) -> tuple[np.ndarray, Cells]:
    """Images far above 255 in the order y, x, z, t, and the cells of contours; none at the ends of the stack."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    images = np.zeros((ROWS, COLUMNS, SLICES, FRAMES), np.int16)
    cells = np.empty((SLICES, FRAMES), dtype=object)
    for z, t in np.ndindex(SLICES, FRAMES):
        drawn = contours(number, z, t)
        inside = Outline(drawn[:32]).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
        images[:, :, z, t] = 200 + 900 * inside + 5 * x + 3 * y + rng.normal(0, 10, x.shape)
        cells[z, t] = drawn if 0 < z < SLICES - 1 and (number, z, t) != (2, 4, 3) else np.array([[-99999.0]])
    return images, cells


def save_v5(folder: Path, number: int, images: np.ndarray, cells: Cells, *, packed: bool = True) -> None:
    for kind, name, values in (
        ("mrimages", "sol_yxzt", images),
        ("manual_seg", "manual_seg_32points", cells),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        path = folder / kind / f"{name}_pat{number}.mat"
        scipy_io.savemat(path, {name: values}, do_compression=packed)


def save_v73(folder: Path, number: int, images: np.ndarray, cells: Cells) -> None:
    """As MATLAB writes `-v7.3`: axes reversed, cells as references into #refs#, 512 bytes of header in front."""
    paths = [folder / f"{name}_pat{number}.mat" for name in ("sol_yxzt", "manual_seg_32points")]
    with h5py.File(paths[0], "w", userblock_size=512) as file:
        data = file.create_dataset("sol_yxzt", data=images.T, chunks=True, compression="gzip")
        data.attrs["MATLAB_class"] = np.bytes_("int16")
    with h5py.File(paths[1], "w", userblock_size=512) as file:
        table = file.create_dataset("manual_seg_32points", cells.T.shape, dtype=h5py.ref_dtype)
        table.attrs["MATLAB_class"] = np.bytes_("cell")
        for k, place in enumerate(np.ndindex(cells.T.shape)):
            cell = file.create_dataset(f"#refs#/{k}", data=cells.T[place].T)
            cell.attrs["MATLAB_class"] = np.bytes_("double")
            table[place] = cell.ref
    for path in paths:
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(124) + b"\x00\x02IM")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subjects 1, 2 and 10 of version 5 in two folders, subject 3 of version 7.3 beside them."""
    root = tmp_path_factory.mktemp("york")
    for number in (1, 2, 10):
        save_v5(root, number, *subject(number), packed=number != 10)
    save_v73(root, 3, *subject(3))
    (root / "mrimages" / "._sol_yxzt_pat1.mat").write_bytes(b"\x00\x05\x16\x07")
    (root / "readme.txt").write_text("The dataset was first compiled ...")
    return root


def checked(root: Path, **options: Any) -> Inspection:
    return inspect(build_datamodule({"class_path": "york", "init_args": options}, root=root))


def faults(root: Path, **options: Any) -> list[str]:
    return [str(f) for f in checked(root, **options).faults]


def test_check_of_a_sound_folder(twin: Path) -> None:
    result = checked(twin)
    assert result.faults == []
    assert result.cases == {"train": 0, "val": 0, "test": 15}
    assert result.subjects["test"] == 4
    assert result.loaded == 15
    assert result.frames == 15
    assert result.shapes == {f"{COLUMNS} x {ROWS}": 15}
    assert result.labels == {"1 cavity": 15, "2 myocardium": 15}
    counts = result.survey.counts
    assert counts["subjects"] == 4
    assert counts["slices"] == 4 * SLICES
    assert counts["frames with contours"] == 4 * 4 * FRAMES - 1
    assert counts["frames left out without contours"] == 1
    assert (
        next(f.message for f in result.findings if f.severity == "note")
        == "4 of the 33 subjects are there: 1, 2, 3, 10"
    )


@pytest.mark.parametrize("number", [1, 3, 10])
def test_what_was_put_in_comes_out(twin: Path, number: int) -> None:
    """Images exactly but for the scaling, masks exactly: the pixel centre inside the polygon, by matplotlib."""
    data = York(root=twin)
    images, _ = subject(number)
    record = next(r for r in data.records("test") if r["subject"] == number)
    sequence = data.sequence(record)
    assert sequence.case_ids == (f"pat{number:02d}/slice04",)
    assert sequence.frames.shape == (1, FRAMES, 1, COLUMNS, ROWS)
    assert sequence.reference == 0
    assert sequence.labelled_frames == tuple(range(FRAMES))
    stored = images[:, :, 4].astype(np.float32)
    low, high = stored.min(), np.percentile(stored, 99.5)
    expected = np.clip((stored - low) / (high - low), 0, 1)
    np.testing.assert_allclose(sequence.frames[0, :, 0].numpy(), expected.transpose(2, 1, 0), atol=2e-4)
    centres = np.stack(np.meshgrid(np.arange(1, COLUMNS + 1), np.arange(1, ROWS + 1), indexing="ij"), axis=-1)
    for t in range(FRAMES):
        drawn = contours(number, 4, t)
        inner, outer = (Outline(p).contains_points(centres.reshape(-1, 2)) for p in (drawn[:32], drawn[33:]))
        labels = np.where(inner, 1, np.where(outer, 2, 0)).reshape(COLUMNS, ROWS)
        assert sequence.labels is not None
        assert np.array_equal(sequence.labels[0, t, 0].numpy(), labels)
    pair = data.case(f"pat{number:02d}/slice04/002")
    assert torch.equal(pair.fixed, sequence.frames[:, 2])
    assert torch.equal(pair.moving, sequence.frames[:, 0])
    assert pair.frames == (2,)
    assert pair.fixed_spacing_mm is None


def test_both_versions_of_the_format_give_the_same(tmp_path: Path) -> None:
    for folder, save in (("five", save_v5), ("seven", save_v73)):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder, 7, *subject(7))
    five, seven = (York(root=tmp_path / f, slices=None) for f in ("five", "seven"))
    assert five.case_ids("test") == seven.case_ids("test")
    for case in five.case_ids("test")[::5]:
        a, b = five.case(case), seven.case(case)
        assert torch.equal(a.fixed, b.fixed)
        assert torch.equal(a.moving, b.moving)
        assert a.fixed_labels is not None
        assert b.fixed_labels is not None
        assert torch.equal(a.fixed_labels, b.fixed_labels)


def test_slices_frames_and_subjects_by_option(twin: Path) -> None:
    assert York(root=twin).case_ids("test")[:4] == [f"pat01/slice04/{t:03d}" for t in range(1, FRAMES)]
    assert "pat02/slice04/003" not in York(root=twin).case_ids("test")
    assert York(root=twin).case_ids("test")[-1] == "pat10/slice04/004"
    every = York(root=twin, labelled_only=False)
    assert "pat02/slice04/003" in every.case_ids("test")
    assert every.case("pat02/slice04/003").fixed_labels is None
    # Slices 0 and 5 have no contours, 11 does not exist.
    assert len(York(root=twin, slices=(0, 1, 11)).case_ids("test")) == 4 * (FRAMES - 1)
    noted = [str(f) for f in checked(twin, slices=[0, 1, 11]).findings]
    assert any("slice 11 (from 0) is asked for, there are 6; left out" in n for n in noted)
    assert any("slice 0 (from 0) has no contours in frame 0" in n for n in noted)
    assert York(root=twin, exclude=(2, 33)).subjects()["test"] == ["pat01", "pat03", "pat10"]


def test_central_part_and_spacing(twin: Path) -> None:
    whole = York(root=twin).case("pat01/slice04/001")
    part = York(root=twin, size=(20, 24), spacing_mm={"1": 1.3}).case("pat01/slice04/001")  # type: ignore[dict-item]
    assert torch.equal(part.fixed, whole.fixed[..., 8:28, 10:34])
    assert part.fixed_labels is not None
    assert whole.fixed_labels is not None
    assert torch.equal(part.fixed_labels, whole.fixed_labels[..., 8:28, 10:34])
    assert part.fixed_spacing_mm is not None
    assert part.fixed_spacing_mm[0].tolist() == pytest.approx([1.3, 1.3])
    assert part.fixed_affine is not None
    np.testing.assert_allclose(part.fixed_affine[0, :2, 2].numpy(), [-8 * 1.3, -10 * 1.3])
    assert York(root=twin, spacing_mm={1: 1.3}).case("pat02/slice04/001").fixed_spacing_mm is None


def test_split_of_subjects(twin: Path) -> None:
    options: dict[str, Any] = {"train_share": 0.5, "val_share": 0.25}
    people = York(root=twin, **options).subjects()
    assert [len(people[s]) for s in ("train", "val", "test")] == [2, 1, 1]
    assert sorted(p for s in people.values() for p in s) == ["pat01", "pat02", "pat03", "pat10"]
    assert York(root=twin, **options).subjects() == people
    assert any(York(root=twin, seed=seed, **options).subjects() != people for seed in range(1, 6))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slices": (-1,)}, "slices must be numbers from 0"),
        ({"slices": ()}, "slices must be numbers from 0"),
        ({"train_share": 0.7, "val_share": 0.3}, "leave nothing to test"),
        ({"spacing_mm": 0.0}, "must be positive"),
        ({"spacing_mm": {1: float("nan")}}, "must be positive"),
        ({"size": (0, 10)}, "size must be positive"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        York(**options)


def test_no_folder_tells_where_to_obtain_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mridataset[^$]*manual_seg_32points_pat<N>\.mat"):
        York(root=tmp_path / "nowhere").records("test")
    assert faults(tmp_path) == [
        "no file sol_yxzt_pat<N>.mat or manual_seg_32points_pat<N>.mat in it or in folders below"
    ]


def cut(path: Path, share: float = 0.6) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def with_cells(change: Callable[[Cells], Any], number: int = 1) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        images, cells = subject(number)
        changed = change(cells)
        save_v5(root, number, images, cells if changed is None else changed)

    return plant


def with_images(change: Callable[[np.ndarray], np.ndarray], number: int = 1) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        images, cells = subject(number)
        save_v5(root, number, change(images), cells)

    return plant


def set_cell(value: np.ndarray, z: int = 4, t: int = 2) -> Callable[[Path], None]:
    return with_cells(lambda cells: cells.__setitem__((z, t), value))


def moved(rows: slice, offset: float) -> np.ndarray:
    points = contours(1, 4, 2)
    points[rows] += offset
    return points


def nan_voxel(images: np.ndarray) -> np.ndarray:
    values = images.astype(np.float64)
    values[3, 5, 4, 2] = np.nan
    return values


IMAGE, CONTOUR = "mrimages/sol_yxzt_pat1.mat", "manual_seg/manual_seg_32points_pat1.mat"
FAULTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "contours missing": (lambda r: (r / CONTOUR).unlink(), ("manual_seg_32points_pat1.mat: missing", IMAGE)),
    "images missing": (lambda r: (r / IMAGE).unlink(), ("sol_yxzt_pat1.mat: missing", CONTOUR)),
    "subject twice": (lambda r: shutil.copy(r / IMAGE, r), ("occurs twice", "sol_yxzt_pat1.mat")),
    "truncated images": (lambda r: cut(r / IMAGE), (IMAGE, "truncated MATLAB file", "expected")),
    "truncated contours": (lambda r: cut(r / CONTOUR), (CONTOUR, "truncated MATLAB file")),
    "cut in the header": (lambda r: cut(r / IMAGE, 0.001), (IMAGE, "truncated MATLAB file")),
    "truncated 7.3": (lambda r: cut(r / "sol_yxzt_pat3.mat"), ("sol_yxzt_pat3.mat", "truncated MATLAB file")),
    "7.3 cut in the header": (lambda r: cut(r / "sol_yxzt_pat3.mat", 0.005), ("sol_yxzt_pat3.mat", "truncated")),
    "no MAT file": (lambda r: (r / IMAGE).write_text("not a MAT file " * 20), (IMAGE, "unreadable")),
    "variable of another name": (
        lambda r: scipy_io.savemat(r / IMAGE, {"images": np.zeros((2, 2))}),
        (IMAGE, "no variable 'sol_yxzt'; it holds images"),
    ),
    "contours of another name": (
        lambda r: scipy_io.savemat(r / CONTOUR, {"segs": np.zeros((2, 2))}),
        (CONTOUR, "no variable 'manual_seg_32points'; it holds segs"),
    ),
    "no cell array": (
        lambda r: scipy_io.savemat(r / CONTOUR, {"manual_seg_32points": np.zeros((SLICES, FRAMES))}),
        (CONTOUR, "no cell array"),
    ),
    "three axes": (with_images(lambda i: i[..., 0]), (IMAGE, "has shape", "expected (rows, columns, slices, frames)")),
    "frames disagree": (with_cells(lambda c: c[:, :-1]), (CONTOUR, "6 x 4 cells", "6 slices and 5 frames")),
    "cells turned": (with_cells(lambda c: c.T), (CONTOUR, "5 x 6 cells")),
    "point outside": (
        set_cell(moved(slice(33, 34), 60)),
        (CONTOUR, "slice 4, frame 2 (from 0)", "1 epicardial points outside the picture of 36 x 44"),
    ),
    "normalised unit": (set_cell(contours(1, 4, 2) / 44), (CONTOUR, "outside the picture|encloses")),
    "no row of zeros": (set_cell(moved(slice(32, 33), 1)), (CONTOUR, "expected 65 x 2")),
    "axes of a cell turned": (set_cell(contours(1, 4, 2).T), (CONTOUR, "2 x 65 values, expected 65 x 2")),
    "half a cell": (set_cell(contours(1, 4, 2)[:32]), (CONTOUR, "32 x 2 values, expected 65 x 2")),
    "text in a cell": (set_cell(np.array(["none"])), (CONTOUR, "expected points")),
    "NaN point": (set_cell(moved(slice(3, 4), np.nan)), (CONTOUR, "endocardial points that are NaN")),
    "contours exchanged": (set_cell(contours(1, 4, 2)[::-1]), (CONTOUR, "less inside than outside")),
    "contour without area": (
        set_cell(np.concatenate([np.full((32, 2), 20.0), np.zeros((1, 2)), contours(1, 4, 2)[33:]])),
        (CONTOUR, "the endocardial contour encloses 0.0 pixels"),
    ),
    "NaN voxel": (with_images(nan_voxel), (IMAGE, "1 voxels that are NaN", "sol_yxzt", "case pat01/slice04/001")),
    "constant image": (with_images(np.zeros_like), ("case pat01/slice04/001", IMAGE, "constant")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_file(fault: str, twin: Path, tmp_path: Path) -> None:
    plant, words = FAULTS[fault]
    root = tmp_path / "faulty"
    shutil.copytree(twin, root)
    plant(root)
    found = faults(root)
    assert found, fault
    assert any(all(any(v in f for v in w.split("|")) for w in words) for f in found), found


def test_all_faults_are_listed_at_once(twin: Path, tmp_path: Path) -> None:
    root = tmp_path / "faulty"
    shutil.copytree(twin, root)
    (root / "manual_seg" / "manual_seg_32points_pat10.mat").unlink()
    cut(root / "sol_yxzt_pat3.mat")
    set_cell(contours(1, 4, 2).T)(root)
    with_images(nan_voxel, 2)(root)
    found = faults(root)
    for words in ("pat10.mat: missing", "sol_yxzt_pat3.mat: unreadable or truncated", "2 x 65 values", "NaN or inf"):
        assert any(words in f for f in found), (words, found)
    with pytest.raises(DataError, match=r"3 faults in[^$]*pat10[^$]*"):
        York(root=root).records("test")


def test_fault_in_a_slice_that_is_not_used_is_a_note(twin: Path, tmp_path: Path) -> None:
    root = tmp_path / "faulty"
    shutil.copytree(twin, root)
    with_cells(lambda c: [c.__setitem__((1, t), contours(1, 1, t).T) for t in (0, 3)] and None)(root)
    result = checked(root)
    assert result.faults == []
    assert any("slice 1, frames 0, 3 (from 0): 2 x 65 values" in str(f) for f in result.findings)
    assert len(faults(root, slices=[1])) == 1


def test_without_h5py_the_command_is_told(twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pat3\.mat.* needs h5py: pip install 'regbench-suite\[data\]'"):
        York(root=twin).records("test")


@pytest.mark.usefixtures("in_this_process")
def test_command_line(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit statuses of `data check`, the picture, and a run of the suite with options."""
    arguments = ["data", "check", "york", "--out", str(tmp_path / "check")]
    assert main([*arguments, "--root", str(twin), "--pictures", "1"]) == 0
    assert "15 cases loaded, no fault" in capsys.readouterr().out
    assert (tmp_path / "check" / "case-pat01_slice04_001.png").stat().st_size > 5000
    root = tmp_path / "faulty"
    shutil.copytree(twin, root)
    (root / CONTOUR).unlink()
    assert main([*arguments, "--root", str(root)]) == 1
    assert main([*arguments, "--root", str(tmp_path / "nowhere")]) == 2

    run = ["run", "york", "--data.root", str(twin), "--out", str(tmp_path / "run"), "--limit", "2"]
    assert main([*run, "--methods", "identity,demons-symmetric"]) == 0
    lines = [json.loads(line) for f in (tmp_path / "run").rglob("rows*.jsonl") for line in f.read_text().splitlines()]
    rows = [line for line in lines if line.get("status") not in (None, "started")]
    assert Counter(row["key"]["task"] for row in rows) == {"york": 4, "stream": 12}
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.data
def test_contours_of_real_cine_give_its_label_map(data_root: Path, tmp_path: Path) -> None:
    """32 of the 201 points of each contour of the cine, in York's form: the labels agree but for the rim."""
    stored = np.load(data_root / "cine_sax_pig" / "lv_contours_xy.npz")
    import SimpleITK as sitk  # noqa: N813

    series = sitk.GetArrayFromImage(sitk.ReadImage(str(data_root / "cine_sax_pig" / "cine_sax.nii.gz")))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(data_root / "cine_sax_pig" / "lv_labels.nii.gz")))
    kept = slice(8, 13)
    images = series[:, kept].transpose(2, 3, 1, 0)  # t, z, y, x to y, x, z, t
    pick = np.linspace(0, 200, 32, endpoint=False).round().astype(int)
    cells = np.empty(images.shape[2:], dtype=object)
    for z, t in np.ndindex(cells.shape):
        endo, epi = (stored[k][8 + z, t, pick] + 1 for k in ("endo", "epi"))
        cells[z, t] = np.concatenate([endo, [[0, 0]], epi])
    save_v5(tmp_path, 1, images, cells)
    assert faults(tmp_path) == []
    pair = York(root=tmp_path).case("pat01/slice04/011")
    assert pair.fixed_labels is not None
    for label in (1, 2):
        ours, theirs = pair.fixed_labels[0, 0].numpy() == label, label == labels[11, 12].T
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.97


def test_files_that_change_are_read_anew(twin: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(twin, tmp_path / "copy"))
    data = York(root=root)
    record = data.records("test")[0]
    assert data.load(record).fixed_labels is not None
    with_images(nan_voxel)(root)
    with pytest.raises(DataError, match="NaN"):
        data.load(record)
