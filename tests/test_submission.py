"""Submissions to Learn2Reg from twins of its tasks: made, checked, scored, equal to what `run` reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from reg_bench import cli
from reg_bench.errors import ConfigError
from reg_bench.results import read_rows
from reg_bench.submission_layout import FieldId, number_of, paths, stored_shape
from reg_bench.submission_pairs import VALIDATION_2020
from tests import learn2reg_twins as twins

OLD = {2: "LungCT", 3: "AbdomenCTCT", 4: "HippocampusMR"}
PAIRS = "fixed,moving\n1,{}\n2,{}\n"
#: Name in the results of the challenge to metric and, of points, set.
NAMES = {"DSC": "dice", "HD95": "hd95", "LogJacDetStd": "sdlogj", "TRE_lm": "tre_landmarks", "TRE_kp": "tre_keypoints"}
NAMES_2020 = {"DiceCoefficient": "DSC", "HausdorffDistance95": "HD95", "LogJacDetStd": "LogJacDetStd", "TRE": "TRE_lm"}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("new"), {}

    def get(task: str) -> Path:
        if task not in made:
            made[task] = twins.write_task(root, task)
        return made[task]

    return get


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three tasks of 2020 beside each other."""
    root = tmp_path_factory.mktemp("old")
    for number in OLD:
        twins.write_task_2020(root, number, subjects=6, pairs=PAIRS.format(*((1, 2) if number == 2 else (3, 4))))
    return root


def submit(suite: str | Path, root: Path, out: Path, *more: str, method: str = "demons") -> int:
    command = ["submit", "--suite", str(suite), "--method", method, "--data.root", str(root), "--out", str(out)]
    return cli.main([*command, *more])


