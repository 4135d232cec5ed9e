"""The scores of submissions against the official formulas, in the layouts of 2020 and since 2022."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from reg_bench import cli
from reg_bench.submission_score import score
from tests import learn2reg_oracle as oracle
from tests import learn2reg_twins as twins


def field(seed: int, shape: tuple[int, ...] = twins.SHAPE, scale: float = 3.0) -> np.ndarray:
    """Smooth, with some folds and some positions outside."""
    values = np.random.default_rng(seed).standard_normal((3, *shape))
    values = np.stack([gaussian_filter(v, 1.5) for v in values])
    return np.asarray(values / np.abs(values).max() * scale)


def write_field(path: Path, u: np.ndarray, dtype: Any = np.float32) -> None:
    array = np.moveaxis(u, 0, -1)
    if path.suffix == ".npz":
        np.savez_compressed(path, arr_0=array.astype(np.float16))
    else:
        nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4)), str(path))


def config_of(task: str, methods: list[dict[str, Any]], masked: bool) -> dict[str, Any]:
    return {
        "task_name": task,
        "evaluation_methods": methods,
        "expected_shape": [*twins.SHAPE, 3],
        "eval_pairs": [
            {r: f"./imagesTr/{twins.file_name(task, *i)}" for r, i in (("fixed", a), ("moving", b))}
            for a, b in twins.TASKS[task]["val"]
        ],
        "eval_config_version": 0.2,
        "masked_evaluation": masked,
    }


def methods_of(task: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "LogJacDetStd", "metric": "sdlogj"}]
    if "labels" in twins.TASKS[task]:
        labels = list(twins.TASKS[task]["labels"])
        found += [{"name": n, "metric": m, "labels": labels} for n, m in (("DSC", "dice"), ("HD95", "hd95"))]
    for name, dest in (("TRE_lm", "landmarks"), ("TRE_kp", "keypoints")):
        if dest in twins.TASKS[task].get("points", {}):
            found.append({"name": name, "metric": "tre", "dest": dest})
    return found


def submission(folder: Path, task: str, suffix: str = ".nii.gz", dtype: Any = np.float32) -> Path:
    folder.mkdir()
    for index, ((a, m), (b, n)) in enumerate(twins.TASKS[task]["val"]):
        write_field(folder / f"disp_{a:04d}_{m:04d}_{b:04d}_{n:04d}{suffix}", field(index), dtype)
    return folder


@pytest.mark.parametrize(
    ("task", "suffix", "dtype"),
    [
        ("LungCT", ".nii.gz", np.float32),
        ("AbdomenCTCT", ".npz", np.float16),
        ("AbdomenMRCT", ".nii.gz", np.float64),
        ("NLST", ".npz", np.float16),
    ],
)
def test_official_numbers(task: str, suffix: str, dtype: Any, tmp_path: Path) -> None:
    folder = twins.write_task(tmp_path, task)
    fields = submission(tmp_path / "s", task, suffix, dtype)
    masked = task in ("LungCT", "AbdomenMRCT", "NLST")
    expected = oracle.evaluate_2022(fields, folder, config_of(task, methods_of(task), masked))
    out = tmp_path / "metrics.json"
    dataset = str(folder / f"{task}_dataset.json")
    assert cli.main(["submit", "score", str(fields), "--dataset", dataset, "--out", str(out)]) == 0
    oracle.assert_same(json.loads(out.read_text()), expected)
    strict = json.loads((tmp_path / "metrics.strict.json").read_text())
    assert set(strict) == set(expected)
    assert set(strict["cases"]) == set(expected["cases"])
    first = next(iter(strict["cases"].values()))
    assert set(first) == {m["name"] for m in methods_of(task)} | {"nonpositive_fraction"}
    if not masked:
        # The field folds: the strict profile counts what `num_foldings` cannot.
        folding = (full_jacobian(stored(fields)) <= 0).mean()
        assert first["nonpositive_fraction"]["mean"] == pytest.approx(folding, abs=1e-6)
        assert folding > 0


def stored(fields: Path) -> np.ndarray:
    """The field of the first pair as `(3, X, Y, Z)`."""
    path = min(fields.iterdir())
    array = np.load(path)["arr_0"].astype(np.float32) if path.suffix == ".npz" else oracle.voxels(path)
    return np.asarray(np.moveaxis(array, -1, 0), float)


def full_jacobian(u: np.ndarray) -> np.ndarray:
    slopes = np.stack([np.stack(np.gradient(c)) for c in u]) + np.eye(3)[:, :, None, None, None]
    return np.asarray(np.linalg.det(slopes.transpose(2, 3, 4, 0, 1)))


@pytest.mark.parametrize("number", [2, 3, 4])
def test_official_numbers_2020(number: int, tmp_path: Path) -> None:
    pairs = [(1, 1), (2, 2), (3, 3)] if number == 2 else [(1, 2), (1, 3), (4, 2)]
    text = "fixed,moving\n" + "".join(f"{a},{b}\n" for a, b in pairs)
    folder = twins.write_task_2020(tmp_path, number, subjects=6, pairs=text)
    (tmp_path / "s" / f"task_{number:02d}").mkdir(parents=True)
    shape = twins.SHAPE if number == 4 else tuple(n // 2 for n in twins.SHAPE)
    for index, (a, b) in enumerate(pairs):
        path = tmp_path / "s" / f"task_{number:02d}" / f"disp_{a:04d}_{b:04d}.npz"
        np.savez_compressed(path, arr_0=field(index, shape).astype(np.float16))
    expected = oracle.evaluate_2020(tmp_path / "s", folder, number, pairs)
    out = tmp_path / "metrics.json"
    assert cli.main(["submit", "score", str(tmp_path / "s"), "--dataset", str(folder), "--out", str(out)]) == 0
    oracle.assert_same(json.loads(out.read_text()), expected)


def test_a_configuration_decides(tmp_path: Path) -> None:
    """Names, labels, pairs and mask are those of the file, also pairs that the dataset does not list."""
    folder = twins.write_task(tmp_path, "AbdomenCTCT")
    config = config_of("AbdomenCTCT", [], masked=True)
    names = {r: f"./imagesTr/{twins.file_name('AbdomenCTCT', s, 0)}" for r, s in (("fixed", 2), ("moving", 3))}
    config["eval_pairs"] = [config["eval_pairs"][2], names]
    config["evaluation_methods"] = [
        {"name": "organs", "metric": "dice", "labels": [1, 6, 13, 99]},
        {"name": "surfaces", "metric": "hd95", "labels": [6, 2]},
        {"name": "jac", "metric": "sdlogj"},
    ]
    fields = tmp_path / "s"
    fields.mkdir()
    for index, name in enumerate(("disp_0004_0000_0007_0000", "disp_0002_0000_0003_0000")):
        write_field(fields / f"{name}.nii.gz", field(index))
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = score(fields, [folder / "AbdomenCTCT_dataset.json"], config=tmp_path / "config.json")
    oracle.assert_same(found.official, oracle.evaluate_2022(fields, folder, config))
    assert math.isnan(found.official["cases"]["0004_0000<--0007_0000"]["organs"]["detailed"][3])


def test_labels_that_vanish_or_are_missing(tmp_path: Path) -> None:
    """Written as the official JSON does: NaN and Infinity as bare words, and what they do to the aggregates."""
    folder = twins.write_task(tmp_path, "HippocampusMR")
    names = [twins.file_name("HippocampusMR", s, 0) for s in (201, 260, 202)]
    lone = twins.labels(260, 0, (1, 2))
    lone[lone == 2] = 0
    lone[0, 0, 0] = 2
    twins.write(folder / "labelsTr" / names[1], lone)
    only = twins.labels(202, 0, (1, 2))
    twins.write(folder / "labelsTr" / names[2], np.where(only == 2, 0, only).astype(np.uint8))
    fields = submission(tmp_path / "s", "HippocampusMR")
    expected = oracle.evaluate_2022(fields, folder, config_of("HippocampusMR", methods_of("HippocampusMR"), False))
    out = tmp_path / "metrics.json"
    dataset = str(folder / "HippocampusMR_dataset.json")
    assert cli.main(["submit", "score", str(fields), "--dataset", dataset, "--out", str(out)]) == 0
    oracle.assert_same(json.loads(out.read_text()), expected)
    case = json.loads(out.read_text())["cases"]["0201_0000<--0260_0000"]
    assert case["DSC"]["detailed"][1] == 0
    assert case["HD95"]["detailed"][1] == math.inf
    assert case["HD95"]["mean"] == math.inf
    assert "Infinity" in out.read_text()
    strict = json.loads((tmp_path / "metrics.strict.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert math.isfinite(strict["cases"]["0201_0000<--0260_0000"]["HD95"]["mean"])


@pytest.mark.slow
def test_cases_in_processes_of_their_own(tmp_path: Path) -> None:
    folder = twins.write_task(tmp_path, "HippocampusMR")
    fields = submission(tmp_path / "s", "HippocampusMR")
    one, two = (score(fields, [folder / "HippocampusMR_dataset.json"], workers=n) for n in (1, 2))
    assert one.official == two.official
    assert list(one.official["cases"]) == ["0201_0000<--0260_0000", "0202_0000<--0201_0000"]


def test_what_cannot_be_scored(tmp_path: Path, capsys: Any) -> None:
    folder = twins.write_task(tmp_path, "HippocampusMR")
    dataset, out = str(folder / "HippocampusMR_dataset.json"), str(tmp_path / "m.json")
    fields = submission(tmp_path / "s", "HippocampusMR")
    config = tmp_path / "c.json"
    good = config_of("HippocampusMR", methods_of("HippocampusMR"), False)

    def told(*more: str, given: Path = fields) -> str:
        assert cli.main(["submit", "score", str(given), "--dataset", dataset, "--out", out, *more]) == 2
        assert not Path(out).exists()
        return str(capsys.readouterr().err)

    for change, message in (
        ({"task_name": "OASIS", "eval_pairs": [{"fixed": "./imagesTr/x_0999_0000.nii.gz", "moving": "b"}]}, "0999"),
        ({"evaluation_methods": []}, "evaluation_methods: expected a list"),
        ({"evaluation_methods": [{"name": "a", "metric": "ssim"}]}, r"evaluation_methods[0]: expected a name"),
        ({"evaluation_methods": [good["evaluation_methods"][0]] * 2}, "names must be unique"),
        ({"evaluation_methods": [{"name": "a", "metric": "dice", "labels": ["x"]}]}, "labels must be whole"),
        ({"evaluation_methods": [{"name": "a", "metric": "tre", "dest": "points"}]}, "dest must be landmarks"),
        ({"expected_shape": [9, 9, 9, 3]}, "expected_shape is [9, 9, 9, 3], the fixed images have [18, 14, 16, 3]"),
        ({"eval_pairs": [{"fixed": "a"}]}, "expected paths 'fixed' and 'moving'"),
        ({"evaluation_methods": [{"name": "a", "metric": "tre", "dest": "landmarks"}]}, "a needs landmarks"),
    ):
        config.write_text(json.dumps({**good, **change}))
        assert message in told("--config", str(config))
    config.write_text("{")
    assert "c.json: not a readable evaluation configuration" in told("--config", str(config))
    broken = Path(shutil.copytree(fields, tmp_path / "b"))
    (broken / "disp_0201_0000_0260_0000.nii.gz").unlink()
    assert "disp_0201_0000_0260_0000.nii.gz: is missing" in told(given=broken)
    write_field(broken / "disp_0201_0000_0260_0000.nii.gz", np.full((3, *twins.SHAPE), np.nan))
    assert "NaN or infinite" in told(given=broken)
