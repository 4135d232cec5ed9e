"""Short-axis cine MR of the ACDC challenge: end-diastole to end-systole, and all phases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import read_grid, read_image
from reg_bench.image_series import read_4d, read_4d_header
from reg_bench.preprocessing import geometry, plane, preprocess, scale_intensity
from reg_bench.survey import Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import ImageSequence, RegistrationPair

_NAMES = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
# A header that claims longer between two phases of a heart beat holds a filling value.
_LONGEST_FRAME_S = 0.2


class ACDC(RegistrationDataModule):
    """Cine cardiac MR of 150 patients in five groups: moving end-diastole, fixed end-systole, three labels.

    In 2-D each slice is a case; slices without any label in either of the two frames are left out and counted. In
    3-D a case is the whole stack. Pairs come from the files of the two frames, both scaled to 0..1 by one range:
    the 99.5th percentile of both together. `sequence` gives all frames of `patientNNN_4d.nii.gz`, scaled by the
    percentile over time, with labels at both frames and the moving frame as reference.

    A case is called `patientNNN/sliceZZ/TTT` (2-D) or `patientNNN/TTT` (3-D) with the slice and the fixed frame
    counted **from 0**; `Info.cfg` and the names of the files count frames from 1. Slices are 2-D images without a
    place in the world, volumes carry the header of the fixed frame.

    Args:
        root: folder with `training` and `testing`, or the folder above, or one that holds patients itself.
        dimension: 2 for slices, 3 for volumes.
        fixed: the fixed frame; the other one is moving.
        val_share: share of the training patients that is drawn into val.
        test_share: share of the patients held out for test where there is no folder `testing`.
        seconds_per_frame: of sequences. By default that of the header where it can be true (at most 0.2 s), else a
            heart beat of one second is divided by the number of frames.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: a dimension or frame that does not exist, or a share outside 0..1.
    """

    name: ClassVar[str] = "acdc"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = "CC-BY-NC-SA-4.0"
    folder: ClassVar[str] = "acdc"
    source: ClassVar[str] = (
        "https://www.creatis.insa-lyon.fr/Challenge/acdc (database.zip, with ground truth in testing); cite O. Bernard "
        'et al., "Deep learning techniques for automatic MRI cardiac multi-structures segmentation and diagnosis: is '
        'the problem solved?", IEEE Transactions on Medical Imaging 37(11):2514-2525, 2018'
    )
    layout: ClassVar[str] = """
        training/patientNNN/Info.cfg                       lines `ED: 1`, `ES: 12`, `Group: DCM`, `NbFrame: 30`
        training/patientNNN/patientNNN_4d.nii.gz           all frames; only `sequence` needs it
        training/patientNNN/patientNNN_frameMM.nii.gz      MM = ED and ES, counted from 1
        training/patientNNN/patientNNN_frameMM_gt.nii.gz   1 right ventricle, 2 myocardium, 3 left ventricle
        testing/patientNNN/...                             the same
        (unpacked files *.nii serve as well)
    """
    splits: ClassVar[str] = (
        "test: the patients of testing (50), or, without that folder, a fifth of the patients held out; "
        "train and val: those of training (100), a fifth of each group drawn into val with the seed"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        dimension: Literal[2, 3] = 2,
        fixed: Literal["ES", "ED"] = "ES",
        val_share: float = 0.2,
        test_share: float = 0.2,
        seconds_per_frame: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if dimension not in (2, 3):
            raise ConfigError(f"{self.name}: dimension must be 2 or 3, got {dimension!r}")
        if fixed not in ("ES", "ED"):
            raise ConfigError(f"{self.name}: fixed must be 'ES' or 'ED', got {fixed!r}")
        for key, share in (("val_share", val_share), ("test_share", test_share)):
            if not 0 <= share < 1:
                raise ConfigError(f"{self.name}: {key} must lie in 0..1, got {share}")
        if seconds_per_frame is not None and not seconds_per_frame > 0:
            raise ConfigError(f"{self.name}: seconds_per_frame must be positive, got {seconds_per_frame}")
        self.root, self.dimension, self.fixed = root, dimension, fixed
        self.val_share, self.test_share, self.seconds_per_frame = val_share, test_share, seconds_per_frame

    def look_through(self) -> Survey:
        root = self.root_folder()
        survey = Survey(root)
        training, testing = _patients(survey, root)
        for name in sorted(training.keys() & testing.keys()):
            survey.fault(testing.pop(name), f"{name} is in both folders, also as {training[name]}")
        patients = [p for folder in (*training.values(), *testing.values()) if (p := _patient(survey, folder))]
        groups = {p.name: p.group for p in patients}
        split_of = self._split_of([n for n in training if n in groups], list(testing), groups)
        if not testing and training:
            held = sum(s == "test" for s in split_of.values())
            survey.note("", f"no folder testing: {held} of {len(training)} patients are held out for test")
        with_series = [p for p in patients if p.series.is_file()]
        if patients and not with_series:
            survey.note("", "there is no patientNNN_4d.nii.gz: pairs can be had, sequences cannot")
        for patient in patients:
            survey.count("patients")
            survey.count(f"group {patient.group}")
            if with_series:
                _check_series(survey, patient)
            survey.records[split_of[patient.name]] += self._cases(survey, patient)
        return survey

    def _split_of(self, training: list[str], testing: list[str], groups: Mapping[str, str]) -> dict[str, str]:
        """The split of each patient; what is drawn is spread evenly over the groups."""
        generator = random_generator(self.name, "split", self.seed)
        order = [n for g in sorted(set(groups.values())) for n in _shuffled(generator, training, groups, g)]
        test = set(testing) if testing else set(_spread(order, self.test_share))
        rest = [n for n in order if n not in test]
        val = set(_spread(rest, self.val_share))
        return {n: "test" if n in test else "val" if n in val else "train" for n in (*training, *testing)}

    def _cases(self, survey: Survey, patient: _Patient) -> list[Record]:
        """The cases of a patient whose files of frames can be used."""
        labels = _check_frames(survey, patient)
        if labels is None:
            return []
        moving = "ED" if self.fixed == "ES" else "ES"
        record: dict[str, Any] = {"subjects": [patient.name], "frame": patient.frames[self.fixed] - 1}
        for role, phase in (("fixed", self.fixed), ("moving", moving)):
            record |= {role: str(patient.image(phase)), f"{role}_labels": str(patient.labels(phase))}
        record |= {"series": str(patient.series), "reference": patient.frames[moving] - 1}
        if self.dimension == 3:
            names = [patient.name]
            slices: list[int | None] = [None]
        else:
            there = labels["ED"].any(axis=(0, 1)) & labels["ES"].any(axis=(0, 1))
            survey.count("slices", len(there))
            survey.count("slices left out without labels in both frames", int((~there).sum()))
            slices = [int(z) for z in there.nonzero()[0]]
            if not slices:
                survey.note(patient.folder, "no slice has labels in both frames; left out")
            names = [f"{patient.name}/slice{z:02d}" for z in slices]
        return [
            {"case_id": f"{name}/{record['frame']:03d}", "sequence": name, "slice": z, **record}
            for name, z in zip(names, slices, strict=True)
        ]

    def load(self, record: Record) -> RegistrationPair:
        z = record["slice"]
        fixed, moving = _read_frame(record["fixed"]), _read_frame(record["moving"])
        arrays = {
            "fixed_labels": _read_labels(record["fixed_labels"]),
            "moving_labels": _read_labels(record["moving_labels"]),
        }
        images = np.stack([fixed[0], moving[0]], axis=-1)
        if z is not None:
            images, arrays = images[:, :, z], {key: value[:, :, z] for key, value in arrays.items()}
        # Both frames are scaled as one image, so that blood and muscle keep their brightness.
        tensors = preprocess({"images": images, **arrays}, [scale_intensity("images")])
        both = tensors.pop("images")
        grid = fixed[1]
        spacing, affine = geometry(grid if z is None else plane(grid.shape, grid.spacing_mm))
        return RegistrationPair(
            case_ids=(str(record["case_id"]),),
            fixed=both[..., 0].contiguous(),
            moving=both[..., 1].contiguous(),
            **tensors,
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            label_names=_NAMES,
            frames=(int(record["frame"]),),
        )

    def sequence(self, record: Record) -> ImageSequence:
        """All frames of the slice or stack of `record`, labels at end-diastole and end-systole.

        Raises:
            DataError: the patient has no `patientNNN_4d.nii.gz`, or it does not fit its frames.
        """
        z = record["slice"]
        series, grid, seconds = _read_series(record["series"])
        frames = series if z is None else series[:, :, z]
        scaled = preprocess({"image": frames}, [scale_intensity("image")])["image"]
        labelled = {int(record["frame"]): record["fixed_labels"], int(record["reference"]): record["moving_labels"]}
        maps = [_read_labels(path) for _, path in sorted(labelled.items())]
        labels = np.stack([m if z is None else m[:, :, z] for m in maps])
        if labels.shape[1:] != frames.shape[:-1]:
            raise DataError(f"{record['series']}: frames of {frames.shape[:-1]}, their labels are {labels.shape[1:]}")
        if seconds is None or seconds > _LONGEST_FRAME_S:
            seconds = 1 / frames.shape[-1]
        spacing, affine = geometry(grid if z is None else plane(grid.shape, grid.spacing_mm))
        return ImageSequence(
            case_ids=(str(record["sequence"]),),
            frames=scaled.movedim(-1, 1).contiguous(),
            seconds_per_frame=self.seconds_per_frame or seconds,
            reference=int(record["reference"]),
            spacing_mm=spacing,
            affine=affine,
            labels=torch.from_numpy(labels)[None, :, None],
            labelled_frames=tuple(sorted(labelled)),
            label_names=_NAMES,
        )


@dataclass(frozen=True)
class _Patient:
    """A folder `patientNNN` and what its `Info.cfg` says; frame numbers count from 1."""

    folder: Path
    group: str
    frames: Mapping[str, int]
    count: int | None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def series(self) -> Path:
        return self._file("4d")

    def image(self, phase: str) -> Path:
        return self._file(f"frame{self.frames[phase]:02d}")

    def labels(self, phase: str) -> Path:
        return self._file(f"frame{self.frames[phase]:02d}_gt")

    def _file(self, what: str) -> Path:
        """The compressed file as distributed, unless only an unpacked one is there."""
        packed = self.folder / f"{self.name}_{what}.nii.gz"
        unpacked = packed.with_suffix("")
        return unpacked if unpacked.is_file() and not packed.is_file() else packed


def _patients(survey: Survey, root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The folders of the patients in `training` (or in the root itself) and in `testing`, by name."""
    top = root / "database" if (root / "database").is_dir() else root
    training = top / "training" if (top / "training").is_dir() else top
    found = []
    for folder in (training, top / "testing"):
        inside = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        found.append({p.name: p for p in inside if re.fullmatch(r"patient\d+", p.name)})
    if not found[0] and not found[1]:
        survey.fault(top, f"no folder training/patientNNN or testing/patientNNN in {top}")
    elif not found[1] and (top / "testing").is_dir():
        survey.fault(top / "testing", "holds no folder patientNNN")
    return found[0], found[1]


