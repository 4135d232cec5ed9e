"""`reg-bench data`: what is counted, every fault at once, exit statuses, checksums, pictures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.hippocampus import Hippocampus
from reg_bench.cli import main
from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.image_io import write_image
from reg_bench.inspection import inspect
from reg_bench.inspection_contents import content_faults
from reg_bench.manifest import SPLITS_NAME
from reg_bench.survey import Survey
from reg_bench.types import PointPairs, RegistrationPair

SUBJECTS = {"001": "train", "002": "train", "003": "val", "004": "val", "005": "test", "006": "test", "007": "test"}
SHAPE = (12, 14, 10)


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """Seven small subjects in the layout of `hippocampus_msd`."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    grid = Grid(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).reshape(-1)))
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for subject in SUBJECTS:
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:8, 4:9, 2:7], labels[3:8, 9:12, 2:7] = 1, 2
        write_image(root / "labels" / f"hippocampus_{subject}.nii.gz", labels, grid)
        image = (labels * 50 + rng.normal(0, 5, SHAPE)).astype(np.float32)
        write_image(root / "images" / f"hippocampus_{subject}.nii.gz", image, grid)
    rows = [f"hippocampus_{subject}.nii.gz,{split}" for subject, split in SUBJECTS.items()]
    (root / "split.csv").write_text("\n".join(["file,split", *rows]) + "\n")
    return root


def rewrite(root: Path, folder: str, subject: str, array: np.ndarray) -> None:
    grid = Grid(array.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).reshape(-1)))
    write_image(root / folder / f"hippocampus_{subject}.nii.gz", array, grid)


