"""The Medical Segmentation Decathlon layout: a twin in its exact form, and every fault named with its file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from datamodules.msd import Msd
from reg_bench import cli
from reg_bench.discovery import find
from reg_bench.errors import ConfigError, DataError
from reg_bench.inspection import inspect
from reg_bench.results import read_rows

PEOPLE = [f"hippocampus_{n:03d}" for n in (1, 3, 4, 6, 7, 8, 11, 14, 15, 17)]
SHAPE = (14, 18, 12)


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1), direction: Any = None) -> None:
    """An array in x, y, z[, channel] order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 4:
        image = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(c.T)) for c in np.moveaxis(array, -1, 0)])
        image.SetSpacing((*spacing, 1))
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        image.SetSpacing(spacing)
        if direction is not None:
            image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def person(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels, of a shape of their own."""
    rng = np.random.default_rng(number)
    shape = tuple(n + int(rng.integers(-2, 3)) for n in SHAPE)
    grid = np.moveaxis(np.indices(shape), 0, -1) - (np.asarray(shape) - 1) / 2
    inside = (grid / (4.5, 6, 3.5)) ** 2
    labels = ((inside.sum(-1) < 1) * np.where(grid[..., 1] > 0, 1, 2)).astype(np.uint8)
    return (100 * labels + rng.normal(50, 5, shape)).astype(np.float32), labels


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("msd") / "Task04_Hippocampus"
    for number, name in enumerate(PEOPLE):
        image, labels = person(number)
        write(root / "imagesTr" / f"{name}.nii.gz", image)
        write(root / "labelsTr" / f"{name}.nii.gz", labels)
        for folder in ("imagesTr", "labelsTr"):
            (root / folder / f"._{name}.nii.gz").write_bytes(b"\0\5\26\7Mac OS X        ")
    write(root / "imagesTs" / "hippocampus_002.nii.gz", person(99)[0])
    (root / "._dataset.json").write_bytes(b"\0\5\26\7Mac OS X        ")
    content = {
        "name": "Hippocampus",
        "description": "Left and right hippocampus segmentation",
        "reference": "Vanderbilt University Medical Center",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": len(PEOPLE),
        "numTest": 1,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in reversed(PEOPLE)],
        "test": ["./imagesTs/hippocampus_002.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content, indent=1))
    return root


@pytest.fixture
def twin(original: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(original, tmp_path / "Task04_Hippocampus"))


def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((root / "dataset.json").read_text())
    change(content)
    (root / "dataset.json").write_text(json.dumps(content))


def faults(root: Path, **options: Any) -> list[str]:
    return [str(f) for f in inspect(Msd(root=root, **options)).faults]


def test_cases_are_what_was_written(original: Path) -> None:
    data = Msd(root=original, percentile=None, pairs=(6, 2, 2))
    assert {s: len(data.records(s)) for s in ("train", "val", "test")} == {"train": 6, "val": 2, "test": 2}  # type: ignore[arg-type]
    for record in (*data.records("train"), *data.records("test")):
        pair = data.load(record)
        a, b = (person(PEOPLE.index(s)) for s in record["subjects"])
        assert pair.case_ids == ("-".join(record["subjects"]),)
        assert np.array_equal(pair.fixed[0, 0].numpy(), a[0])
        assert pair.fixed_labels is not None
        assert pair.moving_labels is not None
        assert np.array_equal(pair.fixed_labels[0, 0].numpy(), a[1])
        assert pair.fixed.shape == pair.moving.shape
        # The moving image is laid centre on centre: what both boxes share is the same, voxel by voxel.
        ours, theirs = [], []
        for box, own in zip(a[0].shape, b[0].shape, strict=True):
            front, cut = max(0, (box - own) // 2), max(0, own // 2 - box // 2) if own > box else 0
            ours.append(slice(front, front + min(box, own)))
            theirs.append(slice(cut, cut + min(box, own)))
        assert np.array_equal(pair.moving[0, 0].numpy()[*ours], b[0][*theirs])
        assert np.array_equal(pair.moving_labels[0, 0].numpy()[*ours], b[1][*theirs])
        assert pair.label_names == {1: "Anterior", 2: "Posterior"}
        assert type(pair.fixed) is torch.Tensor
        assert pair.fixed_spacing_mm is not None
        assert pair.fixed_spacing_mm.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("size", [(16, 20, 12), (11, 13, 9), (17, 21, 15)])
def test_boxes_and_scaling(size: tuple[int, int, int], original: Path) -> None:
    data = Msd(root=original, size=size)
    record = data.records("test")[0]
    pair = data.load(record)
    assert pair.spatial_shape == size
    assert 0 <= float(pair.fixed.min()) < 0.01
    assert float(pair.fixed.max()) == 1
    # The affine of the box takes every labelled voxel to where its own header has it.
    assert pair.fixed_affine is not None
    assert pair.fixed_labels is not None
    image = sitk.ReadImage(record["fixed"])
    labels = person(PEOPLE.index(record["subjects"][0]))[1]
    indices = pair.fixed_labels[0, 0].nonzero().double()
    ras = (pair.fixed_affine[0] @ torch.cat([indices, torch.ones(len(indices), 1)], dim=1).T)[:3].T
    found = [image.TransformPhysicalPointToIndex((-r[0], -r[1], r[2])) for r in ras.tolist()]
    assert [labels[f] for f in found] == pair.fixed_labels[pair.fixed_labels > 0].tolist()


def test_splits_share_nobody_and_follow_the_seed(original: Path) -> None:
    data = Msd(root=original)
    people = data.subjects()
    assert {s: len(p) for s, p in people.items()} == {"train": 6, "val": 2, "test": 2}
    assert sorted(n for members in people.values() for n in members) == sorted(PEOPLE)
    # Fewer people than pairs wanted: every ordered pair, once.
    assert len(set(data.case_ids("train"))) == 6 * 5
    assert Msd(root=original).case_ids("train") == data.case_ids("train")
    assert any(Msd(root=original, seed=s).subjects() != people for s in (1, 2))
    assert Msd(root=original, shares=(0, 0)).subjects()["train"] != []
    assert Msd(root=original, shares=(0, 0)).subjects()["test"] == []


def test_the_folder_above_serves_as_well(original: Path) -> None:
    assert Msd(root=original.parent).case_ids("test") == Msd(root=original).case_ids("test")


def test_channels(twin: Path) -> None:
    """Task01_BrainTumour has four channels in one file."""
    for number, name in enumerate(PEOPLE):
        image, _ = person(number)
        write(twin / "imagesTr" / f"{name}.nii.gz", np.stack([image, image[::-1], 3 * image], axis=-1))
    modality = {"0": "FLAIR", "1": "T1w", "2": "T1gd"}
    edit(twin, lambda c: c.update(tensorImageSize="4D", modality=modality))
    for channel, change in enumerate((lambda a: a, lambda a: a[::-1], lambda a: 3 * a)):
        data = Msd(root=twin, channel=channel, percentile=None)
        record = data.records("test")[0]
        expected = change(person(PEOPLE.index(record["subjects"][0]))[0])
        assert np.array_equal(data.load(record).fixed[0, 0].numpy(), expected)
    assert Msd(root=twin).survey().counts["images of 3 channels"] == len(PEOPLE)
    assert any("imagesTr/hippocampus_001.nii.gz: no channel 3: it has 3" in f for f in faults(twin, channel=3))


def test_other_axes_and_spacing_are_brought_to_the_fixed_ones(twin: Path) -> None:
    data = Msd(root=twin, percentile=None)
    record = data.records("test")[0]
    name = record["subjects"][1]
    image, labels = person(PEOPLE.index(name))
    plain = data.load(record)
    # The same object, stored with the first axis the other way round.
    flip = (-1, 0, 0, 0, 1, 0, 0, 0, 1)
    write(twin / "imagesTr" / f"{name}.nii.gz", image[::-1], direction=flip)
    write(twin / "labelsTr" / f"{name}.nii.gz", labels[::-1], direction=flip)
    turned = Msd(root=twin, percentile=None)
    assert [f.severity for f in turned.survey().findings] == ["note"]
    assert "several axis orders" in str(turned.survey().findings[0])
    pair = turned.load(record)
    assert torch.equal(pair.moving, plain.moving)
    assert torch.equal(pair.moving_labels, plain.moving_labels)  # type: ignore[arg-type]
    # Twice as fine along z: brought back, the labels fill the same voxels.
    write(twin / "imagesTr" / f"{name}.nii.gz", np.repeat(image, 2, axis=2), spacing=(1, 1, 0.5))
    write(twin / "labelsTr" / f"{name}.nii.gz", np.repeat(labels, 2, axis=2), spacing=(1, 1, 0.5))
    pair = Msd(root=twin, percentile=None).load(record)
    torch.testing.assert_close(pair.moving_labels, plain.moving_labels)
    torch.testing.assert_close(pair.moving, plain.moving, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"channel": -1}, "channel must be at least 0"),
        ({"size": (0, 4, 4)}, "size must be positive"),
        ({"pairs": (1, -1, 1)}, "pairs must be at least 0"),
        ({"shares": (0.6, 0.6)}, "at most 1 together"),
        ({"percentile": 0}, r"percentile must lie in 0\.\.100"),
    ],
)
def test_odd_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Msd(**options)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def absent(key: str) -> Callable[[Path], None]:
    return lambda root: edit(root, lambda c: c.pop(key))


def stored(name: str, **changes: Any) -> Callable[[Path], None]:
    """Rewrites the labels or the image of a person."""

    def change(root: Path) -> None:
        folder, person_name = name.split("/")
        path = root / folder / f"{person_name}.nii.gz"
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T.copy()
        write(path, changes["array"](array))

    return change


def with_nan(array: np.ndarray) -> np.ndarray:
    array[2, 2, 2] = np.nan
    return array


FAULTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "missing image": (
        lambda r: (r / "imagesTr/hippocampus_001.nii.gz").unlink(),
        ["imagesTr/hippocampus_001.nii.gz: no such file, but dataset.json lists it"],
    ),
    "missing labels": (
        lambda r: (r / "labelsTr/hippocampus_003.nii.gz").unlink(),
        ["labelsTr/hippocampus_003.nii.gz: no such file, but dataset.json lists it"],
    ),
    "truncated": (
        lambda r: truncate(r / "imagesTr/hippocampus_004.nii.gz"),
        ["imagesTr/hippocampus_004.nii.gz: unreadable or truncated image"],
    ),
    "no image": (
        lambda r: (r / "labelsTr/hippocampus_006.nii.gz").write_bytes(b"nothing of the kind" * 40),
        ["labelsTr/hippocampus_006.nii.gz: unreadable or truncated image"],
    ),
    "shapes": (
        stored("labelsTr/hippocampus_007", array=lambda a: a[1:]),
        ["labelsTr/hippocampus_007.nii.gz: shape", "as its image imagesTr/hippocampus_007.nii.gz"],
    ),
    "dimension": (
        stored("imagesTr/hippocampus_008", array=lambda a: a[:, :, 3]),
        ["imagesTr/hippocampus_008.nii.gz: 2 axes"],
    ),
    "channels of labels": (
        stored("labelsTr/hippocampus_011", array=lambda a: np.stack([a, a], -1)),
        ["labelsTr/hippocampus_011.nii.gz: 2 channels, expected labels of one"],
    ),
    "twice": (
        lambda r: edit(r, lambda c: c["training"].append(c["training"][0]) or c.update(numTraining=11)),
        ["dataset.json: training[", "./imagesTr/hippocampus_017.nii.gz is listed twice"],
    ),
    "entry": (
        lambda r: edit(r, lambda c: c["training"].insert(0, "./imagesTr/x.nii.gz")),
        ["dataset.json: training[0] is './imagesTr/x.nii.gz', expected"],
    ),
    "number": (
        lambda r: edit(r, lambda c: c.update(numTraining=260)),
        ["dataset.json: numTraining is 260, but training lists"],
    ),
    "in test too": (
        lambda r: edit(r, lambda c: c["test"].append("./imagesTs/hippocampus_014.nii.gz")),
        ["dataset.json: hippocampus_014 is listed in training and in test"],
    ),
}
WHOLE: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no index": (lambda r: (r / "dataset.json").unlink(), ["dataset.json: no such file"]),
    "no JSON": (lambda r: (r / "dataset.json").write_text('{"name": '), ["dataset.json: not readable as JSON"]),
    "no object": (lambda r: (r / "dataset.json").write_text("[]"), ["dataset.json: expected a JSON object"]),
    "no labels": (absent("labels"), ["dataset.json: no key 'labels'"]),
    "labels by name": (
        lambda r: edit(r, lambda c: c.update(labels={"background": 0, "Anterior": 1})),
        ["dataset.json: labels: 'background' is no label number"],
    ),
    "training": (lambda r: edit(r, lambda c: c.update(training={})), ["dataset.json: training is {}"]),
    "one person": (
        lambda r: edit(r, lambda c: c.update(training=c["training"][:1], numTraining=1)),
        ["dataset.json: training lists 1 images; pairs need at least two people"],
    ),
}
VOXELS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "nan": (stored("imagesTr/hippocampus_001", array=with_nan), ["imagesTr/hippocampus_001.nii.gz: 1 of", "NaN"]),
    "constant": (stored("imagesTr/hippocampus_001", array=np.ones_like), ["hippocampus_001.nii.gz: a constant image"]),
    "no label": (stored("labelsTr/hippocampus_001", array=np.zeros_like), ["hippocampus_001.nii.gz: holds no label"]),
    "strange label": (
        stored("labelsTr/hippocampus_001", array=lambda a: a * 2),
        ["labelsTr/hippocampus_001.nii.gz: holds the labels [4], which dataset.json does not name"],
    ),
}


@pytest.mark.parametrize("fault", [*FAULTS.items(), *WHOLE.items(), *VOXELS.items()], ids=lambda f: f[0])
def test_fault_is_named(fault: Any, twin: Path) -> None:
    plant, expected = fault[1]
    plant(twin)
    found = faults(twin)
    assert any(all(text in line for text in expected) for line in found), found


def test_all_faults_at_once_and_exit_status(twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["data", "check", "msd", "--root", str(twin), "--out", str(tmp_path / "out")]
    assert cli.main([*check, "--limit", "1"]) == 0
    report = capsys.readouterr().out
    assert "people (10), test images, not used (1)" in report
    assert "macOS resource files, ignored" in report
    for plant, _ in FAULTS.values():
        plant(twin)
    assert cli.main(check) == 1
    report = capsys.readouterr().out
    for _, expected in FAULTS.values():
        assert all(text in report for text in expected), expected
    assert cli.main(["data", "check", "msd", "--root", str(tmp_path / "nowhere")]) == 2
    message = capsys.readouterr().err
    assert "medicaldecathlon.com" in message
    assert "labelsTr/" in message
    with pytest.raises(DataError, match="faults in"):
        Msd(root=twin).records("test")


def test_files_that_are_not_listed_are_noted(twin: Path) -> None:
    write(twin / "imagesTr" / "hippocampus_999.nii.gz", person(1)[0])
    notes = [str(f) for f in Msd(root=twin).survey().findings]
    assert notes == ["imagesTr: 1 images that dataset.json does not list are not used: hippocampus_999.nii.gz"]


@pytest.mark.usefixtures("in_this_process")
def test_suite_runs(original: Path, tmp_path: Path) -> None:
    shipped = find("suites", "msd-hippocampus").source.read_text()
    assert "[64, 64, 64]" in shipped
    suite = tmp_path / "suite.yaml"
    suite.write_text(shipped.replace("[64, 64, 64]", "[16, 20, 14]"))
    arguments = ["run", str(suite), "--data.root", str(original), "--out", str(tmp_path / "run")]
    assert cli.main([*arguments, "--methods", "identity,demons-symmetric", "--limit", "2"]) == 0
    rows = read_rows(tmp_path / "run")
    assert [row["status"] for row in rows] == ["ok"] * 4


@pytest.mark.data
def test_real_images_in_this_layout(data_root: Path, tmp_path: Path) -> None:
    source = data_root / "hippocampus_msd"
    names = sorted(f.name for f in (source / "images").glob("*.nii.gz"))[:8]
    for ours, theirs in (("images", "imagesTr"), ("labels", "labelsTr")):
        (tmp_path / theirs).mkdir()
        for name in names:
            shutil.copy(source / ours / name, tmp_path / theirs / name)
    content = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": len(names),
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = Msd(root=tmp_path, size=(64, 64, 64))
    result = inspect(data)
    assert not result.faults
    assert result.shapes == {"64 x 64 x 64": result.loaded}
    assert set(result.labels) == {"1 Anterior", "2 Posterior"}
    pair = data.load(data.records("test")[0])
    image = sitk.GetArrayFromImage(sitk.ReadImage(data.records("test")[0]["fixed_labels"]))
    assert int((pair.fixed_labels == 1).sum()) == int((image == 1).sum())  # type: ignore[union-attr]


def test_an_image_of_more_channels_than_the_others(twin: Path) -> None:
    image = person(2)[0]
    write(twin / "imagesTr" / f"{PEOPLE[2]}.nii.gz", np.stack([image, image + 1], -1))
    assert faults(twin) == [f"imagesTr/{PEOPLE[2]}.nii.gz: 2 channels, expected 1 as the others"]


def test_people_whom_no_pair_needs_are_opened(twin: Path) -> None:
    used = {n for people in Msd(root=twin, pairs=(1, 1, 1)).subjects().values() for n in people}
    name = next(n for n in PEOPLE if n not in used)
    image, labels = person(PEOPLE.index(name))
    write(twin / "imagesTr" / f"{name}.nii.gz", image * 0 + 1)
    write(twin / "labelsTr" / f"{name}.nii.gz", labels * np.float32(0.5))
    found = faults(twin, pairs=(1, 1, 1))
    assert len(found) == 2
    assert any(f.startswith(f"imagesTr/{name}.nii.gz: a constant image") for f in found)
    assert any(f.startswith(f"labelsTr/{name}.nii.gz: labels must be whole numbers") for f in found)