def run_values(suite: str, root: Path, out: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Profile and case to the values that `reg-bench run` reports."""
    command = ["run", suite, "--methods", "demons", "--data.root", str(root), "--out", str(out), "--no-panels"]
    assert cli.main(command) == 0
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in read_rows(out):
        for value in row["values"]:
            if value["label"] == "all":
                case = found.setdefault((value["profile"], row["key"]["case"]), {})
                case[value["metric"]] = value["value"]
    return found


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("task", ["LungCT", "AbdomenCTCT", "AbdomenMRCT"])
def test_from_images_to_scores(task: str, new: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    suite, folder = f"learn2reg-{task.lower()}", new(task)
    dataset, archive = str(folder / f"{task}_dataset.json"), str(tmp_path / "s" / "submission.zip")
    method = "demons" if task != "AbdomenMRCT" else "identity"
    assert submit(suite, folder, tmp_path / "s", method=method) == 0
    assert cli.main(["submit", "check", archive, "--dataset", dataset]) == 0, capsys.readouterr().out
    assert cli.main(["submit", "score", archive, "--dataset", dataset, "--out", str(tmp_path / "m.json")]) == 0
    if method == "identity":
        return
    expected = run_values(suite, folder, tmp_path / "r")
    for profile, file in (("learn2reg", "m.json"), ("strict", "m.strict.json")):
        cases = json.loads((tmp_path / file).read_text())["cases"]
        assert len(cases) == len(twins.TASKS[task]["val"])
        for case, values in cases.items():
            reported = expected[profile, case.replace("<--", "-")]
            for name, metric in NAMES.items():
                if name in values:
                    assert values[name]["mean"] == pytest.approx(reported[metric], abs=1e-9, nan_ok=True), name


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("number", OLD)
def test_from_images_to_scores_2020(number: int, old: Path, tmp_path: Path, capsys: Any) -> None:
    suite, archive = f"learn2reg-2020-task{number}", str(tmp_path / "s" / "submission.zip")
    assert submit(suite, old, tmp_path / "s", "--profile", "learn2reg-2020") == 0
    assert cli.main(["submit", "check", archive, "--dataset", str(old)]) == 0, capsys.readouterr().out
    own = ["--dataset", str(old / f"task_{number:02d}"), "--out", str(tmp_path / "m.json")]
    assert cli.main(["submit", "check", archive, *own[:2]]) == 0, capsys.readouterr().out
    assert cli.main(["submit", "score", archive, *own]) == 0
    expected = run_values(suite, old, tmp_path / "r")
    order = [f"{a:04d}_0000-{b:04d}_{int(number == 2):04d}" for a, b in ((1, 1), (2, 2))]
    if number != 2:
        order = ["0001_0000-0003_0000", "0002_0000-0004_0000"]
    for profile, file in (("learn2reg", "m.json"), ("strict", "m.strict.json")):
        task = json.loads((tmp_path / file).read_text())[f"task_{number:02d}"]
        assert {"DiceCoefficient" if number != 2 else "TRE", "LogJacDetStd"} <= set(task["case"])
        for name, values in task["case"].items():
            for index, case in enumerate(order):
                if name in NAMES_2020:
                    reported = expected[profile, case][NAMES[NAMES_2020[name]]]
                    assert values[str(index)] == pytest.approx(reported, abs=1e-9)


@pytest.mark.usefixtures("in_this_process")
def test_the_zip_of_2020_holds_all_tasks(old: Path, tmp_path: Path) -> None:
    assert submit("learn2reg-2020-task3", old / "task_03", tmp_path, "--profile", "learn2reg-2020") == 0
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        names = archive.namelist()
        arrays = {n: np.load(archive.open(n))["arr_0"] for n in names}
    assert names == sorted(names)
    own = {n: a for n, a in arrays.items() if n.startswith("task_03")}
    assert set(own) == {"task_03/disp_0001_0003.npz", "task_03/disp_0002_0004.npz"}
    assert all(a.dtype == np.float16 for a in arrays.values())
    assert all(a.shape == (3, 9, 7, 8) and a.any() for a in own.values())
    # Of the tasks that are not at hand, zero fields for the pairs that the organisers list.
    shapes = {"task_01": (3, 128, 128, 144), "task_02": (3, 96, 96, 104), "task_04": (3, 64, 64, 64)}
    for folder, shape in shapes.items():
        others = [a for n, a in arrays.items() if n.startswith(folder)]
        name = next(name for name, n in number_table().items() if f"task_{n:02d}" == folder)
        assert len(others) == len(VALIDATION_2020[name])
        assert all(a.shape == shape and not a.any() for a in others)


def number_table() -> dict[str, int]:
    return {name: number_of("learn2reg-2020", name) for name in VALIDATION_2020}


@pytest.mark.usefixtures("in_this_process")
def test_zero_fields_of_tasks_at_hand_are_theirs(old: Path, tmp_path: Path) -> None:
    assert submit("learn2reg-2020-task4", old, tmp_path, "--profile", "learn2reg-2020", method="identity") == 0
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        names = [n for n in archive.namelist() if not n.startswith("task_01")]
        assert names == [
            "task_02/disp_0001_0001.npz",
            "task_02/disp_0002_0002.npz",
            "task_03/disp_0001_0003.npz",
            "task_03/disp_0002_0004.npz",
            "task_04/disp_0001_0003.npz",
            "task_04/disp_0002_0004.npz",
        ]
        shapes = {n[:7]: np.load(archive.open(n))["arr_0"].shape for n in names}
    assert shapes == {"task_02": (3, 9, 7, 8), "task_03": (3, 9, 7, 8), "task_04": (3, *twins.SHAPE)}


@pytest.mark.usefixtures("in_this_process")
def test_forms_since_2022(new: Callable[[str], Path], tmp_path: Path) -> None:
    """Both spellings where the organisers' scripts disagree; NIfTI in float32, npz in float16."""
    folder = new("HippocampusMR")
    assert submit("learn2reg-hippocampusmr", folder, tmp_path / "a") == 0
    assert submit("learn2reg-hippocampusmr", folder, tmp_path / "b", "--profile", "learn2reg-npz") == 0
    stems = {"disp_0201_0000_0260_0000", "disp_0201_0260", "disp_0202_0000_0201_0000", "disp_0202_0201"}
    files = {p.name for p in (tmp_path / "a" / "submission").iterdir()}
    assert files == {f"{stem}.nii.gz" for stem in stems}
    assert {p.name for p in (tmp_path / "b" / "submission").iterdir()} == {f"{stem}.npz" for stem in stems}
    image = nib.load(str(tmp_path / "a" / "submission" / "disp_0201_0260.nii.gz"))
    assert image.shape == (*twins.SHAPE, 3)
    assert image.get_data_dtype() == np.float32
    half = np.load(tmp_path / "b" / "submission" / "disp_0201_0260.npz")["arr_0"]
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, np.asarray(image.dataobj), atol=2e-3)
    dataset = str(folder / "HippocampusMR_dataset.json")
    assert cli.main(["submit", "check", str(tmp_path / "b" / "submission.zip"), "--dataset", dataset]) == 0
    # The field: a ball that has to be met.
    pair = twins.centre(201, 0), twins.centre(260, 0)
    middle = np.round(pair[0]).astype(int)
    assert np.linalg.norm(np.asarray(image.dataobj)[tuple(middle)] - (pair[1] - pair[0])) < 0.6


