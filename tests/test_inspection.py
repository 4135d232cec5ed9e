"""`data check` beyond single datasets: shared images, empty splits, files that no case needs, each fault once."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from datamodules.groups import Groups
from datamodules.hippocampus import Hippocampus
from reg_bench.cli import main
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.image_io import write_image
from reg_bench.inspection import Inspection, inspect
from reg_bench.inspection_files import checksums
from reg_bench.io import HeaderWarning
from reg_bench.survey import Record, Survey
from reg_bench.types import RegistrationPair

SHAPE = (9, 8, 7)
GRID = Grid(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).reshape(-1)))


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, SHAPE).astype(np.float32)


class Listed(RegistrationDataModule):
    """Cases as given: split to records; loading does what `act` says."""

    name: ClassVar[str] = "listed"

    def __init__(
        self, cases: dict[str, list[Record]], act: Callable[[Record], Any] = lambda record: None, root: Any = None
    ) -> None:
        super().__init__()
        self.cases, self.act, self.root = cases, act, root

    def look_through(self) -> Survey:
        survey = Survey(self.root)
        survey.records.update(self.cases)
        return survey

    def load(self, record: Record) -> RegistrationPair:
        self.act(record)
        return RegistrationPair((str(record["case_id"]),), torch.rand(1, 1, 5, 6), torch.rand(1, 1, 5, 6))


def faults(result: Inspection) -> str:
    return "\n".join(map(str, result.faults))


def test_an_image_in_two_splits_is_a_fault(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.nii").touch()
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")

    def record(case: str, fixed: str, moving: str) -> Record:
        return {"case_id": case, "fixed": str(tmp_path / f"{fixed}.nii"), "moving": str(tmp_path / f"{moving}.nii")}

    leaky = {"train": [record("1", "a", "b")], "test": [record("2", "c", "b"), record("3", "c", "link")]}
    found = faults(inspect(Listed(leaky, root=tmp_path)))
    assert "a.nii: this image is in the splits train and test" in found
    assert "b.nii: this image is in the splits train and test" in found
    assert "c.nii" not in found
    # An atlas stands in every case.
    atlas = {"train": [record("1", "a", "b")], "test": [record("2", "c", "b")]}
    assert not inspect(Listed(atlas)).faults


def test_nothing_to_test_on_is_a_fault() -> None:
    assert "split 'test' is empty" in faults(inspect(Listed({"train": [{"case_id": "a"}]})))
    assert "no case was found" in faults(inspect(Listed({})))
    assert not inspect(Listed({"test": [{"case_id": "a"}]})).faults


def test_whatever_a_reader_raises_is_a_fault_of_its_case() -> None:
    def act(record: Record) -> None:
        raise KeyError("mask")

    assert "case a: KeyError: 'mask'" in faults(inspect(Listed({"test": [{"case_id": "a"}]}, act)))


def test_a_fault_of_a_file_is_told_once_with_its_cases(tmp_path: Path) -> None:
    path = str(tmp_path / "series.nii")

    def act(record: Record) -> None:
        raise DataError(f"{path}: frame 3 is torn")

    records = [{"case_id": f"s/{t}", "images": path} for t in range(4)]
    result = inspect(Listed({"test": records}, act, root=tmp_path))
    assert [str(f) for f in result.faults] == ["series.nii: frame 3 is torn; case s/0 and 3 more"]
    assert result.loaded == 0


def test_headers_that_disagree_are_notes() -> None:
    def act(record: Record) -> None:
        warnings.warn("a.nii: turned", HeaderWarning, stacklevel=1)

    result = inspect(Listed({"test": [{"case_id": "a"}]}, act))
    assert not result.faults
    assert [str(f) for f in result.findings] == ["case a: a.nii: turned"]


def test_files_that_no_case_needs_are_opened(tmp_path: Path) -> None:
    for number, name in enumerate("abcde"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", image(number), GRID)
    bad = image(9)
    bad[1, 2, 3] = np.nan
    (name,) = set("abcde") - set(Groups(root=tmp_path, pairs=[("a", "b"), ("c", "d")]).subjects()["test"])
    write_image(tmp_path / "images" / f"{name}.nii.gz", bad, GRID)
    data: Any = {"pairs": [("a", "b"), ("c", "d")]}
    result = inspect(Groups(root=tmp_path, **data))
    assert faults(result) == f"images/{name}.nii.gz: 1 of 504 voxels are NaN or infinite; expected finite intensities"
    assert result.loaded == 2
    # With a limit it is the names and headers that are looked through whole.
    assert not inspect(Groups(root=tmp_path, **data), limit=1).faults


def test_a_folder_without_anything_tells_what_was_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from reg_bench.discovery import load_class, members

    for member in members("datasets"):
        cls = load_class(member.name, "datasets")
        if not getattr(cls, "folder", "") or member.name in ("pairs", "sequences"):
            continue
        (tmp_path / "empty").mkdir(exist_ok=True)
        status = main(["data", "check", member.name, "--root", str(tmp_path / "empty"), "--out", str(tmp_path / "o")])
        told = "".join(capsys.readouterr())
        assert status in (1, 2), member.name
        for text in (cls.source, cls.layout):  # type: ignore[attr-defined]
            assert " ".join(text.split())[:60] in " ".join(told.split()), (member.name, told)


def test_checksums_leave_out_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.nii.gz", image(ord(name)), GRID)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["data", "check", "groups", "--root", "."]) == 0
    written = Path("data-check/groups/SHA256SUMS")
    assert [line.split()[1] for line in written.read_text().splitlines()] == ["images/a.nii.gz", "images/b.nii.gz"]
    done = subprocess.run(["sha256sum", "-c", str(written)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_image(tmp_path / "g" / "images" / f"{name}.nii.gz", image(ord(name)), GRID)
    (tmp_path / "g" / "notes").symlink_to(tmp_path / "gone")
    assert main(["data", "check", "groups", "--root", str(tmp_path / "g"), "--out", str(tmp_path / "o")]) == 1
    assert "notes: cannot be read (No such file or directory)" in capsys.readouterr().out
    with pytest.raises(DataError, match="notes: cannot be read"):
        list(checksums(tmp_path / "g"))


@pytest.mark.parametrize(
    ("dataset", "columns"), [("pairs", "fixed,moving"), ("sequences", "sequence,seconds_per_frame")]
)
def test_a_table_has_checksums_of_the_files_that_it_names(
    dataset: str, columns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for t in range(3):
        write_image(tmp_path / "files" / f"t{t}.nii.gz", image(t), GRID)
    (tmp_path / "files" / "stray.bin").touch()
    row = "../files/t0.nii.gz,../files/t1.nii.gz" if dataset == "pairs" else "../files,0.1"
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.csv").write_text(f"{columns}\n{row}\n")
    out = tmp_path / "o"
    assert main(["data", "check", dataset, "--data", f"csv={tmp_path / 'tables/mine.csv'}", "--out", str(out)]) == 0
    sums = out / "SHA256SUMS"
    names = {line.split()[1] for line in sums.read_text().splitlines()}
    assert {"mine.csv", "../files/t0.nii.gz", "../files/t1.nii.gz"} <= names
    done = subprocess.run(["sha256sum", "-c", str(sums)], cwd=tmp_path / "tables", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "no fault" in capsys.readouterr().out


def test_a_missing_split_table_is_a_fault_among_others(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("file,split\na.nii.gz,test\na.nii.gz,train\n")
    found = faults(inspect(Hippocampus(root=tmp_path)))
    assert "split.csv: line 3: 'a.nii.gz' occurs twice" in found
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert "split.csv: no such file" in faults(inspect(Hippocampus(root=tmp_path)))


def test_relative_root_names_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.nii.gz", image(ord(name)), GRID)
    monkeypatch.chdir(tmp_path)
    relative, absolute = Groups(root="."), Groups(root=tmp_path)
    assert relative.records("test") == absolute.records("test")
    assert relative.checksum() == absolute.checksum()
