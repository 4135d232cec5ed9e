"""Any folder of subjects, registered to each other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from reg_bench.datamodule import RegistrationDataModule
from reg_bench.discovery import nearest
from reg_bench.errors import ConfigError, DataError
from reg_bench.grid import Grid
from reg_bench.image_io import read_grid
from reg_bench.io import pair_from_files
from reg_bench.points_io import read_points
from reg_bench.preprocessing import plain, scale_intensity
from reg_bench.splits import SPLITS, Split, read_split
from reg_bench.survey import Record, Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import RegistrationPair

# Files that may lie beside images: parts of two-file formats, and text.
_BESIDE = (".raw", ".zraw", ".img", ".txt", ".md", ".json", ".csv", ".xml", ".html", ".pdf")


@dataclass
class _Subject:
    """The files of one subject, by kind, and what their headers say."""

    files: dict[str, Path] = field(default_factory=dict)
    grid: Grid | None = None
    points: int | None = None


class Groups(RegistrationDataModule):
    """Your own images: a folder with one image per subject, and all pairs of them; labels and points as far as known.

    A subject is an image in `images`; files of the same name (without their endings) in `labels` and `points` are
    its own. Whoever has labels or points while others have none is a fault, as are points of different number. Any
    format and grid that `reg_bench.io` reads; the moving image is resampled onto the fixed grid by the headers.
    Cases are called `fixed--moving`.

    Args:
        root: folder with `images`, and where they exist `labels`, `points` and `split.csv`.
        pairs: `ordered`: everyone to everyone, both ways; `unordered`: the later name to the earlier; `to-first`:
            all others to the first name, which is fixed; or a list of pairs [fixed, moving] of names. Always within
            one split.
        limit: at most so many pairs per split, drawn with the seed; all if not given.
        native: index to index without resampling, headers ignored, as the Learn2Reg challenge scores.
        percentile: scale each image to 0..1 between its minimum and this percentile, such as 99.5; intensities
            stay as stored if not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: an option out of range.
    """

    name: ClassVar[str] = "groups"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = "groups"
    source: ClassVar[str] = "your own images"
    layout: ClassVar[str] = """
        images/NAME.nii.gz    one image per subject: NIfTI, MHA, NRRD, PNG, whatever SimpleITK reads
        labels/NAME.nii.gz    if there are labels: of every subject, on the grid of its image
        points/NAME.csv       if there are points: of every subject, row n of one corresponds to row n of the others
        split.csv             if there are splits: the columns subject, split (train, val or test)
    """
    splits: ClassVar[str] = "split.csv; without it everyone is in test"

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        pairs: Literal["ordered", "unordered", "to-first"] | list[tuple[str, str]] = "unordered",
        limit: int | None = None,
        native: bool = False,
        percentile: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.limit, self.native, self.percentile = root, limit, native, percentile
        self.pairs = pairs if isinstance(pairs, str) else [(str(f), str(m)) for f, m in pairs]
        kinds = ("ordered", "unordered", "to-first")
        if isinstance(pairs, str) and pairs not in kinds:
            raise ConfigError(f"{self.name}: pairs must be {', '.join(kinds)} or a list, got {pairs!r}")
        if limit is not None and limit < 1:
            raise ConfigError(f"{self.name}: limit must be at least 1, got {limit}")
        if percentile is not None and not 0 < percentile <= 100:
            raise ConfigError(f"{self.name}: percentile must lie in 0..100, got {percentile}")

    def look_through(self) -> Survey:
        root = self.root_folder()
        survey = Survey(root)
        subjects = _look_through(survey, root)
        _check_points(survey, subjects)
        members = _members(survey, root, sorted(subjects))
        of = {name: split for split, names in members.items() for name in names}
        if not isinstance(self.pairs, str):
            self._check_list(survey, of)
        for split, names in members.items():
            pairs = self._pairs_of(names)
            if self.limit is not None and len(pairs) > self.limit:
                chosen = random_generator(self.name, split, self.seed).choice(len(pairs), self.limit, replace=False)
                pairs = [pairs[i] for i in sorted(chosen)]
            survey.records[split] = [_record(subjects, *pair) for pair in pairs]
        if len(subjects) < 2 and not survey.faults:
            survey.fault(root / "images", f"{len(subjects)} images; pairs need at least two")
        return survey

    def _pairs_of(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Fixed and moving of all pairs among `names`, which are sorted."""
        if self.pairs == "ordered":
            return list(itertools.permutations(names, 2))
        if self.pairs == "unordered":
            return list(itertools.combinations(names, 2))
        if self.pairs == "to-first":
            return [(names[0], other) for other in names[1:]]
        return [(f, m) for f, m in self.pairs if f in names and m in names and f != m]

    def _check_list(self, survey: Survey, of: Mapping[str, str]) -> None:
        seen = set()
        for fixed, moving in self.pairs:
            unknown = [name for name in (fixed, moving) if name not in of]
            if unknown:
                survey.fault("images", f"pairs: no subject {unknown[0]!r}{nearest(unknown[0], of)}")
            elif fixed == moving:
                survey.fault("images", f"pairs: {fixed!r} stands on both sides")
            elif of[fixed] != of[moving]:
                survey.fault(
                    "split.csv",
                    f"pairs: {fixed!r} is in {of[fixed]} and {moving!r} in {of[moving]}; expected one split",
                )
            elif (fixed, moving) in seen:
                survey.fault("images", f"pairs: {fixed!r}, {moving!r} are listed twice")
            seen.add((fixed, moving))

    def load(self, record: Record) -> RegistrationPair:
        files = {key: value for key, value in record.items() if key not in ("case_id", "subjects")}
        pair = pair_from_files(case_id=str(record["case_id"]), native=self.native, **files)
        if self.percentile is None:
            return pair
        images = {"fixed": pair.fixed, "moving": pair.moving}
        scaled = scale_intensity(list(images), upper=self.percentile)(images)
        return replace(pair, fixed=plain(scaled["fixed"]), moving=plain(scaled["moving"]))