def _patient(survey: Survey, folder: Path) -> _Patient | None:
    """The patient of `folder`, or `None` and faults where `Info.cfg` cannot be used."""
    path = folder / "Info.cfg"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        survey.fault(
            path, "missing; it says which frames are ED and ES" if not path.is_file() else f"unreadable: {error}"
        )
        return None
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    entries = {key.strip().lower(): value.strip() for key, value in pairs}
    numbers: dict[str, int] = {}
    for key in ("ED", "ES", "NbFrame"):
        value = entries.get(key.lower())
        if value is None:
            say = survey.note if key == "NbFrame" else survey.fault
            say(path, f"no line `{key}: <number>`")
        elif not value.isdecimal() or int(value) < 1:
            survey.fault(path, f"{key} is {value!r}, expected a number from 1")
        else:
            numbers[key] = int(value)
    if "ED" not in numbers or "ES" not in numbers:
        return None
    count = numbers.pop("NbFrame", None)
    for key, number in numbers.items():
        if count is not None and number > count:
            survey.fault(path, f"{key} is frame {number}, NbFrame only {count}")
    if numbers["ED"] == numbers["ES"]:
        survey.fault(path, f"ED and ES are the same frame {numbers['ED']}")
    if not entries.get("group"):
        survey.note(path, "no line `Group: <name>`; taken as a group of its own")
    return _Patient(folder, entries.get("group") or "unknown", numbers, count)


