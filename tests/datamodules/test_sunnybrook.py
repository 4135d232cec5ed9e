"""Paired arrays of Sunnybrook: every fault named with its file; the original form is recognised by what lies there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.sunnybrook import Sunnybrook
from datamodules.sunnybrook_dicom import SunnybrookDicom
from reg_bench import cli
from reg_bench.errors import DataError
from reg_bench.inspection import inspect
from reg_bench.results import read_rows
from tests.datamodules.test_sunnybrook_dicom import EXPERT, write_patient

SLICES, SIZE = 2, 48
PATIENTS = {"SC-HF-I-01": "train", "SC-HYP-06": "val", "SC-N-09": "test"}
FILE = "SC-N-09.npz"


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = np.array([9, 5])[None, :, None, None]
    mask = np.broadcast_to(np.hypot(x - 22, y - 25) < radius, (SLICES, 2, SIZE, SIZE))
    image = 150 * mask + rng.integers(0, 40, mask.shape)
    return {"image": image.astype(np.uint8), "mask": mask.astype(np.uint8)}


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    root = tmp_path / "npz"
    root.mkdir()
    for number, patient in enumerate(PATIENTS):
        np.savez_compressed(root / f"{patient}.npz", **arrays(number))
    rows = [f"{patient},{split},{SLICES}" for patient, split in PATIENTS.items()]
    (root / "split.csv").write_text("\n".join(["patient,split,slices", *rows]) + "\n")
    return root


def rewrite(root: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    np.savez_compressed(root / FILE, **change(arrays(2)))


def spoilt(value: float) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    image = arrays(2)["image"].astype(np.float32)
    image[0, 1, 20, 20] = value
    return lambda stored: {**stored, "image": image}


def test_cases_are_what_was_written(twin: Path) -> None:
    assert not inspect(Sunnybrook(root=twin)).findings
    pair = Sunnybrook(root=twin, size=(20, 30)).case("SC-N-09/01")
    wrote = arrays(2)["mask"][1, :, SIZE // 2 - 15 : SIZE // 2 + 15, SIZE // 2 - 10 : SIZE // 2 + 10].swapaxes(-1, -2)
    assert pair.moving_labels is not None
    assert pair.fixed_labels is not None
    assert np.array_equal(pair.moving_labels[0, 0].numpy(), wrote[0])
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), wrote[1])
    with pytest.raises(DataError, match="pairs, not sequences"):
        Sunnybrook(root=twin).sequence({"case_id": "SC-N-09/01", "file": str(twin / FILE), "index": 1})


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda r: (r / FILE).unlink(), f"{FILE}: is missing"),
    "truncated": (lambda r: (r / FILE).write_bytes((r / FILE).read_bytes()[:700]), f"{FILE}: unreadable or truncated"),
    "no npz": (lambda r: (r / FILE).write_text("no arrays"), f"{FILE}: unreadable or truncated npz"),
    "empty file": (lambda r: (r / FILE).write_bytes(b""), f"{FILE}: unreadable or truncated npz"),
    "no mask": (lambda r: rewrite(r, lambda s: {"image": s["image"]}), f"{FILE}: no array 'mask'"),
    "mask of another size": (
        lambda r: rewrite(r, lambda s: {**s, "mask": s["mask"][..., 1:]}),
        f"{FILE}: mask of shape (2, 2, 48, 47), expected (2, 2, 48, 48)",
    ),
    "one frame": (lambda r: rewrite(r, lambda s: {k: v[:, 0] for k, v in s.items()}), "(slice, 2, y, x)"),
    "a slice less": (
        lambda r: rewrite(r, lambda s: {k: v[:1] for k, v in s.items()}),
        f"{FILE}: holds 1 slices, split.csv says '2'",
    ),
    "NaN": (lambda r: rewrite(r, spoilt(np.nan)), f"{FILE}: image: 1 of 9216 values"),
    "infinite": (lambda r: rewrite(r, spoilt(np.inf)), f"{FILE}: image: 1 of 9216 values"),
    "constant": (
        lambda r: rewrite(r, lambda s: {**s, "image": s["image"] * 0}),
        f"{FILE}: fixed image: constant, every voxel is 0; case SC-N-09/00 and 1 more",
    ),
    "no label": (
        lambda r: rewrite(r, lambda s: {**s, "mask": s["mask"] * 0}),
        f"{FILE}: moving labels: empty, every voxel is background; case SC-N-09/00 and 1 more",
    ),
    "no table": (lambda r: (r / "split.csv").unlink(), "split.csv: no such file"),
    "table without column": (
        lambda r: (r / "split.csv").write_text("patient,split\nSC-N-09,test\n"),
        f"{FILE}: holds 2 slices, split.csv has no column slices",
    ),
    "nobody to test": (
        lambda r: (r / "split.csv").write_text((r / "split.csv").read_text().replace("test", "val")),
        "the split 'test' is empty",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_file(fault: str, twin: Path) -> None:
    # The same folder looked at before and after: nothing that was kept may hide the change.
    assert not inspect(Sunnybrook(root=twin)).faults
    plant, words = FAULTS[fault]
    plant(twin)
    found = [str(f) for f in inspect(Sunnybrook(root=twin)).faults]
    assert any(words in f for f in found), found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the Cardiac Atlas Project, one patient of the online set."""
    root = tmp_path_factory.mktemp("scd")
    (root / "scd_patientdata.csv").write_text("PatientID,OriginalID,Gender,Age,Pathology\nSCD1,SC-HF-I-9,Male,1,x\n")
    write_patient(root / "SCD1" / "CINESAX_300", "IM-0003", root / "SCD_ManualContours" / "SC-HF-I-09" / EXPERT)
    return root


def test_original_files_are_recognised(original: Path) -> None:
    data, own = Sunnybrook(root=original), SunnybrookDicom(root=original)
    assert not inspect(data).faults
    assert data.case_ids("test") == own.case_ids("test") != []
    for record in data.records("test"):
        pair, expected = data.load(record), own.load(record)
        assert torch.equal(pair.fixed, expected.fixed)
        assert torch.equal(pair.moving_labels, expected.moving_labels)  # type: ignore[arg-type]
        assert torch.equal(data.sequence(record).frames, own.sequence(record).frames)
    assert Sunnybrook(root=original, size=(20, 22)).dataset("test")[0].spatial_shape == (20, 22)


@pytest.mark.usefixtures("in_this_process")
def test_original_files_run_under_the_name_of_the_data(original: Path, tmp_path: Path) -> None:
    arguments = ["--data.root", str(original), "--methods", "identity", "--no-panels"]
    assert cli.main(["run", "sunnybrook", "--out", str(tmp_path / "run"), *arguments]) == 0
    rows = list(read_rows(tmp_path / "run"))
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["key"]["case"] for row in rows] == SunnybrookDicom(root=original).case_ids("test")


def test_paired_arrays_are_pointed_to(twin: Path) -> None:
    (fault,) = inspect(SunnybrookDicom(root=twin)).faults
    assert "paired arrays, which the dataset sunnybrook reads" in str(fault)
