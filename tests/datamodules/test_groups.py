"""A folder of subjects: which pairs it makes, what they hold, and every fault named with its file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from datamodules.groups import Groups
from reg_bench import cli
from reg_bench.errors import ConfigError
from reg_bench.inspection import inspect
from reg_bench.io import HeaderWarning
from reg_bench.results import read_rows

SHAPE = (10, 11, 12)
NAMES = ["anna", "ben", "cleo", "dora-2"]


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.5, 2.0)) -> None:
    """An array in x, y, z order."""
    path.parent.mkdir(exist_ok=True, parents=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing[: array.ndim])
    sitk.WriteImage(image, str(path))


def subject(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, labels and points in voxels."""
    rng = np.random.default_rng(NAMES.index(name))
    image = rng.uniform(0, 100, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:7, 2:7, 3 : 8 + NAMES.index(name)] = 1
    labels[2:7, 2:7, 8:] = 2
    return image, labels, np.round(rng.uniform(1, 8, (5, 3)), 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        image, labels, points = subject(name)
        ending = ".mha" if name == "ben" else ".nii.gz"
        write(tmp_path / "g" / "images" / f"{name}{ending}", image)
        write(tmp_path / "g" / "labels" / f"{name}.nii.gz", labels)
        (tmp_path / "g" / "points").mkdir(exist_ok=True)
        np.savetxt(tmp_path / "g" / "points" / f"{name}.csv", points, delimiter=",", fmt="%.2f")
    (tmp_path / "g" / "images" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return tmp_path / "g"


def test_cases_are_what_was_written(root: Path) -> None:
    data = Groups(root=root)
    for record in data.records("test"):
        pair = data.load(record)
        fixed, moving = (subject(name) for name in record["subjects"])
        assert pair.case_ids == ("--".join(record["subjects"]),)
        assert np.array_equal(pair.fixed[0, 0].numpy(), fixed[0])
        assert np.array_equal(pair.moving[0, 0].numpy(), moving[0])
        assert np.array_equal(pair.fixed_labels[0, 0].numpy(), fixed[1])  # type: ignore[union-attr, index]
        assert np.array_equal(pair.moving_labels[0, 0].numpy(), moving[1])  # type: ignore[union-attr, index]
        assert pair.points is not None
        np.testing.assert_allclose(pair.points["landmarks"].fixed[0].numpy(), fixed[2], atol=1e-6)
        np.testing.assert_allclose(pair.points["landmarks"].moving[0].numpy(), moving[2], atol=1e-6)
        assert pair.fixed_spacing_mm is not None
        assert pair.fixed_spacing_mm.tolist() == [[1, 1.5, 2]]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("unordered", "anna--ben anna--cleo anna--dora-2 ben--cleo ben--dora-2 cleo--dora-2"),
        ("to-first", "anna--ben anna--cleo anna--dora-2"),
        ([["cleo", "anna"], ["anna", "ben"]], "cleo--anna anna--ben"),
    ],
)
def test_pairs(pairs: Any, expected: str, root: Path) -> None:
    assert Groups(root=root, pairs=pairs).case_ids("test") == expected.split()


def test_ordered_pairs(root: Path) -> None:
    ids = Groups(root=root, pairs="ordered").case_ids("test")
    assert sorted(ids) == sorted(f"{a}--{b}" for a in NAMES for b in NAMES if a != b)


def test_limit_is_drawn_with_the_seed(root: Path) -> None:
    every = Groups(root=root, pairs="ordered").case_ids("test")
    drawn = [Groups(root=root, pairs="ordered", limit=5, seed=s).case_ids("test") for s in (0, 0, 1, 2)]
    assert all(len(d) == 5 and set(d) <= set(every) for d in drawn)
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] or drawn[0] != drawn[3]
    assert Groups(root=root, limit=100).case_ids("test") == Groups(root=root).case_ids("test")