def _check_series(survey: Survey, patient: _Patient) -> None:
    """That the 4-D image holds the frames that `Info.cfg` speaks of."""
    path = patient.series
    survey.holds(path, "series")
    try:
        grid, count, _ = read_4d_header(path)
    except DataError as error:
        survey.fault(path, _without(path, error))
        return
    for phase, number in patient.frames.items():
        if number > count:
            survey.fault(path, f"holds {count} frames; {phase} is frame {number} in Info.cfg")
        frame = patient.image(phase)
        try:
            shape = _stack(read_grid(frame)).shape if frame.is_file() else grid.shape
        except DataError:
            continue  # Told where the frames are checked.
        if shape != grid.shape:
            survey.fault(path, f"frames of {grid.shape} voxels, {frame} has {shape}")
    if patient.count is not None and patient.count != count and max(patient.frames.values()) <= count:
        survey.note(path, f"holds {count} frames, Info.cfg says NbFrame {patient.count}; ED and ES are inside")


def _check_frames(survey: Survey, patient: _Patient) -> dict[str, NDArray[Any]] | None:
    """Labels of both frames, or `None` and faults: files missing or unreadable, of unequal size, unknown labels."""
    faults = len(survey.faults)
    grids: dict[str, Grid] = {}
    labels: dict[str, NDArray[Any]] = {}
    for phase in ("ED", "ES"):
        image, truth = patient.image(phase), patient.labels(phase)
        for path, read in ((image, read_grid), (truth, lambda p: read_image(p, kind="labels"))):
            try:
                found = read(path) if path.is_file() else None
            except DataError as error:
                survey.fault(path, _without(path, error))
                continue
            if found is None:
                survey.fault(path, f"missing; Info.cfg says that {phase} is frame {patient.frames[phase]}")
            elif isinstance(found, Grid):
                grids[phase] = _stack(found)
            else:
                labels[phase] = found.array.reshape(_stack(found.grid).shape)
                _check_labels(survey, path, labels[phase], _stack(found.grid), grids.get(phase))
    if len(grids) == 2 and grids["ED"].shape != grids["ES"].shape:
        there = f"{grids['ES'].shape} voxels, {patient.image('ED')} has {grids['ED'].shape}"
        survey.fault(patient.image("ES"), f"{there}; expected frames of one series")
    elif len(grids) == 2 and not grids_equal(grids["ED"], grids["ES"]):
        survey.note(
            patient.image("ES"), f"its header places it elsewhere than {patient.image('ED')}; taken voxel by voxel"
        )
    return labels if len(survey.faults) == faults else None


