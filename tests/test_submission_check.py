"""Every fault of a submission is named with its fix: planted one at a time and all together."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from reg_bench import cli
from reg_bench.submission_check import check
from reg_bench.submission_readings import judge
from tests import learn2reg_twins as twins

SHAPE = (24, 20, 28)
SPACING = (1.5, 2.0, 1.25)
SIZE = np.asarray(SHAPE, float).reshape(3, 1, 1, 1)
GRID = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(float)


def smooth(seed: int, sigma: float, scale: float) -> np.ndarray:
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), sigma)
    return np.asarray(values / np.abs(values).max() * scale)


def truth(seed: int) -> np.ndarray:
    """A smooth field of a few voxels, other along each axis."""
    return np.stack([smooth(10 * seed + axis, 5, scale) for axis, scale in enumerate((2.5, 1.8, 3.0))])


def fixed_of(u: np.ndarray, moving: np.ndarray) -> np.ndarray:
    return np.asarray(map_coordinates(moving, GRID + u, order=1, mode="nearest"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with known motion: inter-subject, two pairs, one of them backwards."""
    folder = tmp_path_factory.mktemp("data") / "AbdomenCTCT"
    images = {}
    for subject, seed in ((2, 1), (4, 2)):
        moving = smooth(100 + subject, 1.5, 900.0)
        images[subject], images[subject - 1] = moving, fixed_of(truth(seed), moving)
    training = []
    for subject, image in images.items():
        name = twins.file_name("AbdomenCTCT", subject, 0)
        twins.write(folder / "imagesTr" / name, image.astype(np.float32), SPACING)
        twins.write(folder / "labelsTr" / name, (image > 200).astype(np.uint8), SPACING)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "AbdomenCTCT",
        "pairings": "unpaired",
        "modality": {"0": "CT"},
        "labels": {"0": {"0": "background", "1": "organ"}},
        "tensorImageShape": {"0": list(SHAPE)},
        "training": training,
        "registration_val": [
            {r: f"./imagesTr/{twins.file_name('AbdomenCTCT', s, 0)}" for r, s in (("fixed", f), ("moving", m))}
            for f, m in ((1, 2), (3, 4))
        ],
    }
    (folder / "AbdomenCTCT_dataset.json").write_text(json.dumps(content))
    return folder / "AbdomenCTCT_dataset.json"


