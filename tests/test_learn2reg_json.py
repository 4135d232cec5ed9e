"""The dataset JSON of Learn2Reg: every key, and every fault with its key."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reg_bench.learn2reg_json import KEYS, Entry, ImagePair, TaskJson, find_task_jsons, read_task_json
from reg_bench.learn2reg_task import find_path, parse_name, point_key

WHOLE: dict[str, Any] = {
    "name": "ThoraxCBCT",
    "release": "2",
    "description": "Subset ThoraxCBCT of Learn2Reg Dataset",
    "licence": "CC BY",
    "reference": "Hugo et al.",
    "pairings": "paired",
    "provided_data": {"0": ["image", "keypoints01", "keypoints02"]},
    "registration_direction": {"fixed": 1, "moving": 0},
    "modality": {"0": "FBCT", "1": "CBCT"},
    "img_shift": {"fixed": "followup", "moving": "baseline"},
    "labels": {"0": {"0": "background", "1": "lung"}, "1": {"0": "background", "1": "lung", "2": "heart"}},
    "tensorImageSize": {"0": "3D"},
    "tensorImageShape": {"0": [390, 280, 300]},
    "numTraining": 2,
    "numTest": 1,
    "training": [
        {
            "image": "./imagesTr/ThoraxCBCT_0000_0000.nii.gz",
            "keypoints01": "./keypoints01Tr/ThoraxCBCT_0000_0000.nii.gz",
        },
        {"image": "./imagesTr/ThoraxCBCT_0000_0001.nii.gz"},
    ],
    "test": [{"image": "./imagesTs/ThoraxCBCT_0020_0000.nii.gz"}],
    "numPairedTraining": 1,
    "training_paired_images": [
        {"fixed": "./imagesTr/ThoraxCBCT_0000_0001.nii.gz", "moving": "./imagesTr/ThoraxCBCT_0000_0000.nii.gz"}
    ],
    "numPairedTest": 0,
    "test_paired_images": [],
    "numRegistration_val": 0,
    "registration_val": [],
    "numRegistration_test": 0,
    "registration_test": [],
}


def read(folder: Path, content: Any) -> tuple[TaskJson | None, list[str]]:
    path = folder / "ThoraxCBCT_dataset.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    faults: list[str] = []
    return read_task_json(path, faults.append), faults


def test_every_key_is_read(tmp_path: Path) -> None:
    assert set(WHOLE) == set(KEYS)
    task, faults = read(tmp_path, WHOLE)
    assert not faults
    assert task is not None
    assert (task.name, task.release, task.licence, task.pairings) == ("ThoraxCBCT", "2", "CC BY", "paired")
    assert (task.description, task.reference) == (WHOLE["description"], "Hugo et al.")
    assert task.provided_data == {0: ("image", "keypoints01", "keypoints02")}
    assert (task.fixed, task.moving) == (1, 0)
    assert task.modality == {0: "FBCT", 1: "CBCT"}
    assert task.img_shift == {"fixed": "followup", "moving": "baseline"}
    assert task.labels == {1: "lung", 2: "heart"}
    assert task.dimensions == {0: "3D"}
    assert task.shapes == {0: (390, 280, 300)}
    first = WHOLE["training"][0]
    assert task.training[0] == Entry(first["image"], {"keypoints01": first["keypoints01"]})
    assert task.test == (Entry("./imagesTs/ThoraxCBCT_0020_0000.nii.gz"),)
    pair = WHOLE["training_paired_images"][0]
    assert task.training_pairs == (ImagePair(pair["fixed"], pair["moving"]),)
    assert task.test_pairs == task.registration_val == task.registration_test == ()
    assert task.notes == ()


def test_variants_that_occur(tmp_path: Path) -> None:
    """Lists for each modality apart, labels without modality, one shape, 4D as text, a release that is a number."""
    content = copy.deepcopy(WHOLE)
    content["training"] = {"0": content["training"][:1], "1": content["training"][1:]}
    content.update(labels={"0": "background", "3": "liver"}, tensorImageShape=[4, 5, 6], tensorImageSize="4D")
    content.update(release=1.1, numTraining={"0": 1, "1": 1})
    task, faults = read(tmp_path, content)
    assert not faults
    assert task is not None
    assert len(task.training) == 2
    assert (task.labels, task.shapes, task.dimensions) == ({3: "liver"}, {0: (4, 5, 6)}, {0: "4D"})
    assert task.release == "1.1"
    task, faults = read(tmp_path, {"name": "LungCT_CT", "training": [], "labels": {}})
    assert not faults
    assert task is not None
    assert (task.pairings, task.fixed, task.shapes, task.labels) == (None, None, {}, {})


def test_oddities_are_notes(tmp_path: Path) -> None:
    content = copy.deepcopy(WHOLE)
    content.update(numTraining=40, registraton_val=[])
    content["labels"]["1"]["1"] = "left lung"
    task, faults = read(tmp_path, content)
    assert not faults
    assert task is not None
    notes = "\n".join(task.notes)
    assert "numTraining is 40, but 'training' lists 2, which are used" in notes
    assert "unknown keys 'registraton_val' are left alone" in notes
    assert "label 1 is called 'lung' and 'left lung'" in notes


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no name": (lambda c: c.pop("name"), "key 'name' is missing"),
    "no training": (lambda c: c.pop("training"), "key 'training' is missing"),
    "description": (lambda c: c.update(description=3), "key 'description': expected a text, got 3"),
    "pairings": (lambda c: c.update(pairings="pairwise"), "key 'pairings': expected one of paired, unpaired, hybrid"),
    "direction": (
        lambda c: c["registration_direction"].update(fixed="CT"),
        "key 'registration_direction.fixed': expected the number of a modality, got 'CT'",
    ),
    "modality": (lambda c: c.update(modality={"CT": "0"}), "key 'modality': expected modality numbers"),
    "labels": (lambda c: c.update(labels={"0": {"lung": 1}}), "key 'labels.0.lung': expected a label number"),
    "shape": (
        lambda c: c.update(tensorImageShape={"0": [1, 2, "3"]}),
        "key 'tensorImageShape.0': expected three lengths, got [1, 2, '3']",
    ),
    "list": (lambda c: c.update(test="none"), "key 'test': expected a list, got 'none'"),
    "entry": (lambda c: c["training"].append(7), "key 'training[2]': expected a mapping with 'image', got 7"),
    "no image": (lambda c: c["training"][1].pop("image"), "key 'training[1].image' is missing"),
    "path": (lambda c: c["training"][0].update(mask=None), "key 'training[0].mask': expected the path of a file"),
    "pair": (
        lambda c: c["registration_val"].append({"fixed": "a.nii.gz"}),
        "key 'registration_val[0]': expected the paths 'fixed' and 'moving'",
    ),
    "count": (lambda c: c.update(numTest="one"), "key 'numTest': expected a number, got 'one'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_its_key(fault: str, tmp_path: Path) -> None:
    content = copy.deepcopy(WHOLE)
    change, expected = FAULTS[fault]
    change(content)
    task, faults = read(tmp_path, content)
    assert task is None
    assert any(expected in f for f in faults), faults


def test_faults_are_told_all_at_once(tmp_path: Path) -> None:
    content = copy.deepcopy(WHOLE)
    chosen = [f for f in FAULTS if f not in ("no training", "no name")]
    for name in chosen:
        FAULTS[name][0](content)
    faults = read(tmp_path, content)[1]
    for name in chosen:
        assert any(FAULTS[name][1] in f for f in faults), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "x",\n "training": [}', "not valid JSON in line 2, column 15"),
        ("[]", "expected a mapping of keys, got list"),
        ("", "not valid JSON in line 1"),
    ],
)
def test_malformed_file(text: str, message: str, tmp_path: Path) -> None:
    task, faults = read(tmp_path, text)
    assert task is None
    assert message in faults[0]


def test_names() -> None:
    assert parse_name("LungCT_0021_0001.nii.gz") == ("0021", 1)
    assert parse_name("LungCT_CT_0001_0000.nii.gz") == ("0001", 0)
    assert parse_name("LungCT_21_0001.nii.gz") is None
    assert [point_key(k) for k in ("keypoints", "landmarks", "label", "mask")] == ["keypoints", "landmarks", None, None]
    assert {point_key(k) for k in ("keypoints02", "keypoints20", "keypoints00000002")} == {"keypoints02"}


def test_files_are_found_below_the_folder_only(tmp_path: Path) -> None:
    (tmp_path / "task" / "imagestr").mkdir(parents=True)
    (tmp_path / "task" / "imagestr" / "A_0001_0000.nii.gz").touch()
    (tmp_path / "__MACOSX").mkdir()
    for place in (tmp_path / "task" / "A_dataset.json", tmp_path / "__MACOSX" / "A_dataset.json"):
        place.touch()
    found = find_path(tmp_path / "task", "./imagesTr/a_0001_0000.nii.gz")
    assert found == tmp_path / "task" / "imagestr" / "A_0001_0000.nii.gz"
    assert find_path(tmp_path / "task", "../__MACOSX") is None
    assert find_path(tmp_path / "task", str(tmp_path)) is None
    assert find_task_jsons(tmp_path) == [tmp_path / "task" / "A_dataset.json"]
