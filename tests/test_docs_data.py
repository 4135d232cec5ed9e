"""The examples of docs/your-own-data.md run as they stand, on tiny images made here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from reg_bench.cli import main
from reg_bench.results import state
from reg_bench.sequence_table import COLUMNS
from reg_bench.stream_options import Streaming

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "your-own-data.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
FILES = re.findall(r"`([\w.]+)`:\n\n```(?:csv|yaml|python)\n(.*?)```", TEXT, re.DOTALL)

SHAPE = (20, 18, 16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def volume(shift: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A ball beside a ramp, the ball moved along x."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    centre = [n / 2 - 0.5 for n in shape]
    centre[0] += shift
    squared = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
    return (100 * np.exp(-squared / 20) + axes[1]).astype(np.float32)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(array.T.astype(np.uint8))), str(path))
        return
    image = nib.Nifti1Image(array, AFFINE)
    if array.ndim == 4:
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 0.05
    nib.save(image, path)


def labels(shift: float) -> np.ndarray:
    """The two halves of the ball."""
    halves = np.where(np.arange(SHAPE[0]) < SHAPE[0] / 2 + shift, 1, 2)[:, None, None]
    return ((volume(shift) > 60) * halves).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the document, and the images that they name."""
    here = tmp_path_factory.mktemp("own")
    for name, content in FILES:
        (here / name).write_text(content, encoding="utf-8")
    for patient in ("p1", "p2"):
        for phase, shift in (("exhale", 0.0), ("inhale", 1.5)):
            save(here / patient / f"{phase}.nii.gz", volume(shift))
            save(here / patient / f"{phase}_lobes.nii.gz", labels(shift))
            (here / patient / f"{phase}.csv").write_text(f"{9.5 + shift},8.5,7.5\n{11.5 + shift},8.5,7.5\n")
    cine = np.stack([volume(t / 2, SHAPE[:2])[..., None] for t in range(5)], axis=-1)
    save(here / "cine.nii.gz", cine)
    save(here / "cine_labels.nii.gz", (cine > 60).astype(np.uint8))
    save(here / "lung.nii.gz", np.stack([volume(t / 2) for t in range(5)], axis=-1))
    for t in range(5):
        save(here / "echo" / f"t{t}.png", volume(t / 2, SHAPE[:2]))
        if t in (0, 4):
            save(here / "echo_labels" / f"t{t}.png", volume(t / 2, SHAPE[:2]) > 60)
    for patient in ("a", "b", "c"):
        for phase, shift in (("ex", 0.0), ("in", 1.5)):
            save(here / "lungs" / patient / f"{phase}.nii.gz", volume(shift))
            save(here / "lungs" / patient / f"{phase}_lobes.nii.gz", labels(shift))
    return here


def commands(section: str) -> list[str]:
    """The command lines of a section, `export` left out."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [line for line in "".join(blocks).splitlines() if line.startswith("reg-bench")]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as current one, and where Python finds modules; the processes of a run inherit both."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    return folder


def statuses(folder: Path) -> set[tuple[str, str, str]]:
    """Method, case and status of every result in a run folder."""
    return {(key.method, key.case, str(row["status"])) for key, row in state(folder).results.items()}


CASES = {
    "Pairs": ("runs/pairs", {"p1", "p2"}),
    "Sequences": ("runs/sequences", {f"{c}/{t:03d}" for c in ("p1/sax", "p2/apical") for t in (2, 4)}
                  | {"p3/lung/000", "p3/lung/004", "p1/sax", "p2/apical", "p3/lung"}),
    "A new dataset": ("runs/lungs", {"c"}),
}  # fmt: skip


@pytest.mark.parametrize("section", CASES)
def test_commands_of_a_section(section: str, here: Path) -> None:
    lines = commands(section)
    assert [line.split()[1] for line in lines][-2:] == ["data", "run"]
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    out, cases = CASES[section]
    done = statuses(here / out)
    assert {status for *_, status in done} == {"ok"}
    assert {case for _, case, _ in done} == cases
    assert {"identity", "demons-symmetric"} <= {method for method, *_ in done}


def test_the_new_dataset_is_short_and_names_what_is_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(dict(FILES)["clinic_lungs.py"].splitlines()) <= 60
    check = ["data", "check", "clinic_lungs.ClinicLungs", "--root"]
    assert main([*check, "nowhere"]) == 2
    message = capsys.readouterr().err
    assert "the archive of the clinic" in message
    assert "<patient>/ex.nii.gz" in message
    shutil.copytree(here / "lungs", here / "faulty")
    (here / "faulty" / "b" / "in.nii.gz").unlink()
    assert main([*check, "faulty"]) == 1
    assert "b/in.nii.gz: no such file" in capsys.readouterr().out


def test_every_column_and_every_key_of_a_stream_is_described() -> None:
    columns, _, keys = SECTIONS["Sequences"].partition("`kind: sequence`")
    assert set(re.findall(r"^\| `(\w+)` \|", columns, re.MULTILINE)) == set(COLUMNS)
    first_cells = re.findall(r"^\| (`.+?) \|", keys, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == {f.name for f in fields(Streaming)}
