"""Small tasks of Learn2Reg in the form in which they are distributed, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

SHAPE = (18, 14, 16)
FIXED_SPACING, MOVING_SPACING = (1.75, 1.25, 1.75), (1.75, 1.0, 1.25)


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.0, 2.0)) -> None:
    """An array in x, y, z order as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def centre(subject: int, modality: int) -> np.ndarray:
    rng = np.random.default_rng(100 * subject + modality)
    return (np.asarray(SHAPE) - 1) / 2 + rng.uniform(-1.5, 1.5, 3)


def image(subject: int, modality: int, ct: bool = True) -> np.ndarray:
    """A ball in air, in HU or in units of some MR scanner."""
    distance = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - centre(subject, modality), axis=-1)
    ball = 1 / (1 + np.exp(2 * (distance - 5)))
    noise = np.random.default_rng(subject).normal(0, 0.01, SHAPE)
    values = np.clip(ball + noise, 0, 1) * (1100 if ct else 300 + 50 * subject) - (1000 if ct else 0)
    return values.astype(np.float32)


def labels(subject: int, modality: int, values: Iterable[int]) -> np.ndarray:
    """The ball, cut into slabs along z."""
    distance = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - centre(subject, modality), axis=-1)
    values = list(values)
    slab = np.minimum(np.arange(SHAPE[2]) * len(values) // SHAPE[2], len(values) - 1)
    return np.where(distance < 5.5, np.asarray(values)[slab], 0).astype(np.uint8)


def mask(subject: int, modality: int) -> np.ndarray:
    return (labels(subject, modality, [1]) > 0).astype(np.uint8)


def points(subject: int, modality: int, number: int = 7) -> np.ndarray:
    """Row n of two modalities of a subject is the same place in the ball; three decimals."""
    offsets = np.random.default_rng(subject).uniform(-3, 3, (number, 3))
    return np.round(centre(subject, modality) + offsets, 3)


def write_points(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in values), encoding="utf-8")


# What each twin holds. `train`: subject to its modalities; `test`: those of the test images; `val`: pairs of
# (subject, modality), fixed first; `data`: kinds; `points`: kind to its subjects.
TASKS: dict[str, dict[str, Any]] = {
    "LungCT": {
        "train": dict.fromkeys(range(1, 7), (0, 1)),
        "test": dict.fromkeys((21, 22), (0, 1)),
        "val": [((s, 0), (s, 1)) for s in (1, 2)],
        "data": ("mask",),
        "points": {"keypoints": range(1, 7), "landmarks": (1, 2)},
        "json": {"modality": {"0": "CT"}, "registration_direction": {"fixed": 0, "moving": 1}, "pairings": "paired"},
    },
    "AbdomenCTCT": {
        "train": dict.fromkeys(range(1, 9), (0,)),
        "test": {31: (0,), 32: (0,)},
        "val": [((1, 0), (4, 0)), ((1, 0), (7, 0)), ((4, 0), (7, 0))],
        "data": ("label", "mask"),
        "labels": range(1, 14),
        "json": {"modality": {"0": "CT"}, "pairings": "unpaired"},
    },
    "HippocampusMR": {
        "train": dict.fromkeys((1, 3, 4, 6, 201, 202, 260), (0,)),
        "test": {261: (0,), 390: (0,)},
        "val": [((201, 0), (260, 0)), ((202, 0), (201, 0))],
        "data": ("label",),
        "labels": (1, 2),
        "json": {"modality": {"0": "MR"}, "pairings": "unpaired"},
    },
    "OASIS": {
        "train": dict.fromkeys((1, 2, 3, 4, 395, 396, 397), (0,)),
        "test": {},
        "val": [((395, 0), (396, 0)), ((396, 0), (397, 0))],
        "data": ("label", "mask"),
        "labels": range(1, 36),
        "json": {"modality": {"0": "MR"}, "pairings": "unpaired"},
    },
    "NLST": {
        "train": dict.fromkeys((1, 2, 3, 4, 101, 102), (0, 1)),
        "test": {},
        "val": [((s, 0), (s, 1)) for s in (101, 102)],
        "data": ("mask",),
        "points": {"keypoints": (1, 2, 3, 4, 101, 102)},
        "json": {"modality": {"0": "CT", "1": "CT"}, "pairings": "paired"},
    },
    "AbdomenMRCT": {
        "train": {**dict.fromkeys((1, 2, 3, 6, 7), (0, 1)), 17: (0,), 18: (0,), 30: (1,), 31: (1,)},
        "test": {9: (0, 1), 10: (0, 1)},
        "val": [((s, 0), (s, 1)) for s in (6, 7)],
        "data": ("label", "mask"),
        "labels": range(1, 5),
        "json": {
            "modality": {"0": "MR", "1": "CT"},
            "registration_direction": {"fixed": 0, "moving": 1},
            "pairings": "hybrid",
        },
    },
    "ThoraxCBCT": {
        "train": dict.fromkeys((0, 1, 2, 3, 11, 12), (0, 1, 2)),
        "test": {},
        "val": [((s, f), (s, 0)) for f in (1, 2) for s in (11, 12)],
        "data": (),
        "points": {"keypoints01": range(4), "keypoints02": range(4)},
        "json": {
            "modality": {"0": "FBCT", "1": "CBCT", "2": "CBCT"},
            "registration_direction": {"fixed": 1, "moving": 0},
            "pairings": "paired",
            "img_shift": {"fixed": "followup", "moving": "baseline"},
        },
    },
    "CuRIOUS": {
        "train": dict.fromkeys((1, 2, 3, 4, 6), (0, 1, 2)),
        "test": {},
        "val": [((s, 0), (s, 2)) for s in (3, 6)],
        "data": (),
        "points": {"landmarks": (1, 2, 3, 4, 6)},
        "json": {
            "modality": {"0": "MR FLAIR", "1": "MR T1", "2": "US"},
            "registration_direction": {"fixed": 0, "moving": 2},
            "pairings": "paired",
        },
    },
}