def test_names() -> None:
    one = FieldId.parse
    assert paths("learn2reg", "LungCT", one("0001_0000-0001_0001")) == ("disp_0001_0001.nii.gz",)
    same = ("disp_0002_0000_0005_0000.nii.gz", "disp_0002_0005.nii.gz")
    assert paths("learn2reg", "OASIS", one("0002_0000-0005_0000")) == same
    assert paths("learn2reg", "ThoraxCBCT", one("0011_0001-0011_0000")) == ("disp_0011_0001_0011_0000.nii.gz",)
    assert paths("learn2reg", "CuRIOUS", one("0003_0000-0003_0002")) == ("disp_0003_0000_0003_0002.nii.gz",)
    assert paths("learn2reg-2020", "CuRIOUS", one("0003_0000-0003_0002")) == ("task_01/disp_0003_0003.npz",)
    assert paths("learn2reg-2021", "OASIS", one("0395_0000-0396_0000")) == ("task_03/disp_0395_0396.npz",)
    assert stored_shape("learn2reg-2021", "OASIS", (160, 224, 192)) == (3, 80, 112, 96)
    assert stored_shape("learn2reg-2020", "AbdomenCTCT", (192, 160, 256)) == (3, 96, 80, 128)
    assert stored_shape("learn2reg-2020", "HippocampusMR", (64, 64, 64)) == (3, 64, 64, 64)
    with pytest.raises(ConfigError, match="OASIS is no task of learn2reg-2020, which has 1 CuRIOUS, 2 LungCT"):
        paths("learn2reg-2020", "OASIS", one("0395_0000-0396_0000"))


@pytest.mark.usefixtures("in_this_process")
def test_pairs_of_the_challenge_although_nothing_can_score_them(new: Callable[[str], Path], tmp_path: Path) -> None:
    """Nothing is published to score the pairs of ThoraxCBCT: `run` takes others, a submission has to hold these."""
    assert submit("learn2reg-thoraxcbct", new("ThoraxCBCT"), tmp_path, method="identity") == 0
    names = sorted(p.name for p in (tmp_path / "submission").iterdir())
    assert names == [f"disp_{s:04d}_{f:04d}_{s:04d}_0000.nii.gz" for s in (11, 12) for f in (1, 2)]
    # The test images, which nobody has labels of.
    more = ("--pairs", "registration_test")
    assert submit("learn2reg-abdomenctct", new("AbdomenCTCT"), tmp_path / "t", *more, method="identity") == 0
    names = sorted(p.name for p in (tmp_path / "t" / "submission").iterdir())
    assert names == ["disp_0031_0000_0032_0000.nii.gz", "disp_0031_0032.nii.gz"]
    dataset = str(new("AbdomenCTCT") / "AbdomenCTCT_dataset.json")
    archive = str(tmp_path / "t" / "submission.zip")
    assert cli.main(["submit", "check", archive, "--dataset", dataset, *more]) == 0
    assert cli.main(["submit", "check", archive, "--dataset", dataset]) == 1


