"""The files of one Learn2Reg task, whichever layout they came in: images, what goes with them, and pairs.

The readers of the layouts (`learn2reg_files`, `learn2reg_2020`) fill a `TaskFiles`; `learn2reg_checks` looks at its
headers and points, `learn2reg_splits` makes training, validation and test of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reg_bench.grid import Grid
from reg_bench.learn2reg_presets import Preset

POINT_SETS = ("landmarks", "keypoints")
# The landmarks of 2020 hold both images of a pair in one file.
BOTH = "landmarks of both"

_NAME = re.compile(r"(?P<task>.+)_(?P<subject>\d{4})_(?P<modality>\d{4})\.nii(\.gz)?$", re.IGNORECASE)
_POINT_KEY = re.compile(r"(?P<base>landmarks|keypoints)(?P<digits>\d*)$", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """An image of a subject.

    Attributes:
        id: `SSSS_mmmm`: subject and modality, four digits each.
        subject: its digits.
        modality: number of the modality.
        image: the file.
        files: kind to file for `label`, `mask` and points: `landmarks`, `keypoints`, or with two digits behind for a
            pair of two modalities, such as `keypoints01`.
        test: whether it stands among the test images of the challenge.
    """

    id: str
    subject: str
    modality: int
    image: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    test: bool = False


Pair = tuple[Scan, Scan]


@dataclass
class TaskFiles:
    """All that was found of a task.

    Attributes:
        preset: what is known of it, the dataset JSON already minded.
        scans: training images by id.
        test_scans: test images by id, those that are there.
        training_pairs: pairs of one subject that are given for training; if there are none they are made.
        val_pairs, test_pairs: fixed and moving of the pairs that the challenge scores, in its order.
        shapes: modality to the shape that its images must have.
        grids: grid of every image that could be read.
    """

    preset: Preset
    scans: dict[str, Scan] = field(default_factory=dict)
    test_scans: dict[str, Scan] = field(default_factory=dict)
    training_pairs: list[Pair] = field(default_factory=list)
    val_pairs: list[Pair] = field(default_factory=list)
    test_pairs: list[Pair] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    grids: dict[Path, Grid] = field(default_factory=dict)


def points_of(fixed: Scan, moving: Scan) -> dict[str, tuple[Path, Path]]:
    """Set of points to the two files of a pair; a set that only one of the two has is left out.

    Points of two modalities lie in `keypoints01` and the like where images have points for several partners.
    """
    found: dict[str, tuple[Path, Path]] = {}
    if fixed.subject != moving.subject:
        return found
    low, high = sorted((fixed.modality, moving.modality))
    for base in POINT_SETS:
        for key in (f"{base}{low}{high}", base):
            if key in fixed.files and key in moving.files:
                found[base] = (fixed.files[key], moving.files[key])
                break
    if BOTH in fixed.files:
        found.setdefault("landmarks", (fixed.files[BOTH], fixed.files[BOTH]))
    return found


def has_truth(pair: Pair) -> bool:
    """Whether anything says how good a registration of the pair is: labels of both images, or points."""
    return all("label" in scan.files for scan in pair) or bool(points_of(*pair))


def parse_name(name: str) -> tuple[str, int] | None:
    """Subject and modality of `<Task>_SSSS_mmmm.nii.gz`, `None` for another name."""
    match = _NAME.match(name)
    return (match["subject"], int(match["modality"])) if match else None


def point_key(text: str) -> str | None:
    """The key in `Scan.files` of a kind or folder such as `keypoints`, `keypoints01` or `keypoints00000001`.

    `None` for anything that does not hold points.
    """
    match = _POINT_KEY.match(text)
    if not match:
        return None
    digits = match["digits"]
    if len(digits) == 8:
        digits = f"{int(digits[:4])}{int(digits[4:])}"
    return match["base"].lower() + "".join(sorted(digits))


def find_path(folder: Path, relative: str) -> Path | None:
    """The file or folder below `folder`, capital and small letters alike if need be; `None` if it is not there."""
    here = folder
    for part in Path(relative).parts:
        if part == ".." or part == "/":
            return None
        if not (here / part).exists():
            named = [name for name in _listing(here) if name.lower() == part.lower()]
            if not named:
                return None
            part = named[0]
        here = here / part
    return here


def _listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