def write(folder: Path, name: str, u: np.ndarray) -> None:
    """A field `(3, X, Y, Z)` in the form since 2022, under both spellings."""
    for spelling in (name, name.replace("_", "_0000_").replace("disp_0000_", "disp_") + "_0000"):
        image = nib.Nifti1Image(np.moveaxis(u, 0, -1).astype(np.float32), np.eye(4))
        nib.save(image, str(folder / f"{spelling}.nii.gz"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write(folder, "disp_0001_0002", truth(1))
    write(folder, "disp_0003_0004", truth(2))
    return folder


def half(u: np.ndarray) -> np.ndarray:
    return np.stack([zoom(c, 0.5, order=2) for c in u])


@pytest.fixture(scope="module")
def sound_2020(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound_2020")
    for task, names in (("01", ("0003_0003",)), ("02", ("0001_0001",)), ("04", ("0201_0260",))):
        (folder / f"task_{task}").mkdir()
        for name in names:
            shape = {"01": (3, 128, 128, 144), "02": (3, 96, 96, 104), "04": (3, 64, 64, 64)}[task]
            zeros = np.zeros(shape, np.float16)
            np.savez_compressed(folder / f"task_{task}" / f"disp_{name}.npz", arr_0=zeros)
    (folder / "task_03").mkdir()
    for name, seed in (("0001_0002", 1), ("0003_0004", 2)):
        save_2020(folder, name, half(truth(seed)))
    return folder


def save_2020(folder: Path, name: str, array: np.ndarray, dtype: Any = np.float16, **keys: Any) -> None:
    path = folder / "task_03" / f"disp_{name}.npz"
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    np.savez_compressed(path, **(keys or {"arr_0": stored}))


def pack(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def array(folder: Path, change: Callable[[np.ndarray], np.ndarray], dtype: Any = np.float32) -> None:
    """Writes the second field anew, both spellings."""
    changed = change(np.moveaxis(truth(2), 0, -1)).astype(dtype)
    for name in ("disp_0003_0004", "disp_0003_0000_0004_0000"):
        nib.save(nib.Nifti1Image(changed, np.eye(4)), str(folder / f"{name}.nii.gz"))


def field(folder: Path, u: np.ndarray) -> None:
    write(folder, "disp_0003_0004", u)


def intent(folder: Path) -> None:
    for name in ("disp_0003_0004", "disp_0003_0000_0004_0000"):
        image = nib.Nifti1Image(np.moveaxis(truth(2), 0, -1)[:, :, :, None].astype(np.float32), np.eye(4))
        image.header.set_intent(1007)
        nib.save(image, str(folder / f"{name}.nii.gz"))


def rename(folder: Path, old: str, new: str) -> None:
    (folder / new).parent.mkdir(exist_ok=True)
    (folder / old).rename(folder / new)


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


LONG, SHORT = "disp_0003_0000_0004_0000.nii.gz", "disp_0003_0004.nii.gz"
SPACE = np.asarray(SPACING).reshape(3, 1, 1, 1)

#: Fault to how it is planted in the form since 2022, its kind, and words of its message and of its fix.
FAULTS: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "missing": (lambda f: remove(f, LONG, SHORT), "missing", "is missing", "write the field of this pair"),
    "extra": (lambda f: (f / "notes.txt").write_text("x"), "extra", "no file of this submission", "remove it"),
    "name": (
        lambda f: (remove(f, LONG), rename(f, SHORT, "disp_3_4.nii.gz")),
        "name",
        f"not spelt as asked for, expected {LONG}",
        "rename it",
    ),
    "exchanged": (
        lambda f: (remove(f, LONG), rename(f, SHORT, "disp_0004_0003.nii.gz")),
        "name",
        "fixed and moving seem exchanged",
        "rename it",
    ),
    "ending": (
        lambda f: (remove(f, SHORT), rename(f, LONG, LONG.replace(".nii.gz", ".nii"))),
        "name",
        "the ending is .nii,",
        "rename it",
    ),
    "shape": (lambda f: array(f, lambda a: a[1:]), "shape", "expected (24, 20, 28, 3)", "grid of the fixed image"),
    "one component": (lambda f: array(f, lambda a: a[..., 0]), "shape", "one component only", "stack"),
    "components first": (
        lambda f: array(f, lambda a: np.moveaxis(a, -1, 0)),
        "channels",
        "the components have to come last",
        "moveaxis",
    ),
    "axes": (lambda f: array(f, lambda a: a.transpose(2, 1, 0, 3)), "axes", "in another order", "order of the axes"),
    "half": (
        lambda f: array(f, lambda a: np.moveaxis(half(np.moveaxis(a, -1, 0)), 0, -1)),
        "resolution",
        "half resolution, expected full",
        "zoom(component, 2",
    ),
    "type": (lambda f: array(f, np.round, np.int16), "dtype", "type int16, expected floating", "displacements"),
    "NaN": (lambda f: array(f, lambda a: np.where(a > 2.9, np.nan, a)), "nan", "values are NaN", "replace them"),
    "ITK": (intent, "intent", "intent 1007", "inverse(direction * spacing)"),
    "millimetres": (lambda f: field(f, truth(2) * SPACE), "millimetres", "look like millimetres", "divide each"),
    "normalised": (
        lambda f: field(f, (truth(2) * 2 / (SIZE - 1))[::-1]),
        "normalised",
        "normalised coordinates",
        "multiply each component by (n - 1) / 2",
    ),
    "negated": (lambda f: field(f, -truth(2)), "negated", "wrong sign", "negate it"),
    "doubled": (lambda f: field(f, 2 * truth(2)), "doubled", "twice too large", "halve them"),
    "components reversed": (lambda f: field(f, truth(2)[::-1]), "components", "another order than the axes", "reorder"),
    "positions": (lambda f: field(f, GRID + truth(2)), "positions", "positions instead", "subtract the voxel"),
    "sampling grid": (
        lambda f: field(f, ((GRID + truth(2)) * 2 / (SIZE - 1) - 1)[::-1]),
        "normalised positions",
        "sampling grid in normalised",
        "subtract x",
    ),
    "of another pair": (lambda f: field(f, 3 * truth(5)), "worse", "worse than the unwarped", "of this pair"),
    "oversize": (
        lambda f: array(f, lambda a: np.pad(a, ((0, 60), (0, 0), (0, 0), (0, 0))), np.float64),
        "oversize",
        "more than a field of this task can have",
        "nothing else",
    ),
    "cut off": (lambda f: truncate(f / LONG), "corrupt", "truncated", "write the file again"),
    "two versions": (lambda f: write_long(f, truth(2) * 1.01), "differ", "not the same field", "under both names"),
    "two endings": (
        lambda f: np.savez_compressed(f / LONG.replace(".nii.gz", ".npz"), arr_0=np.moveaxis(truth(2), 0, -1)),
        "twice",
        "reads only the .npz",
        "keep one",
    ),
}


def write_long(folder: Path, u: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.moveaxis(u, 0, -1).astype(np.float32), np.eye(4)), str(folder / LONG))


def save(folder: Path, u: np.ndarray, **options: Any) -> None:
    save_2020(folder, "0003_0004", u, **options)


ONE = "task_03/disp_0003_0004.npz"
#: The same for the form of 2020.
FAULTS_2020: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "missing": (lambda f: remove(f, ONE), "missing", "is missing", "write the field"),
    "extra": (lambda f: shutil.copy(f / ONE, f / "task_03" / "disp_0009_0004.npz"), "extra", "no file of", "remove it"),
    "no task folder": (
        lambda f: shutil.rmtree(f / "task_02"),
        "missing",
        "no field of LungCT; all four",
        "zero fields",
    ),
    "name": (lambda f: rename(f, ONE, "task_03/disp_3_4.npz"), "name", f"expected {ONE}", "rename it"),
    "in the wrong folder": (lambda f: rename(f, ONE, "disp_0003_0004.npz"), "name", f"expected {ONE}", "rename it"),
    "full": (lambda f: save(f, truth(2)), "resolution", "full resolution, expected half", "zoom(component, 0.5"),
    "components last": (
        lambda f: save(f, np.moveaxis(half(truth(2)), 0, -1)),
        "channels",
        "the components have to come first",
        "moveaxis(field, -1, 0)",
    ),
    "axes": (lambda f: save(f, half(truth(2)).transpose(0, 3, 2, 1)), "axes", "in another order", "order of the axes"),
    "shape": (lambda f: save(f, half(truth(2))[:, :-1]), "shape", "expected (3, 12, 10, 14)", "grid of the fixed"),
    "type": (lambda f: save(f, half(truth(2)), dtype=np.float32), "dtype", "expected float16", "astype"),
    "NaN": (lambda f: save(f, half(truth(2)) + np.float16(np.nan)), "nan", "NaN or infinite", "65504"),
    "infinite": (lambda f: save(f, half(truth(2)) * 1e6), "nan", "NaN or infinite", "65504"),
    "key": (
        lambda f: save(f, half(truth(2)), field=half(truth(2)).astype(np.float16)),
        "keys",
        "called 'field'",
        "arr_0",
    ),
    "two arrays": (
        lambda f: save(f, truth(2), arr_0=half(truth(2)).astype(np.float16), other=np.ones(3)),
        "keys",
        "holds 2 arrays",
        "arr_0",
    ),
    "broken npz": (lambda f: (f / ONE).write_bytes((f / ONE).read_bytes()[:500]), "corrupt", "npz file", "again"),
    "not an npz": (lambda f: (f / ONE).write_bytes(b"nothing"), "corrupt", "npz file", "again"),
    "millimetres": (lambda f: save(f, half(truth(2) * SPACE)), "millimetres", "look like millimetres", "divide"),
    "normalised": (lambda f: save(f, half(truth(2) * 2 / (SIZE - 1))), "normalised", "normalised", "multiply"),
    "negated": (lambda f: save(f, -half(truth(2))), "negated", "wrong sign", "negate"),
    "doubled": (lambda f: save(f, 2 * half(truth(2))), "doubled", "twice too large", "full grid"),
    "reversed": (lambda f: save(f, half(truth(2))[::-1]), "components", "another order", "reorder"),
    "oversize": (
        lambda f: save(f, np.tile(truth(2), (1, 4, 1, 1))),
        "oversize",
        "more than a field of this task can have",
        "nothing else",
    ),
}


def test_a_sound_submission_has_no_fault(data: Path, sound: Path, sound_2020: Path, tmp_path: Path) -> None:
    for folder, profile in ((sound, "learn2reg"), (sound_2020, "learn2reg-2020")):
        for given in (folder, pack(folder, tmp_path / f"{profile}.zip")):
            found = check(given, [data])
            assert not found.faults
            assert not found.notes
            assert (found.profile, found.expected) == (profile, 2)


def look(folder: Path, data: Path, tmp_path: Path, kind: str, message: str, fix: str) -> None:
    found = check(pack(folder, tmp_path / "zip"), [data])
    meant = [fault for fault in found.faults if fault.kind == kind]
    assert meant, [str(fault) for fault in found.faults]
    assert message in str(meant[0])
    assert fix in meant[0].fix
    # Nothing else is told of the fields that are sound.
    assert not [fault for fault in found.faults if "0002" in fault.file]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str, data: Path, sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "s"))
    plant, kind, message, fix = FAULTS[fault]
    plant(folder)
    look(folder, data, tmp_path, kind, message, fix)