def test_splits(root: Path) -> None:
    assert Groups(root=root).records("train") == []
    (root / "split.csv").write_text("subject,split\nanna,train\nben,test\ncleo,test\ndora-2,train\n")
    data = Groups(root=root)
    assert data.case_ids("train") == ["anna--dora-2"]
    assert data.case_ids("test") == ["ben--cleo"]
    found = [str(f) for f in inspect(Groups(root=root, pairs=[("anna", "ben")])).faults]
    assert any("split.csv: pairs: 'anna' is in train and 'ben' in test; expected one split" in f for f in found)


def test_images_alone_in_two_dimensions(tmp_path: Path) -> None:
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 255, (9, 8)).astype(np.uint8)
        write(tmp_path / "images" / f"p{seed}.png", picture)
    data = Groups(root=tmp_path, percentile=99.5)
    pair = data.case("p0--p1")
    assert pair.spatial_shape == (9, 8)
    assert pair.fixed_spacing_mm is None
    assert (float(pair.fixed.min()), float(pair.fixed.max())) == (0, 1)
    assert type(pair.fixed) is torch.Tensor
    assert not inspect(data).faults


def test_other_grids_are_resampled_unless_native(root: Path) -> None:
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 22, 24)).copy()
    write(root / "images" / "cleo.nii.gz", ramp, spacing=(0.5, 0.75, 1.0))
    write(root / "labels" / "cleo.nii.gz", np.ones((20, 22, 24), np.uint8), spacing=(0.5, 0.75, 1.0))
    pair = Groups(root=root).case("anna--cleo")
    torch.testing.assert_close(pair.moving[0, 0, :, 3, 3], torch.arange(10.0) * 2)
    with pytest.warns(HeaderWarning, match="indices are used"):
        assert Groups(root=root, native=True).case("anna--cleo").moving.shape[2:] == (20, 22, 24)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pairs": "all"}, "pairs must be ordered, unordered, to-first or a list, got 'all'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"percentile": 101}, r"percentile must lie in 0\.\.100"),
    ],
)
def test_odd_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Groups(**options)


def zero_spacing(root: Path) -> None:
    write(root / "images" / "bad.nii", subject("anna")[0])
    content = bytearray((root / "images" / "bad.nii").read_bytes())
    content[80:92] = bytes(12)
    (root / "images" / "bad.nii").write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "labels missing": (lambda r: (r / "labels/anna.nii.gz").unlink(), "labels: no labels of anna"),
    "points missing": (lambda r: (r / "points/anna.csv").unlink(), "points: no points of anna"),
    "truncated": (lambda r: truncate(r / "images/anna.nii.gz"), "images/anna.nii.gz: unreadable or truncated"),
    "stray labels": (
        lambda r: shutil.copy(r / "labels/ben.nii.gz", r / "labels/bern.nii.gz"),
        "labels/bern.nii.gz: no image of that name in images; did you mean 'ben'?",
    ),
    "size of labels": (
        lambda r: write(r / "labels/ben.nii.gz", np.ones((10, 11, 9), np.uint8)),
        "labels/ben.nii.gz: shape (10, 11, 9), expected (10, 11, 12) as its image images/ben.mha",
    ),
    "number of points": (
        lambda r: (r / "points/ben.csv").write_text("1,2,3\n2,3,4\n"),
        "points/ben.csv: 2 points, expected 5 as the others",
    ),
    "point outside": (
        lambda r: (r / "points/dora-2.csv").write_text("1,2,3\n2,3,40\n" + "1,1,1\n" * 3),
        "points/dora-2.csv: ",
    ),
    "two of a name": (
        lambda r: shutil.copy(r / "images/dora-2.nii.gz", r / "images/dora-2.nrrd"),
        "images/dora-2.nrrd: a second file of the name 'dora-2'",
    ),
    "dimension": (
        lambda r: write(r / "images/flat.png", np.eye(9, dtype=np.uint8)),
        "images/flat.png: a 2-D image (9, 9), expected 3-D as the others",
    ),
    "spacing": (zero_spacing, "images/bad.nii: zero spacing"),
    "unknown in the split": (
        lambda r: (r / "split.csv").write_text("subject,split\nanna,train\nbenn,test\ncleo,test\ndora-2,test\n"),
        "split.csv: no image of the subject 'benn'; did you mean 'ben'?",
    ),
}
OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nobody's split": (
        lambda r: (r / "split.csv").write_text("subject,split\nanna,train\nben,test\ncleo,test\n"),
        "split.csv: does not say in which split 'dora-2' is",
    ),
    "wrong split": (
        lambda r: (r / "split.csv").write_text("subject,split\nanna,training\n"),
        "split.csv: line 2: split must be one of train, val, test, got 'training'",
    ),
    "no folder": (lambda r: (r / "images").rename(r / "pictures"), "images: no such folder"),
    "nothing": (
        lambda r: [p.unlink() for p in (r / "images").glob("*.*")],
        "labels/anna.nii.gz: no image of that name",
    ),
    "nan": (
        lambda r: write(r / "images/anna.nii.gz", np.full(SHAPE, np.nan, np.float32)),
        "images/anna.nii.gz: 1320 of 1320 voxels are NaN",
    ),
    "constant": (lambda r: write(r / "images/anna.nii.gz", np.ones(SHAPE, np.float32)), "anna.nii.gz: a constant"),
    "empty labels": (lambda r: write(r / "labels/anna.nii.gz", np.zeros(SHAPE, np.uint8)), "anna.nii.gz: holds no"),
}