@pytest.mark.usefixtures("in_this_process")
def test_only_what_is_missing_is_computed(new: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    folder = new("AbdomenCTCT")
    assert submit("learn2reg-abdomenctct", folder, tmp_path) == 0
    first = (tmp_path / "submission.zip").read_bytes()
    lost = tmp_path / "submission" / "disp_0001_0007.nii.gz"
    lost.unlink()
    (tmp_path / "submission" / "disp_9999_0001.nii.gz").write_bytes(b"of another suite")
    capsys.readouterr()
    assert submit("learn2reg-abdomenctct", folder, tmp_path) == 0
    told = capsys.readouterr().err
    assert "3 results to make, 2 done before" in told
    assert "disp_9999_0001.nii.gz: of an earlier submission, removed" in told
    assert (tmp_path / "submission.zip").read_bytes() == first


@pytest.mark.usefixtures("in_this_process")
def test_no_zip_without_all_fields(new: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    suite = yaml.safe_load(Path("benchmarks/suites/learn2reg-lungct.yaml").read_text())
    suite["methods"] = [{"name": "bad", "class_path": "fake_members.Misbehaves", "init_args": {"how": "raise"}}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    (tmp_path / "submission.zip").write_bytes(b"of an earlier method")
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        assert submit(tmp_path / "suite.yaml", new("LungCT"), tmp_path, method="bad") == 1
    finally:
        sys.path.pop(0)
    told = capsys.readouterr().err
    assert "2 of 2 fields are missing, no zip was written: disp_0001_0001.nii.gz" in told
    assert "LungCT, 0001_0000-0001_0001: skipped: " in told
    assert not (tmp_path / "submission.zip").exists()


def test_bad_orders(new: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    folder = new("OASIS")
    for suite, more, message in (
        ("learn2reg-oasis", ("--profile", "learn2reg-2020"), "OASIS is no task of learn2reg-2020"),
        ("learn2reg-oasis", ("--profile", "learn2reg-2019"), "unknown profile 'learn2reg-2019'; did you mean"),
        ("phantom-cine", (), "no task of Learn2Reg in this suite"),
        ("learn2reg-oasi", (), "did you mean"),
    ):
        assert submit(suite, folder, tmp_path / "x", *more) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["submit", "--suite", "learn2reg-oasis"]) == 2
    assert "--method, --out missing" in capsys.readouterr().err
    assert not (tmp_path / "x" / "submission").exists()


@pytest.mark.slow
def test_stopped_by_ctrl_c_and_continued(new: Callable[[str], Path], tmp_path: Path) -> None:
    """Two processes; what was finished when Ctrl-C came is not computed again; the zip is that of an unbroken run."""
    suite = yaml.safe_load(Path("benchmarks/suites/learn2reg-abdomenctct.yaml").read_text())
    slow = {"sleep_s": 2.0, "journal": str(tmp_path / "journal")}
    suite["methods"] = [{"name": "slow", "class_path": "fake_members.Noise", "init_args": slow}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    command = [sys.executable, "-m", "reg_bench.cli", "submit", "--suite", str(tmp_path / "suite.yaml")]
    command += ["--method", "slow", "--data.root", str(new("AbdomenCTCT")), "--devices", "2", "--out"]

    def start(out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(out)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    stopped = start(tmp_path / "a")
    deadline = time.monotonic() + 120
    while len(read_rows(tmp_path / "a" / "run")) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, out + err
    assert "the same command goes on from there" in err
    assert not (tmp_path / "a" / "submission.zip").exists()
    done = len(read_rows(tmp_path / "a" / "run"))
    assert 1 <= done < 3
    begun = len((tmp_path / "journal").read_text().splitlines())
    for name in ("a", "b"):
        again = start(tmp_path / name)
        out, err = again.communicate(timeout=120)
        assert again.returncode == 0, out + err
        if name == "a":
            assert f"{done} done before" in err
            assert len((tmp_path / "journal").read_text().splitlines()) > begun
    assert (tmp_path / "a" / "submission.zip").read_bytes() == (tmp_path / "b" / "submission.zip").read_bytes()