def _check_labels(survey: Survey, path: Path, labels: NDArray[Any], grid: Grid, image: Grid | None) -> None:
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *_NAMES})
    if unknown:
        survey.fault(path, f"unknown labels {unknown[:9]}; expected 0 to {max(_NAMES)}")
    if image is not None and labels.shape != image.shape:
        survey.fault(path, f"labels of {labels.shape} voxels, their image has {image.shape}")
    elif image is not None and not grids_equal(grid, image):
        survey.note(path, "its header places it elsewhere than its image; taken voxel by voxel")


def _without(path: Path, error: DataError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _stack(grid: Grid) -> Grid:
    """A grid with a third axis, which `read_image` drops from stacks of one slice."""
    if grid.dimension == 3:
        return grid
    (a, b), (c, d) = grid.direction_matrix
    direction = (a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0)
    return Grid((*grid.shape, 1), (*grid.spacing_mm, 1.0), (*grid.origin, 0.0), direction)


def _shuffled(generator: np.random.Generator, names: list[str], groups: Mapping[str, str], group: str) -> list[str]:
    members = [n for n in names if groups[n] == group]
    return [members[i] for i in generator.permutation(len(members))]


def _spread(names: list[str], share: float) -> list[str]:
    """A share of `names`, evenly spaced."""
    wanted = round(share * len(names))
    return [names[(2 * i + 1) * len(names) // (2 * wanted)] for i in range(wanted)]


# Every slice of a patient needs the same files: the last two of each kind are kept.


@kept_while_unchanged(2)
def _read_frame(path: str) -> tuple[NDArray[Any], Grid]:
    image = read_image(path)
    grid = _stack(image.grid)
    return image.array.reshape(grid.shape), grid


@kept_while_unchanged(2)
def _read_labels(path: str) -> NDArray[Any]:
    labels = read_image(path, kind="labels")
    return labels.array.reshape(_stack(labels.grid).shape)


@kept_while_unchanged(1)
def _read_series(path: str) -> tuple[NDArray[np.float32], Grid, float | None]:
    return read_4d(path)