@pytest.mark.parametrize("fault", [*FAULTS.items(), *OTHERS.items()], ids=lambda f: f[0])
def test_fault_is_named(fault: Any, root: Path) -> None:
    plant, expected = fault[1]
    plant(root)
    found = [str(f) for f in inspect(Groups(root=root)).faults]
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("anna", "beno")], "pairs: no subject 'beno'; did you mean 'ben'?"),
        ([("anna", "anna")], "pairs: 'anna' stands on both sides"),
        ([("anna", "ben"), ("anna", "ben")], "pairs: 'anna', 'ben' are listed twice"),
    ],
)
def test_wrong_list_of_pairs(pairs: Any, expected: str, root: Path) -> None:
    assert any(expected in str(f) for f in Groups(root=root, pairs=pairs).survey().faults)


def test_one_image_makes_no_pair(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.nii.gz", subject("anna")[0])
    assert [str(f) for f in Groups(root=tmp_path).survey().faults] == ["images: 1 images; pairs need at least two"]


def test_all_faults_at_once_and_exit_status(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["data", "check", "groups", "--root", str(root), "--out", str(tmp_path / "out")]
    assert cli.main([*check, "--data", "pairs=ordered"]) == 0
    assert "test: 12 cases of 4 subjects" in capsys.readouterr().out
    (root / "images" / "README.txt").write_text("Scans of four people.")
    for plant, _ in FAULTS.values():
        plant(root)
    assert cli.main(check) == 1
    report = capsys.readouterr().out
    for _, expected in FAULTS.values():
        assert expected in report
    assert "images: 1 files that are no images are not used: README.txt" in report
    assert cli.main(["data", "check", "groups", "--root", str(tmp_path / "nowhere")]) == 2
    assert "images/NAME.nii.gz" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_runs_from_a_suite(root: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: mine\nversion: 1\ntasks:\n  - name: mine\n    dataset: groups\n    init_args: {pairs: to-first}\n"
        "methods: [identity, demons-symmetric]\n"
    )
    arguments = ["run", str(suite), "--data.root", str(root), "--out", str(tmp_path / "run"), "--limit", "2"]
    assert cli.main(arguments) == 0
    assert [row["status"] for row in read_rows(tmp_path / "run")] == ["ok"] * 4


@pytest.mark.data
def test_real_images(data_root: Path, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for path in sorted((data_root / "hippocampus_msd" / kind).glob("*.nii.gz"))[:3]:
            shutil.copy(path, tmp_path / kind / path.name)
    result = inspect(Groups(root=tmp_path, percentile=99.5))
    assert not result.faults
    assert result.loaded == 3