def _record(subjects: Mapping[str, _Subject], fixed: str, moving: str) -> Record:
    files = {}
    for role, name in (("fixed", fixed), ("moving", moving)):
        for kind, key in (("images", role), ("labels", f"{role}_labels"), ("points", f"{role}_points")):
            if kind in subjects[name].files:
                files[key] = str(subjects[name].files[kind])
    return {"case_id": f"{fixed}--{moving}", "subjects": [fixed, moving], **files}


def _look_through(survey: Survey, root: Path) -> dict[str, _Subject]:
    """Everyone who has an image, with the files that go with it."""
    subjects: dict[str, _Subject] = {}
    if not (root / "images").is_dir():
        survey.fault("images", "no such folder; expected one image per subject in it")
        return subjects
    for name, path in _files(survey, root / "images", _BESIDE).items():
        subjects[name] = _Subject({"images": path})
        survey.holds(path, "image")
        try:
            subjects[name].grid = read_grid(path)
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
    survey.count("subjects", len(subjects))
    for kind in ("labels", "points"):
        if (root / kind).is_dir():
            found = _files(survey, root / kind, _BESIDE if kind == "labels" else ())
            survey.count(kind, len(found))
            _add(survey, kind, found, subjects)
            for name in sorted(set(subjects) - set(found)):
                survey.fault(root / kind, f"no {kind} of {name}, whose image is {subjects[name].files['images'].name}")
    _check_dimensions(survey, subjects)
    return subjects


def _add(survey: Survey, kind: str, found: Mapping[str, Path], subjects: Mapping[str, _Subject]) -> None:
    """Gives subjects their labels or points, checked against the grids of the images."""
    for name, path in found.items():
        if name not in subjects:
            survey.fault(path, f"no image of that name in images{nearest(name, subjects)}")
            continue
        subject = subjects[name]
        subject.files[kind] = path
        if kind == "labels":
            survey.holds(path, "labels")
        try:
            if kind == "points" and subject.grid is not None:
                subject.points = len(read_points(path, subject.grid))
            elif kind == "labels":
                shape = read_grid(path).shape
                if subject.grid is not None and shape != subject.grid.shape:
                    image = subject.files["images"]
                    survey.fault(path, f"shape {shape}, expected {subject.grid.shape} as its image {image}")
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))


def _files(survey: Survey, folder: Path, beside: Sequence[str]) -> dict[str, Path]:
    """The files of a folder by their names without endings; hidden ones and those that go with others left out."""
    found: dict[str, Path] = {}
    left = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() in beside:
            left.append(path)
            continue
        name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        if name in found:
            survey.fault(path, f"a second file of the name {name!r}, beside {found[name].name}")
        found.setdefault(name, path)
    stray = [p for p in left if p.suffix.lower() not in (".raw", ".zraw", ".img")]
    if stray:
        survey.note(
            folder, f"{len(stray)} files that are no images are not used: {', '.join(p.name for p in stray[:5])}"
        )
    return found


def _check_dimensions(survey: Survey, subjects: Mapping[str, _Subject]) -> None:
    kinds: dict[int, list[_Subject]] = {}
    for subject in subjects.values():
        if subject.grid is not None:
            kinds.setdefault(subject.grid.dimension, []).append(subject)
    for dimension, members in kinds.items():
        usual = max(kinds, key=lambda d: len(kinds[d]))
        for subject in members if dimension != usual else ():
            shape = subject.grid.shape if subject.grid else ()
            survey.fault(subject.files["images"], f"a {dimension}-D image {shape}, expected {usual}-D as the others")


def _check_points(survey: Survey, subjects: Mapping[str, _Subject]) -> None:
    counts = [s.points for s in subjects.values() if s.points is not None]
    usual = max(set(counts), key=lambda n: (counts.count(n), n), default=0)
    for subject in subjects.values():
        if subject.points is not None and subject.points != usual:
            survey.fault(
                subject.files["points"],
                f"{subject.points} points, expected {usual} as the others: row n of one corresponds to row n of all",
            )


def _members(survey: Survey, root: Path, names: Sequence[str]) -> dict[Split, list[str]]:
    """Who is in each split, sorted."""
    path = root / "split.csv"
    if not path.is_file():
        return {"train": [], "val": [], "test": list(names)}
    try:
        listed = {split: [row["subject"] for row in read_split(path, "subject", split)] for split in SPLITS}
    except DataError as error:
        survey.fault(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path}, "))
        return {split: [] for split in SPLITS}
    known = {name for members in listed.values() for name in members}
    for name in sorted(known - set(names)):
        survey.fault(path, f"no image of the subject {name!r}{nearest(name, names)}")
    for name in sorted(set(names) - known):
        survey.fault(path, f"does not say in which split {name!r} is")
    return {split: sorted(set(members) & set(names)) for split, members in listed.items()}