@pytest.mark.parametrize("fault", FAULTS_2020)
def test_fault_is_named_2020(fault: str, data: Path, sound_2020: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound_2020, tmp_path / "s"))
    plant, kind, message, fix = FAULTS_2020[fault]
    plant(folder)
    look(folder, data, tmp_path, kind, message, fix)


def test_all_faults_at_once(data: Path, sound: Path, tmp_path: Path, capsys: Any) -> None:
    """Several faults, also of one file, are told together; the exit status says so, the JSON holds them."""
    folder = Path(shutil.copytree(sound, tmp_path / "s"))
    save_to = tmp_path / "faults.json"
    write(folder, "disp_0001_0002", -truth(1))
    remove(folder, LONG, SHORT)
    array_of = np.moveaxis(truth(2), 0, -1)
    np.savez_compressed(folder / "disp_3_4.npz", other=array_of[::2].astype(np.int16))
    (folder / ".DS_Store").write_text("x")
    archive = pack(folder, tmp_path / "zip")
    command = ["submit", "check", str(archive), "--dataset", str(data), "--out", str(save_to), "--max-mb", "0.01"]
    assert cli.main(command) == 1
    told = capsys.readouterr().out
    kinds = {fault["kind"] for fault in json.loads(save_to.read_text())["faults"]}
    assert kinds == {"negated", "name", "keys", "dtype", "shape", "extra", "oversize"}
    for text in (".DS_Store", "disp_3_4.npz", "wrong sign", "called 'other'", "type int16", "7 faults"):
        assert text in told
    assert cli.main(["submit", "check", str(sound), "--dataset", str(data)]) == 0
    assert "no fault" in capsys.readouterr().out


