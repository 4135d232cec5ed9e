"""The tasks of Learn2Reg: twins of each in the form that is distributed, and every fault named with its file."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.learn2reg import Learn2Reg
from reg_bench import cli
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import inspect
from reg_bench.learn2reg_presets import PRESETS
from reg_bench.results import read_rows
from tests import learn2reg_twins as twins

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a twin, written when first asked for."""
    root, made = tmp_path_factory.mktemp("learn2reg"), {}

    def get(task: str) -> Path:
        if task not in made:
            made[task] = twins.write_task(root, task)
        return made[task]

    return get


@pytest.fixture
def copy(twin: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda task: Path(shutil.copytree(twin(task), tmp_path / task))


def faults(root: Path, **options: Any) -> list[str]:
    return [str(f) for f in inspect(Learn2Reg(root=root, **options), limit=2).faults]


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Changes the dataset JSON of a folder."""
    (path,) = folder.glob("*_dataset.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def sides(case: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Subject and modality of fixed and moving."""
    fixed, moving = (tuple(int(part) for part in side.split("_")) for side in case.split("-"))
    return (fixed[0], fixed[1]), (moving[0], moving[1])


# ---------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("task", twins.TASKS)
def test_twin_is_read_as_it_was_written(task: str, twin: Callable[[str], Path]) -> None:
    folder, wrote = twin(task), twins.TASKS[task]
    data = Learn2Reg(root=folder, intensity="raw")
    result = inspect(data)
    assert not result.faults
    people = [set(data.subjects()[split]) for split in SPLITS]
    assert all(people)
    assert len(set.union(*people)) == sum(map(len, people))
    for split in SPLITS:
        for case in data.case_ids(split)[:3]:  # type: ignore[arg-type]
            pair, (fixed, moving) = data.case(case, split), sides(case)  # type: ignore[arg-type]
            for role, (subject, modality) in (("fixed", fixed), ("moving", moving)):
                expected = twins.image(subject, modality, twins.is_ct(task, modality))
                assert np.array_equal(getattr(pair, role)[0, 0].numpy(), expected)
                spacing = getattr(pair, f"{role}_spacing_mm")
                assert spacing is not None
                np.testing.assert_allclose(spacing[0].numpy(), twins.spacing_of(modality))
                written = getattr(pair, f"{role}_labels")
                if "labels" in wrote:
                    assert np.array_equal(written[0, 0].numpy(), twins.labels(subject, modality, wrote["labels"]))
                else:
                    assert written is None
            assert pair.label_names == ({v: f"organ {v}" for v in wrote["labels"]} if "labels" in wrote else None)
            masked = "mask" in wrote["data"] and PRESETS[task].masked
            assert (pair.mask is not None) == masked
            if pair.mask is not None:
                assert np.array_equal(pair.mask[0, 0].numpy(), twins.mask(*fixed) == 1)


def test_val_pairs_of_the_challenge_are_the_test_and_never_trained_on(twin: Callable[[str], Path]) -> None:
    for task, wrote in twins.TASKS.items():
        data = Learn2Reg(root=twin(task))
        official = [f"{a:04d}_{m:04d}-{b:04d}_{n:04d}" for (a, m), (b, n) in wrote["val"]]
        if task == "ThoraxCBCT":
            # Nothing is published to score them: two others are held out, and yet nobody trains on them.
            assert not set(data.case_ids("test")) & set(official)
            assert Learn2Reg(root=twin(task), test="registration_val").case_ids("test") == official
        else:
            assert data.case_ids("test") == official
        trained = set(data.subjects()["train"]) | set(data.subjects()["val"])
        assert not trained & {f"{s:04d}" for pair in wrote["val"] for s, _ in pair}


def test_splits_are_those_of_the_seed(twin: Callable[[str], Path]) -> None:
    first, again, other = (Learn2Reg(root=twin("AbdomenCTCT"), seed=s) for s in (0, 0, 5))
    assert [first.case_ids(s) for s in SPLITS] == [again.case_ids(s) for s in SPLITS]  # type: ignore[arg-type]
    assert first.case_ids("test") == other.case_ids("test")
    assert first.case_ids("train") != other.case_ids("train")
    assert len(Learn2Reg(root=twin("AbdomenCTCT"), train_pairs=2).case_ids("train")) == 2
    assert len(first.case_ids("train")) == 6
    assert first.checksum() != Learn2Reg(root=twin("AbdomenCTCT"), intensity="raw").checksum()


def test_hybrid_trains_on_own_and_on_foreign_pairs(twin: Callable[[str], Path]) -> None:
    cases = [sides(c) for c in Learn2Reg(root=twin("AbdomenMRCT")).case_ids("train")]
    assert all(fixed[1] == 0 and moving[1] == 1 for fixed, moving in cases)
    own = [c for c in cases if c[0][0] == c[1][0]]
    assert len(own) == 2
    assert len(cases) > len(own)
    assert {17, 18} <= {fixed[0] for fixed, _ in cases}
    assert {30, 31} <= {moving[0] for _, moving in cases}


def test_test_images_with_truth_are_the_test(copy: Callable[[str], Path]) -> None:
    folder = copy("AbdomenCTCT")
    assert Learn2Reg(root=folder, test="registration_test").case_ids("test") == ["0031_0000-0032_0000"]
    for subject in (31, 32):
        twins.write(folder / "labelsTs" / twins.file_name("AbdomenCTCT", subject, 0), twins.labels(subject, 0, (1, 6)))
    data = Learn2Reg(root=folder)
    assert data.case_ids("test") == ["0031_0000-0032_0000"]
    assert data.case_ids("val") == ["0001_0000-0004_0000", "0001_0000-0007_0000", "0004_0000-0007_0000"]
    assert set(data.subjects()["train"]) == {"0002", "0003", "0005", "0006", "0008"}
    assert len(Learn2Reg(root=folder, test="holdout", holdout=0.4).subjects()["test"]) == 2


@pytest.mark.parametrize(("task", "base"), [("LungCT", "landmarks"), ("CuRIOUS", "landmarks"), ("NLST", "keypoints")])
def test_points_lie_in_csv_though_the_json_says_otherwise(task: str, base: str, twin: Callable[[str], Path]) -> None:
    data = Learn2Reg(root=twin(task))
    for case in data.case_ids("test"):
        pair, (fixed, moving) = data.case(case), sides(case)
        assert pair.points is not None
        assert pair.points[base].fixed[0].tolist() == twins.points(*fixed).tolist()
        assert pair.points[base].moving[0].tolist() == twins.points(*moving).tolist()
        # Index to index: the moving points stay in voxels of the moving image.
        assert pair.moving_spacing_mm is not None
        assert pair.fixed_spacing_mm is not None
        assert not torch.equal(pair.moving_spacing_mm, pair.fixed_spacing_mm)


@pytest.mark.parametrize("name", ["keypoints{}Tr", "keypoints0000000{}Tr", "keypoints000{}0000Tr"])
def test_points_of_two_modalities(name: str, copy: Callable[[str], Path]) -> None:
    """Each planning CT has two sets, one for each partner; the organisers' evaluation knows another folder name."""
    folder = copy("ThoraxCBCT")
    if name != "keypoints{}Tr":
        for partner in "12":
            (folder / f"keypoints0{partner}Tr").rename(folder / name.format(partner))
        edit(folder, lambda c: [e.pop(k, None) for e in c["training"] for k in ("keypoints01", "keypoints02")])
    data = Learn2Reg(root=folder)
    for case in data.case_ids("train"):
        pair, (fixed, moving) = data.case(case, "train"), sides(case)
        seed = fixed[0] + 50 * fixed[1]
        assert pair.points is not None
        for values, side in ((pair.points["keypoints"].fixed, fixed), (pair.points["keypoints"].moving, moving)):
            expected = twins.points(seed, side[1]) + twins.centre(*side) - twins.centre(seed, side[1])
            np.testing.assert_allclose(values[0].numpy(), expected, atol=6e-4)


def test_a_single_point_is_read(copy: Callable[[str], Path]) -> None:
    folder = copy("CuRIOUS")
    for path in (folder / "landmarksTr").iterdir():
        path.write_text("1.5,2.25,3\n")
    assert not faults(folder)
    pair = Learn2Reg(root=folder).dataset("test")[0]
    assert pair.points["landmarks"].fixed[0].tolist() == [[1.5, 2.25, 3]]


def test_intensities(twin: Callable[[str], Path]) -> None:
    case = "0006_0000-0006_0001"
    mr, ct = twins.image(6, 0, ct=False), twins.image(6, 1)
    pair = Learn2Reg(root=twin("AbdomenMRCT")).case(case)
    np.testing.assert_allclose(pair.moving[0, 0].numpy(), np.clip((ct + 500) / 1300, 0, 1), atol=1e-6)
    upper = np.percentile(mr, 99.5)
    np.testing.assert_allclose(pair.fixed[0, 0].numpy(), np.clip((mr - mr.min()) / (upper - mr.min()), 0, 1), atol=1e-3)
    narrow = Learn2Reg(root=twin("AbdomenMRCT"), window=(-1000, 100)).case(case)
    np.testing.assert_allclose(narrow.moving[0, 0].numpy(), np.clip((ct + 1000) / 1100, 0, 1), atol=1e-6)
    assert torch.equal(narrow.fixed, pair.fixed)
    # As the pyramid paper: CT by the fixed image, the others by their own.
    lung = Learn2Reg(root=twin("LungCT"), intensity="paper2").case("0001_0000-0001_0001")
    fixed, moving = twins.image(1, 0), twins.image(1, 1)
    span = fixed.max() - fixed.min()
    np.testing.assert_allclose(lung.moving[0, 0].numpy(), (moving - fixed.min()) / span, atol=1e-5)
    paper = Learn2Reg(root=twin("AbdomenMRCT"), intensity="paper2").case(case)
    assert (float(paper.fixed.min()), float(paper.fixed.max())) == (0, 1)


def test_ct_stored_with_an_offset(copy: Callable[[str], Path]) -> None:
    folder = copy("NLST")
    before = Learn2Reg(root=folder).case("0101_0000-0101_0001")
    for path in (folder / "imagesTr").glob("NLST_0101_*"):
        twins.write(path, twins.image(101, int(path.name[10:14])) + 1000)
    after = Learn2Reg(root=folder).case("0101_0000-0101_0001")
    torch.testing.assert_close(before.fixed, after.fixed)
    torch.testing.assert_close(before.moving, after.moving)
    twins.write(folder / "imagesTr" / "NLST_0101_0000.nii.gz", twins.image(101, 0) + 9000)
    with pytest.raises(DataError, match=r"NLST_0101_0000.*outside the window -1000 to 500 HU"):
        Learn2Reg(root=folder).case("0101_0000-0101_0001")


def test_masks(copy: Callable[[str], Path], twin: Callable[[str], Path]) -> None:
    """The challenge counts voxels that are exactly 1, and masks some tasks only."""
    assert Learn2Reg(root=twin("AbdomenCTCT")).dataset("test")[0].mask is None
    assert Learn2Reg(root=twin("AbdomenCTCT"), masks=True).dataset("test")[0].mask is not None
    assert Learn2Reg(root=twin("LungCT"), masks=False).dataset("test")[0].mask is None
    folder = copy("LungCT")
    values = twins.mask(1, 0) * 2
    values[8, 7, 7] = 1
    twins.write(folder / "masksTr" / "LungCT_0001_0000.nii.gz", values)
    assert int(Learn2Reg(root=folder).case("0001_0000-0001_0001").mask.sum()) == 1  # type: ignore[union-attr]
    twins.write(folder / "masksTr" / "LungCT_0001_0000.nii.gz", twins.mask(1, 0) * 255)
    with pytest.raises(DataError, match=r"masksTr/LungCT_0001_0000.*\[0, 255\], expected 1"):
        Learn2Reg(root=folder).case("0001_0000-0001_0001")


def test_folders_in_small_letters(copy: Callable[[str], Path]) -> None:
    folder = copy("LungCT")
    for kind in ("images", "masks", "keypoints", "landmarks"):
        (folder / f"{kind}Tr").rename(folder / f"{kind}tr")
    data = Learn2Reg(root=folder)
    assert not inspect(data, limit=1).faults
    assert set(data.dataset("test")[0].points) == {"landmarks", "keypoints"}


# ---------------------------------------------------------------------------------------- which task it is


def test_task_is_chosen_where_several_lie(twin: Callable[[str], Path]) -> None:
    root = twin("LungCT").parent
    twin("OASIS")
    with pytest.raises(DataError, match=r"several tasks here, .*LungCT.*choose by `task`"):
        Learn2Reg(root=root).records("test")
    assert Learn2Reg(root=root, task="OASIS").case_ids("test")[0] == "0395_0000-0396_0000"
    assert Learn2Reg(root=root, task="lungct").case_ids("test")[0] == "0001_0000-0001_0001"
    with pytest.raises(DataError, match=r"no task 'AbdomenXX' here; found .*LungCT.*Presets: LungCT"):
        Learn2Reg(root=root, task="AbdomenXX").records("test")


def test_another_task_is_never_taken_for_the_one_asked_for(copy: Callable[[str], Path]) -> None:
    folder = copy("LungCT")
    with pytest.raises(DataError, match="no task 'OASIS' here; found LungCT"):
        Learn2Reg(root=folder, task="OASIS").records("test")
    edit(folder, lambda c: c.update(name="LungCT_CT"))
    data = Learn2Reg(root=folder, task="LungCT")
    assert data.dataset("test")[0].mask is not None
    assert "taken for LungCT" in str([str(f) for f in data.survey().findings])
    # A task without preset: what the file says is enough.
    edit(folder, lambda c: c.update(name="NewLung"))
    assert len(Learn2Reg(root=folder).records("test")) == 2


def test_the_json_is_right_where_the_preset_disagrees(copy: Callable[[str], Path]) -> None:
    folder = copy("HippocampusMR")
    edit(folder, lambda c: c.update(labels={"0": {"0": "background", "1": "head"}}))
    data = Learn2Reg(root=folder)
    assert data.dataset("test")[0].label_names == {1: "head"}
    notes = [str(f) for f in data.survey().findings if f.severity == "note"]
    assert any("labels is {1: 'head'}, HippocampusMR has {1: 'anterior', 2: 'posterior'}" in n for n in notes)
    edit(folder, lambda c: [c.pop(k) for k in ("labels", "pairings", "modality", "registration_direction")])
    assert Learn2Reg(root=folder).dataset("test")[0].label_names == {1: "anterior", 2: "posterior"}


def test_options_that_make_no_sense(twin: Callable[[str], Path]) -> None:
    for options, message in (
        ({"holdout": 1.0}, "holdout must lie between"),
        ({"window": (5.0, 5.0)}, "window must be"),
        ({"size": (1, 64, 64)}, "size must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            Learn2Reg(root=twin("OASIS"), **options)  # type: ignore[arg-type]


def test_nothing_there(tmp_path: Path) -> None:
    assert "no task of Learn2Reg here" in str(faults(tmp_path))
    with pytest.raises(DataError, match=r"(?s)does not exist.*learn2reg\.grand-challenge\.org.*_dataset\.json"):
        Learn2Reg(root=tmp_path / "absent").records("test")


# ------------------------------------------------------------------------------------------------ faults


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


FAULTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "image missing": (
        lambda f: (f / "imagesTr/LungCT_0004_0001.nii.gz").unlink(),
        ("imagesTr/LungCT_0004_0001.nii.gz: no such file; LungCT_dataset.json names it as image",),
    ),
    "mask missing": (
        lambda f: (f / "masksTr/LungCT_0004_0000.nii.gz").unlink(),
        ("masksTr/LungCT_0004_0000.nii.gz: no such file; LungCT_dataset.json names it as mask",),
    ),
    "points missing": (
        lambda f: (f / "keypointsTr/LungCT_0005_0000.csv").unlink(),
        ("keypointsTr/LungCT_0005_0000.nii.gz: no such file; LungCT_dataset.json names it as keypoints",),
    ),
    "shape": (
        lambda f: twins.write(f / "imagesTr/LungCT_0003_0000.nii.gz", twins.image(3, 0)[1:]),
        (
            "imagesTr/LungCT_0003_0000.nii.gz: shape (17, 14, 16), expected (18, 14, 16) (tensorImageShape)",
            "masksTr/LungCT_0003_0000.nii.gz: shape (18, 14, 16), expected (17, 14, 16) as its image",
        ),
    ),
    "truncated": (
        lambda f: (f / "imagesTr/LungCT_0006_0001.nii.gz").write_bytes(b"\x1f\x8b" + b"0" * 40),
        ("imagesTr/LungCT_0006_0001.nii.gz: unreadable or truncated",),
    ),
    "points of other length": (
        lambda f: _append(f / "landmarksTr/LungCT_0001_0001.csv", "1,2,3\n"),
        ("landmarksTr/LungCT_0001_0001.csv: 8 points, expected 7 as in landmarksTr/LungCT_0001_0000.csv",),
    ),
    "points that are no numbers": (
        lambda f: _append(f / "keypointsTr/LungCT_0001_0000.csv", "1,x,3\n"),
        ("keypointsTr/LungCT_0001_0000.csv: point 8 is ['1', 'x', '3'], expected finite numbers",),
    ),
    "pair twice": (
        lambda f: edit(f, lambda c: c["registration_val"].append(c["registration_val"][0])),
        ("LungCT_dataset.json: registration_val[2] repeats the pair of './imagesTr/LungCT_0001_0000.nii.gz'",),
    ),
    "pair with itself": (
        lambda f: edit(
            f,
            lambda c: c["training_paired_images"].append(dict.fromkeys(("fixed", "moving"), c["training"][0]["image"])),
        ),
        ("training_paired_images[6] pairs './imagesTr/LungCT_0001_0000.nii.gz' with itself",),
    ),
    "pair of an unknown image": (
        lambda f: edit(f, lambda c: c["registration_val"][1].update(moving="./imagesTr/LungCT_0099_0001.nii.gz")),
        ("registration_val[1] names './imagesTr/LungCT_0099_0001.nii.gz', which is neither among training nor",),
    ),
    "image twice": (
        lambda f: edit(f, lambda c: c["training"].append(c["training"][3])),
        ("LungCT_dataset.json: training lists './imagesTr/LungCT_0002_0001.nii.gz' twice",),
    ),
    "name": (
        lambda f: edit(f, lambda c: c["training"].append({"image": "./imagesTr/LungCT_1.nii.gz"})),
        ("names './imagesTr/LungCT_1.nii.gz', expected a name ending in _SSSS_mmmm.nii.gz",),
    ),
    "zero spacing": (
        lambda f: _zero_spacing(f / "imagesTr/LungCT_0005_0000.nii.gz"),
        ("imagesTr/LungCT_0005_0000.nii.gz: zero spacing",),
    ),
}


def _zero_spacing(path: Path) -> None:
    import gzip

    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = b"\0\0\0\0"
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str, copy: Callable[[str], Path]) -> None:
    folder = copy("LungCT")
    plant, expected = FAULTS[fault]
    plant(folder)
    found = [str(f) for f in Learn2Reg(root=folder).survey().faults]
    for text in expected:
        assert [f for f in found if text in f], found
    with pytest.raises(DataError, match=r"learn2reg: .*fault"):
        Learn2Reg(root=folder).records("test")


def test_all_faults_are_named_at_once(copy: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    folder = copy("LungCT")
    for plant, _ in FAULTS.values():
        plant(folder)
    out = tmp_path / "out"
    assert cli.main(["data", "check", "learn2reg", "--root", str(folder), "--out", str(out), "--limit", "1"]) == 1
    printed = capsys.readouterr().out
    for _, expected in FAULTS.values():
        for text in expected:
            assert text in printed


def test_exit_status(twin: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    command = ["data", "check", "learn2reg", "--out", str(tmp_path), "--limit", "1", "--no-checksums", "--root"]
    assert cli.main([*command, str(twin("OASIS"))]) == 0
    assert "no fault" in capsys.readouterr().out
    assert cli.main([*command, str(tmp_path / "absent")]) == 2


def test_points_outside_are_named_and_scored(copy: Callable[[str], Path]) -> None:
    folder = copy("CuRIOUS")
    path = folder / "landmarksTr" / "CuRIOUS_0003_0000.csv"
    path.write_text(path.read_text().replace(path.read_text().splitlines()[1], "40,1,2", 1))
    data = Learn2Reg(root=folder)
    found = [str(f) for f in data.survey().findings]
    assert any("landmarksTr/CuRIOUS_0003_0000.csv: 1 of 7 points lie outside" in f for f in found)
    assert any("landmarks: 1 fixed points lie outside" in f for f in faults(folder))
    assert data.case("0003_0000-0003_0002").points is not None


def test_label_of_another_size(copy: Callable[[str], Path]) -> None:
    folder = copy("OASIS")
    twins.write(folder / "labelsTr" / "OASIS_0395_0000.nii.gz", twins.labels(395, 0, (1, 2))[:, 1:])
    assert any(
        "labelsTr/OASIS_0395_0000.nii.gz: shape (18, 13, 16), expected (18, 14, 16)" in f for f in faults(folder)
    )


def test_header_that_disagrees_is_a_note(copy: Callable[[str], Path]) -> None:
    folder = copy("OASIS")
    wrote = twins.labels(395, 0, range(1, 36))
    twins.write(folder / "labelsTr" / "OASIS_0395_0000.nii.gz", wrote, (3, 3, 3))
    data = Learn2Reg(root=folder)
    assert not data.survey().faults
    notes = [str(f) for f in data.survey().findings]
    assert any("labelsTr/OASIS_0395_0000.nii.gz: the header disagrees with that of its image" in n for n in notes)
    pair = data.case("0395_0000-0396_0000")
    assert pair.fixed_labels is not None
    assert np.array_equal(pair.fixed_labels[0, 0].numpy(), wrote)


def test_test_images_that_are_not_here_are_a_note(copy: Callable[[str], Path]) -> None:
    folder = copy("AbdomenCTCT")
    (folder / "imagesTs" / "AbdomenCTCT_0031_0000.nii.gz").unlink()
    assert any("imagesTs/AbdomenCTCT_0031_0000.nii.gz: no such file" in f for f in faults(folder))
    shutil.rmtree(folder / "imagesTs")
    data = Learn2Reg(root=folder)
    assert not data.survey().faults
    assert any("none of the 2 test images is here" in str(f) for f in data.survey().findings)
    assert any("'registration_test', but no such pairs" in f for f in faults(folder, test="registration_test"))


def test_broken_voxels_fail_their_own_case(copy: Callable[[str], Path]) -> None:
    folder = copy("HippocampusMR")
    broken = twins.image(201, 0, ct=False)
    broken[3, 3, 3] = np.nan
    twins.write(folder / "imagesTr" / "HippocampusMR_0201_0000.nii.gz", broken)
    found = faults(folder)
    assert any("HippocampusMR_0201_0000.nii.gz: 1 of 4032 voxels are NaN" in f for f in found)
    assert not Learn2Reg(root=folder).survey().faults


# -------------------------------------------------------------------------------------------------- 2020


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("learn2reg-2020")
    twins.write_task_2020(root, 2)
    twins.write_task_2020(root, 3, pairs="fixed,moving\n1,2\n2,3\n")
    twins.write_task_2020(root, 4)
    return root


@pytest.mark.parametrize(("task", "number"), [("LungCT", 2), ("AbdomenCTCT", 3), ("HippocampusMR", 4)])
def test_2020_is_read_as_it_was_written(task: str, number: int, old: Path) -> None:
    data = Learn2Reg(root=old, task=task, edition=2020, intensity="raw")
    result = inspect(data, limit=3)
    assert not result.faults
    assert result.loaded
    people = [set(data.subjects()[split]) for split in SPLITS]
    assert all(people)
    assert len(set.union(*people)) == sum(map(len, people))
    pair = data.dataset("test")[0]
    (fixed, moving), ct = sides(pair.case_ids[0]), number != 4
    assert np.array_equal(pair.fixed[0, 0].numpy(), twins.image(*fixed, ct=ct))
    assert np.array_equal(pair.moving[0, 0].numpy(), twins.image(*moving, ct=ct))
    if number == 2:
        # Fixed is exhale, moving inhale, of one person.
        assert fixed == (moving[0], 0)
        assert moving[1] == 1
        assert pair.points["landmarks"].fixed[0].tolist() == twins.points(*fixed).tolist()
        assert pair.points["landmarks"].moving[0].tolist() == twins.points(*moving).tolist()
        assert np.array_equal(pair.mask[0, 0].numpy(), twins.mask(*fixed) == 1)
    else:
        values = range(1, 14) if number == 3 else (1, 2)
        assert np.array_equal(pair.moving_labels[0, 0].numpy(), twins.labels(*moving, values))
        assert list(pair.label_names) == list(values)
        assert pair.mask is None
    if number == 3:
        assert data.case_ids("test") == ["0001_0000-0002_0000", "0002_0000-0003_0000"]
        assert not {"0001", "0002", "0003"} & (people[0] | people[1])


def test_2020_is_found_by_looking(old: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"several tasks here, LungCT \(2020\), AbdomenCTCT \(2020\)"):
        Learn2Reg(root=old).records("test")
    assert Learn2Reg(root=old / "task_04").records("test")
    assert Learn2Reg(root=old / "task_02" / "training").records("test")
    shutil.copytree(old / "task_04" / "Training", tmp_path / "Task_04" / "training")
    (tmp_path / "Task_04" / "training" / "pairs_val.csv").write_text("fixed,moving\n003,7\n")
    assert Learn2Reg(root=tmp_path).case_ids("test") == ["0003_0000-0007_0000"]
    assert "no task of 2020" in str(faults(tmp_path / "Task_04" / "training" / "label", edition="2020"))


def test_2020_faults_are_named_all_at_once(old: Path, tmp_path: Path) -> None:
    lungs = Path(shutil.copytree(old / "task_02", tmp_path / "task_02"))
    training = lungs / "training"
    (training / "scans" / "case_004_insp.nii.gz").unlink()
    (training / "lungMasks" / "case_005_exp.nii.gz").unlink()
    (training / "lms" / "case_001.txt").write_text("1,2,3,4,5\n")
    (training / "lms" / "case_077.txt").write_text("1,2,3,4,5,6\n")
    twins.write(training / "scans" / "case_006_exp.nii.gz", twins.image(6, 0)[:-2])
    (lungs / "pairs_val.csv").write_text("fixed,moving\n1,1\n1,1\n2,3\n99,99\n3,3\n")
    (training / "scans" / "notes.txt").write_text("")
    found = "\n".join(faults(lungs))
    for text in (
        "training/scans/case_004_insp.nii.gz: no such file, expected the other phase",
        "training/lungMasks/case_005_exp.nii.gz: no such file, expected the lung mask",
        "training/lms/case_001.txt: row 1 is '1,2,3,4,5', expected six numbers",
        "training/lms/case_077.txt: landmarks of a case that is not there",
        "training/scans/case_006_exp.nii.gz: shape (16, 14, 16), expected (18, 14, 16) as the others",
        "pairs_val.csv: line 3: the pair 0001, 0001 occurs twice",
        "pairs_val.csv: line 4: two cases, expected one",
        "pairs_val.csv: line 5: fixed '99' is not the number of a case here",
    ):
        assert text in found
    notes = [str(f) for f in Learn2Reg(root=lungs).survey().findings if f.severity == "note"]
    assert any("notes.txt: expected case_NNN_exp.nii.gz" in n for n in notes)
    organs = Path(shutil.copytree(old / "task_03", tmp_path / "task_03"))
    (organs / "Training" / "label" / "label0002.nii.gz").unlink()
    (organs / "Training" / "img" / "img0005.nii.gz").unlink()
    (organs / "pairs_val.csv").write_text("a,b\n1,2\n")
    found = "\n".join(faults(organs))
    assert "Training/label/label0002.nii.gz: no such file, expected the labels" in found
    assert "Training/label/label0005.nii.gz: labels of an image that is not there" in found
    assert "pairs_val.csv: no column 'fixed'; found a, b" in found


def test_2020_landmarks_that_are_missing(old: Path, tmp_path: Path) -> None:
    """One of many is a fault; where most have none, only of a pair to validate on."""
    lungs = Path(shutil.copytree(old / "task_02", tmp_path / "task_02"))
    lms = lungs / "training" / "lms"
    assert len(list(lms.iterdir())) == 3
    assert not faults(lungs)
    notes = [str(f) for f in Learn2Reg(root=lungs).survey().findings]
    assert any("lms/case_004.txt: no such file" in n for n in notes)
    (lungs / "pairs_val.csv").write_text("fixed,moving\n4,4\n")
    assert [f for f in faults(lungs) if "lms/case_004.txt: no such file, expected the landmarks of" in f]
    people = [int(path.name[5:8]) for path in (lungs / "training" / "scans").glob("*_exp.nii.gz")]
    for person in people:
        shutil.copy(lms / "case_001.txt", lms / f"case_{person:03d}.txt") if person > 3 else None
    assert not faults(lungs)
    (lms / "case_005.txt").unlink()
    assert [f for f in faults(lungs) if "lms/case_005.txt: no such file" in f]
    # Nobody has any: they were not distributed.
    shutil.rmtree(lms)
    (lungs / "pairs_val.csv").unlink()
    assert not faults(lungs)


@pytest.mark.parametrize(
    ("task", "file"), [("task_02", "scans/case_003_insp.nii.gz"), ("task_04", "img/hippocampus_003.nii.gz")]
)
def test_2020_image_of_another_dimension(task: str, file: str, old: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(old / task, tmp_path / task))
    (path,) = folder.glob(f"*/{file}")
    twins.write(path, twins.image(3, 1)[..., 4])
    assert any(f"{file}: a 2-D image (18, 14), expected 3-D" in f for f in faults(folder))


def test_test_images_that_are_kept_back_need_not_be_listed(copy: Callable[[str], Path]) -> None:
    folder = copy("AbdomenCTCT")
    shutil.rmtree(folder / "imagesTs")
    edit(folder, lambda c: c.update(test=[], numTest=0))
    assert not faults(folder)
    notes = [str(f) for f in Learn2Reg(root=folder).survey().findings]
    assert any("registration_test[0] names './imagesTs/" in n for n in notes)


def test_images_that_no_pair_needs_are_opened(copy: Callable[[str], Path]) -> None:
    folder, few = copy("AbdomenCTCT"), {"train_pairs": 1, "val_pairs": 1}
    used = {s for people in Learn2Reg(root=folder, **few).subjects().values() for s in people}  # type: ignore[arg-type]
    free = next(s for s in twins.TASKS["AbdomenCTCT"]["train"] if f"{s:04d}" not in used)
    damaged = twins.image(free, 0).astype(np.float32)
    damaged[2, 3, 4] = np.nan
    files = [f"imagesTr/{twins.file_name('AbdomenCTCT', free, 0)}", f"imagesTs/{twins.file_name('AbdomenCTCT', 31, 0)}"]
    for file in files:
        twins.write(folder / file, damaged)
    found = [str(f) for f in inspect(Learn2Reg(root=folder, **few)).faults]  # type: ignore[arg-type]
    assert [f.split(":")[0] for f in found] == files
    assert all("1 of 4032 voxels are NaN" in f for f in found)


# ------------------------------------------------------------------------------------------ size and runs


def test_resampled_pair_is_scored_at_full_resolution(twin: Callable[[str], Path]) -> None:
    full = Learn2Reg(root=twin("LungCT")).dataset("test")[0]
    small = Learn2Reg(root=twin("LungCT"), size=(8, 8, 8)).dataset("test")[0]
    assert small.spatial_shape == (8, 8, 8)
    assert small.scored is not None
    assert torch.equal(small.scored.fixed, full.fixed)
    assert torch.equal(small.scored.points["landmarks"].moving[0], full.points["landmarks"].moving[0])


@pytest.mark.usefixtures("in_this_process")
def test_identity_scores_the_same_through_a_smaller_grid(twin: Callable[[str], Path], tmp_path: Path) -> None:
    """The shipped suite, its task once more with the images resampled for the method."""
    content = yaml.safe_load((ROOT / "benchmarks" / "suites" / "learn2reg-lungct.yaml").read_text())
    small = {**content["tasks"][0], "name": "small"}
    small["init_args"] = {**small["init_args"], "size": [10, 12, 8]}
    content["tasks"].append(small)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(content))
    arguments = [str(tmp_path / "suite.yaml"), "--data.root", str(twin("LungCT")), "--out", str(tmp_path / "run")]
    assert cli.main(["run", *arguments, "--no-panels", "--methods", "identity,demons-symmetric", "--limit", "2"]) == 0
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"ok"}
    values = {
        (row["key"]["task"], row["key"]["method"], row["key"]["case"]): {
            (v["metric"], v["profile"], v["label"]): v["value"] for v in row["values"]
        }
        for row in rows
    }
    for (task, method, case), found in values.items():
        full = values["LungCT", method, case]
        assert set(found) == set(full)
        same = found == pytest.approx(full, abs=1e-6)
        assert same == (task == "LungCT" or method == "identity")
    # At full resolution, in the moving spacing: the landmarks as they were written.
    found = values["small", "identity", "0001_0000-0001_0001"]
    apart = (twins.points(1, 0) - twins.points(1, 1)) * twins.MOVING_SPACING
    assert found["tre_landmarks", "learn2reg", "all"] == pytest.approx(np.linalg.norm(apart, axis=1).mean(), rel=1e-5)
    warped = [values["small", "demons-symmetric", case]["tre_landmarks", "strict", "all"] for _, _, case in values]
    assert max(warped) < found["tre_landmarks", "strict", "all"]


def test_suites_score_what_the_challenge_scores() -> None:
    shipped = sorted((ROOT / "benchmarks" / "suites").glob("learn2reg-*.yaml"))
    assert len(shipped) == 11
    for path in shipped:
        content = yaml.safe_load(path.read_text())
        (task,) = content["tasks"]
        preset, year = PRESETS[task["name"]], task["init_args"]["edition"]
        assert task["init_args"]["task"] == preset.name
        assert set(preset.metrics) <= set(task["metrics"])
        assert task["primary"] == preset.primary
        assert content.get("protocol", {}).get("official", "2022") == year
        short = f"2020-task{preset.task_2020}" if year == "2020" else preset.name.lower()
        assert path.stem == content["name"] == f"learn2reg-{short}"


# ------------------------------------------------------------------------------------------- real images


@pytest.mark.data
def test_real_hippocampus_in_both_layouts(data_root: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("as_l2r", ROOT / "benchmarks/data/hippocampus_as_learn2reg.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    root = data_root / "hippocampus_msd"
    found = {}
    for layout in ("2020", "2022"):
        out = tmp_path / layout
        script.main(["--out", str(out), "--layout", layout, "--subjects", "12", "--root", str(root)])
        data = Learn2Reg(root=out, edition=layout)  # type: ignore[arg-type]
        assert not inspect(data, limit=2).faults
        found[layout] = data
    assert found["2020"].case_ids("test") == found["2022"].case_ids("test")
    for case in found["2020"].case_ids("test")[:2]:
        a, b = (found[layout].case(case) for layout in ("2020", "2022"))
        assert a.spatial_shape == (64, 64, 64)
        assert torch.equal(a.fixed, b.fixed)
        assert a.moving_labels is not None
        assert b.moving_labels is not None
        assert torch.equal(a.moving_labels, b.moving_labels)
        assert set(torch.unique(a.moving_labels).tolist()) == {0, 1, 2}