def file_name(task: str, subject: int, modality: int) -> str:
    return f"{task}_{subject:04d}_{modality:04d}.nii.gz"


def is_ct(task: str, modality: int) -> bool:
    names = TASKS[task]["json"]["modality"]
    return "CT" in names.get(str(modality), names["0"])


def write_task(root: Path, task: str) -> Path:
    """The twin of a task since 2022, below `root`; its folder."""
    twin, folder = TASKS[task], root / task
    training = [_entry(folder, task, s, m) for s, modalities in twin["train"].items() for m in modalities]
    test = []
    for s, modalities in twin["test"].items():
        for m in modalities:
            write(folder / "imagesTs" / file_name(task, s, m), image(s, m, is_ct(task, m)), spacing_of(m))
            test.append({"image": f"./imagesTs/{file_name(task, s, m)}"})
    content = _content(task, training, test)
    (folder / f"{task}_dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    return folder


def spacing_of(modality: int) -> tuple[float, float, float]:
    """Lungs are resampled to one spacing exhaled and to another inhaled; so are all twins."""
    return MOVING_SPACING if modality else FIXED_SPACING


def _entry(folder: Path, task: str, subject: int, modality: int) -> dict[str, str]:
    twin, name = TASKS[task], file_name(task, subject, modality)
    write(folder / "imagesTr" / name, image(subject, modality, is_ct(task, modality)), spacing_of(modality))
    entry = {"image": f"./imagesTr/{name}"}
    for kind in twin["data"]:
        array = mask(subject, modality) if kind == "mask" else labels(subject, modality, twin["labels"])
        write(folder / f"{kind}sTr" / name, array, spacing_of(modality))
        entry[kind] = f"./{kind}sTr/{name}"
    for kind, subjects in twin.get("points", {}).items():
        partner = kind[-1]
        if subject in subjects and (not partner.isdigit() or str(modality) in ("0", partner)):
            seed = subject + 50 * int(partner) if partner.isdigit() else subject
            shift = centre(subject, modality) - centre(seed, modality)
            write_points(folder / f"{kind}Tr" / name.replace(".nii.gz", ".csv"), points(seed, modality) + shift)
            # The organisers' files name points with the ending of images.
            entry[kind] = f"./{kind}Tr/{name}"
    return entry


def _content(task: str, training: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, Any]:
    twin = TASKS[task]
    told: dict[str, Any] = twin["json"]
    direction = told.get("registration_direction", {"fixed": 0, "moving": 1 if told["pairings"] == "paired" else 0})
    own = [
        _pair(task, (s, f), (s, direction["moving"]))
        for s, modalities in twin["train"].items()
        for f in ((1, 2) if task == "ThoraxCBCT" else (direction["fixed"],))
        if {f, direction["moving"]} <= set(modalities) and not (task == "ThoraxCBCT" and s in (11, 12))
    ]
    own = [] if told["pairings"] == "unpaired" else own
    val = [_pair(task, *pair) for pair in twin["val"]]
    people = list(twin["test"])
    tested = [
        _pair(task, (a, direction["fixed"]), (b, direction["moving"]), "Ts")
        for a, b in ([(s, s) for s in people] if told["pairings"] != "unpaired" else [tuple(people)] if people else [])
    ]
    names = {"0": "background", **{str(v): f"organ {v}" for v in twin.get("labels", ())}}
    # AbdomenMRCT lists its images for each modality apart.
    listed: Any = training
    if task == "AbdomenMRCT":
        listed = {m: [e for e in training if e["image"].endswith(f"_000{m}.nii.gz")] for m in "01"}
    return {
        "name": task,
        "release": "1.1",
        "description": f"{task} task of Learn2Reg Dataset",
        "licence": "CC BY",
        "reference": "",
        "provided_data": {"0": ["image", *twin["data"], *twin.get("points", {})]},
        "registration_direction": direction,
        "img_shift": {"fixed": "patient A", "moving": "patient B"},
        **told,
        "labels": {"0": names} if twin.get("labels") else {},
        "tensorImageSize": {"0": "3D"},
        "tensorImageShape": {"0": list(SHAPE)},
        "numTraining": len(training),
        "numTest": len(test),
        "training": listed,
        "test": test,
        "numPairedTraining": len(own),
        "training_paired_images": own,
        "numPairedTest": 0,
        "test_paired_images": [],
        "numRegistration_val": len(val),
        "registration_val": val,
        "numRegistration_test": len(tested),
        "registration_test": tested,
    }


def _pair(task: str, fixed: tuple[int, int], moving: tuple[int, int], part: str = "Tr") -> dict[str, str]:
    return {role: f"./images{part}/{file_name(task, *of)}" for role, of in (("fixed", fixed), ("moving", moving))}


def write_task_2020(root: Path, number: int, subjects: int = 10, pairs: str | None = None) -> Path:
    """The twin of a task of 2020; its folder. Landmarks for the first three lungs."""
    folder = root / f"task_{number:02d}"
    training = folder / ("training" if number == 2 else "Training")
    for s in range(1, subjects + 1):
        if number == 2:
            for modality, phase in enumerate(("exp", "insp")):
                name = f"case_{s:03d}_{phase}.nii.gz"
                write(training / "scans" / name, image(s, modality), spacing_of(modality))
                write(training / "lungMasks" / name, mask(s, modality), spacing_of(modality))
            if s <= 3:
                write_points(training / "lms" / f"case_{s:03d}.txt", np.hstack([points(s, 0), points(s, 1)]))
        else:
            name = f"hippocampus_{s:03d}.nii.gz" if number == 4 else f"img{s:04d}.nii.gz"
            values = range(1, 14) if number == 3 else (1, 2)
            write(training / "img" / name, image(s, 0, number == 3))
            write(training / "label" / name.replace("img", "label"), labels(s, 0, values))
    if pairs is not None:
        (folder / "pairs_val.csv").write_text(pairs, encoding="utf-8")
    return folder