def test_a_sound_folder_is_counted_and_passes(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "check", "hippocampus", "--root", str(twin), "--out", str(out), "--pictures", "2"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "test: 3 cases of 3 subjects",
        "train: 2 cases of 2",
        "48 x 64 x 48 (7)",
        "1 anterior (7)",
        "no fault",
    ):
        assert text in printed
    report = json.loads((out / "report.json").read_text())
    assert report["loaded"] == 7
    assert report["findings"] == []
    assert len(list(out.glob("case-*.png"))) == 2
    checked = subprocess.run(["sha256sum", "-c", str(out / "SHA256SUMS")], cwd=twin, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert len(checked.stdout.splitlines()) == 15


def test_every_fault_of_names_is_listed(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (twin / "images" / "hippocampus_001.nii.gz").unlink()
    (twin / "labels" / "hippocampus_006.nii.gz").unlink()
    assert main(["data", "check", "hippocampus", "--root", str(twin), "--out", str(tmp_path / "o")]) == 1
    printed = capsys.readouterr().out
    assert "images/hippocampus_001.nii.gz" in printed
    assert "labels/hippocampus_006.nii.gz" in printed
    with pytest.raises(DataError, match="2 faults") as error:
        Hippocampus(root=str(twin)).records("test")
    assert "hippocampus_001" in str(error.value)
    assert "hippocampus_006" in str(error.value)


def test_every_fault_of_voxels_is_listed_with_its_file(twin: Path) -> None:
    good = np.zeros(SHAPE, np.uint8)
    good[2:5, 2:5, 2:5] = 1
    rewrite(twin, "labels", "001", np.zeros((5, 5, 5), np.uint8) + good[2:7, 2:7, 2:7])
    nan = np.ones(SHAPE, np.float32)
    nan[0, 0, 0] = np.nan
    rewrite(twin, "images", "003", nan)
    rewrite(twin, "labels", "005", np.full(SHAPE, 7, np.uint8))
    path = twin / "images" / "hippocampus_006.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    result = inspect(Hippocampus(root=str(twin)))
    text = "\n".join(map(str, result.faults))
    assert "labels/hippocampus_001.nii.gz: shape (5, 5, 5)" in text
    assert "images/hippocampus_003.nii.gz" in text
    assert "NaN" in text
    assert "none of the expected [1, 2]" in text
    assert "images/hippocampus_006.nii.gz" in text
    assert result.loaded == 0


def test_a_folder_that_is_not_there_says_where_the_data_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "hippocampus", "--root", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    for text in ("does not exist", "medicaldecathlon.com", "split.csv", "images/hippocampus_NNN.nii.gz"):
        assert text in error
    assert not (tmp_path / "o").exists()


def test_unknown_dataset_and_option_are_bad_input(twin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "hippocampos", "--root", str(twin)]) == 2
    assert "did you mean 'hippocampus'" in capsys.readouterr().err
    assert main(["data", "check", "hippocampus", "--root", str(twin), "--data", "sise=[8, 8, 8]"]) == 2
    assert "sise" in capsys.readouterr().err
    assert main(["data", "check", "hippocampus", "--root", str(twin), "--data", "size"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


def test_options_of_the_dataset_reach_it(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(twin), "--out", str(tmp_path / "o"), "--data", "size=[16, 16, 16]", "--limit", "1"]
    assert main(["data", "check", "hippocampus", *arguments, "--no-checksums"]) == 0
    assert "16 x 16 x 16 (3)" in capsys.readouterr().out
    assert not (tmp_path / "o" / "SHA256SUMS").exists()


def test_describe_tells_layout_source_licence_and_splits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", "hippocampus"]) == 0
    printed = capsys.readouterr().out
    for text in ("CC-BY-SA-4.0", "medicaldecathlon.com", "split.csv", "160 train", "3-D"):
        assert text in printed


def test_somebody_in_two_splits_and_a_case_twice_are_faults() -> None:
    class Leaky(Hippocampus):
        def survey(self) -> Survey:
            survey = Survey()
            survey.records["train"].append({"case_id": "a-b", "subjects": ["a", "b"]})
            survey.records["test"] += [{"case_id": "b-c", "subjects": ["b", "c"]}] * 2
            return survey

    text = "\n".join(map(str, inspect(Leaky(), limit=0).faults))
    assert "b is in the splits train and test" in text
    assert "case b-c: the identifier occurs 2 times" in text


def pair(**changes: object) -> RegistrationPair:
    values: dict[str, object] = {"fixed": torch.rand(1, 1, 6, 7), "moving": torch.rand(1, 1, 6, 7)}
    return RegistrationPair(case_ids=("a",), **{**values, **changes})  # type: ignore[arg-type]


LABELS = torch.zeros(1, 1, 6, 7, dtype=torch.uint8)
INSIDE, OUTSIDE = torch.tensor([[1.0, 2.0], [5.0, 6.0]]), torch.tensor([[1.0, 2.0], [5.9, 6.0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": torch.full((1, 1, 6, 7), torch.nan)}, "fixed image: 42 voxels are NaN"),
        ({"moving": torch.full((1, 1, 6, 7), 3.0)}, "moving image: constant"),
        ({"fixed_spacing_mm": torch.tensor([[1.0, 0.0]])}, "fixed spacing"),
        ({"moving_affine": torch.zeros(1, 3, 3)}, "moving affine: singular"),
        ({"fixed_labels": LABELS}, "fixed labels: empty"),
        ({"moving_labels": LABELS + 3, "label_names": {1: "one"}}, "none of the expected [1]"),
        ({"points": {"landmarks": PointPairs((INSIDE,), (OUTSIDE,))}}, "landmarks: 1 moving points lie outside"),
        ({"mask": torch.zeros(1, 1, 6, 7, dtype=torch.bool)}, "mask: empty"),
    ],
)
def test_faults_of_content_are_named(changes: dict[str, object], message: str) -> None:
    found = list(content_faults(pair(**changes)))
    assert any(message in text for text in found), found
    assert len(found) == 1


def test_sound_content_has_no_fault() -> None:
    points = {"landmarks": PointPairs((INSIDE,), (INSIDE,))}
    assert list(content_faults(pair(points=points, fixed_labels=LABELS + 1, label_names={1: "one"}))) == []


@pytest.mark.usefixtures("in_this_process")
def test_a_run_saves_who_is_in_which_split(twin: Path, tmp_path: Path) -> None:
    arguments = ["--methods", "identity", "--limit", "1", "--no-panels", "--data.root", str(twin)]
    assert main(["run", "hippocampus", "--out", str(tmp_path / "run"), *arguments]) == 0
    splits = json.loads((tmp_path / "run" / SPLITS_NAME).read_text())["hippocampus"]
    assert {k: sorted(v) for k, v in splits.items()} == {
        "train": ["001", "002"],
        "val": ["003", "004"],
        "test": ["005", "006", "007"],
    }


@pytest.mark.parametrize("size", [(7, 8, 9), (8, 9, 7), (13, 11, 16)])
def test_header_of_the_box_follows_its_crop(twin: Path, size: tuple[int, int, int]) -> None:
    ramp = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    image = (10000 * ramp[0] + 100 * ramp[1] + ramp[2] + 1).astype(np.float32)
    for subject in ("001", "002"):
        rewrite(twin, "images", subject, image)
    loaded = Hippocampus(root=str(twin), size=size, match=False)
    pair = loaded.load(loaded.records("train")[0])
    top = float(np.percentile(image, 99.5))
    for voxel in np.argwhere(pair.fixed[0, 0].numpy() > 0)[::37]:
        world = (pair.fixed_affine[0].numpy() @ [*voxel, 1])[:3] * [-1, -1, 1]  # type: ignore[index]
        inside = tuple(np.round(world).astype(int))
        expected = min(1.0, (image[inside] - image.min()) / (top - image.min()))
        assert pair.fixed[0, 0][tuple(voxel)] == pytest.approx(expected, abs=1e-5)