def test_the_zip_itself(data: Path, sound: Path, tmp_path: Path, capsys: Any) -> None:
    archive = pack(sound, tmp_path / "good.zip")
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:2000])
    (tmp_path / "no.zip").write_bytes(b"no zip at all")
    for name in ("cut.zip", "no.zip"):
        assert [f.kind for f in check(tmp_path / name, [data]).faults] == ["corrupt"]
    raw = bytearray(archive.read_bytes())
    middle = raw.index(b"disp_0003_0004.nii.gz") + 2000
    raw[middle : middle + 4] = bytes(255 - b for b in raw[middle : middle + 4])
    (tmp_path / "flipped.zip").write_bytes(raw)
    found = [str(f) for f in check(tmp_path / "flipped.zip", [data]).faults]
    assert len(found) == 1
    assert "disp_0003_0004.nii.gz: damaged in the zip" in found[0]
    # The folder instead of its files.
    inside = tmp_path / "inside"
    shutil.copytree(sound, inside / "my fields")
    faults = check(pack(inside, tmp_path / "inside.zip"), [data]).faults
    assert [(f.kind, f.fix) for f in faults] == [("folder", "zip the files, not their folder")]
    assert cli.main(["submit", "check", str(tmp_path / "absent.zip"), "--dataset", str(data)]) == 2
    assert cli.main(["submit", "check", str(archive), "--dataset", str(tmp_path / "absent.json")]) == 2
    assert "absent.json: no such file" in capsys.readouterr().err


def test_one_spelling_is_enough_and_said(data: Path, sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "s"))
    remove(folder, SHORT)
    found = check(folder, [data])
    assert not found.faults
    assert len(found.notes) == 1
    assert "wants the name disp_0003_0004" in found.notes[0]


def test_zero_fields_are_no_fault(data: Path, sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "s"))
    for name in ("disp_0001_0002", "disp_0003_0004"):
        write(folder, name, np.zeros((3, *SHAPE)))
    found = check(folder, [data])
    assert not found.faults
    assert found.notes == ["no field moves anything: all are zero"]


def test_images_of_other_contrast_are_compared_by_information() -> None:
    """The moving image shows something else; what is wrong with the field is seen all the same."""
    moving, u = smooth(7, 1.5, 1.0), truth(3)
    fixed = fixed_of(u, moving)
    other = np.abs(moving - 0.2) * 50
    spacing = np.asarray(SPACING)
    for given, kind in ((u, ""), (-u, "negated"), (2 * u, "doubled"), (u[::-1], "components")):
        assert judge(fixed, other, given, spacing, same_contrast=False).kind == kind


def test_a_weak_registration_is_no_fault() -> None:
    """Half of the motion, or motion with errors, matches better than none: at most a doubt."""
    moving, u = smooth(8, 1.5, 1.0), truth(4)
    fixed = fixed_of(u, moving)
    spacing = np.asarray(SPACING)
    for given in (0.5 * u, 0.8 * u, 1.2 * u, u + 0.3 * truth(6)):
        assert judge(fixed, moving, given, spacing, same_contrast=True).kind == ""
    assert judge(fixed, moving, 0.5 * u, spacing, same_contrast=True).doubt == "halved"
