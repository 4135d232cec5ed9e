"""Inter-subject pairs of any 3-D task of the Medical Segmentation Decathlon, as its archives unpack."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk  # noqa: N813
from monai.transforms import ResizeWithPadOrCropd

from reg_bench import nifti
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import LoadedImage, read_image, reason, resample_to, squeezed_grid, to_sitk
from reg_bench.preprocessing import cropped, geometry, preprocess, scale_intensity
from reg_bench.splits import SPLITS, Split
from reg_bench.survey import Record, Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import RegistrationPair

_INDEX = "dataset.json"
_KEYS = ("name", "modality", "labels", "numTraining", "training")


class Msd(RegistrationDataModule):
    """Medical Segmentation Decathlon: pairs of different people of one task, with the labels of its `dataset.json`.

    The people of `training` are divided with the seed; ordered pairs are drawn with the seed within each split.
    Images are brought to the axes and the spacing of the fixed one where theirs differ, and laid over each other
    centre on centre, in a box of `size` or in that of the fixed image; both then carry the grid of the fixed one.
    `imagesTs` has no public labels and is never used.

    Args:
        root: folder of a task, with `dataset.json`, or the folder that holds Task04_Hippocampus.
        channel: of images with several (0-based), such as FLAIR, T1w, T1gd, T2w of Task01_BrainTumour.
        size: voxels of the box, such as 64 64 64 as Learn2Reg has it; the size of the fixed image if not given.
        pairs: how many are drawn for train, val and test; all there are if there are fewer.
        shares: of the people that go to val and test, at least two each; the rest are for training.
        percentile: each image is scaled to 0..1 between its minimum and this percentile; as stored if not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: an option out of range.
    """

    name: ClassVar[str] = "msd"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "CC-BY-SA-4.0"
    folder: ClassVar[str] = "Task04_Hippocampus"
    source: ClassVar[str] = (
        "medicaldecathlon.com, e.g. Task04_Hippocampus.tar, unpacked; cite A. L. Simpson et al., A large annotated "
        "medical image dataset for the development and evaluation of segmentation algorithms, arXiv:1902.09063"
    )
    layout: ClassVar[str] = """
        dataset.json                           name, modality, labels, numTraining, training, test
        imagesTr/hippocampus_001.nii.gz        the images that `training` lists; 4-D where there are several channels
        labelsTr/hippocampus_001.nii.gz        their labels, of the same name
        imagesTs/...                           not used: their labels are not public
        ._*                                    resource files of macOS in the archives: ignored
    """
    splits: ClassVar[str] = (
        "`training`, divided by people with the seed: 70 % train, 10 % val, 20 % test (`shares`); pairs within a split"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        channel: int = 0,
        size: tuple[int, int, int] | None = None,
        pairs: tuple[int, int, int] = (400, 40, 40),
        shares: tuple[float, float] = (0.1, 0.2),
        percentile: float | None = 99.5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.channel, self.percentile = root, channel, percentile
        self.size = None if size is None else tuple(size)
        self.pairs, self.shares = tuple(pairs), tuple(shares)
        if channel < 0:
            raise ConfigError(f"{self.name}: channel must be at least 0, got {channel}")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"{self.name}: size must be positive, got {self.size}")
        if min(self.pairs) < 0:
            raise ConfigError(f"{self.name}: pairs must be at least 0, got {self.pairs}")
        if min(self.shares) < 0 or sum(self.shares) > 1:
            raise ConfigError(f"{self.name}: shares must be at least 0 and at most 1 together, got {self.shares}")
        if percentile is not None and not 0 < percentile <= 100:
            raise ConfigError(f"{self.name}: percentile must lie in 0..100, got {percentile}")

    def look_through(self) -> Survey:
        survey = Survey(self.root_folder())
        subjects = self._subjects(survey, _index(survey))
        names = sorted(subjects)
        if len(names) < 2:
            if not survey.faults:
                survey.fault(_INDEX, f"training lists {len(names)} images; pairs need at least two people")
            return survey
        order = [names[i] for i in random_generator(self.name, "subjects", self.seed).permutation(len(names))]
        start = 0
        for split, count in self._numbers(len(names)).items():
            members = sorted(order[start : start + count])
            start += count
            every = list(itertools.permutations(members, 2))
            wanted = min(self.pairs[SPLITS.index(split)], len(every))
            drawn = random_generator(self.name, split, self.seed).choice(len(every), wanted, replace=False)
            survey.records[split] = [self._record(subjects, *every[i]) for i in drawn] if wanted else []
        return survey

    def _numbers(self, people: int) -> dict[Split, int]:
        """How many people test, val and train get, in this order."""
        test, val = (max(2, round(people * share)) if share > 0 else 0 for share in reversed(self.shares))
        test = min(test, people)
        val = min(val, people - test)
        return {"test": test, "val": val, "train": people - test - val}

    def _record(self, subjects: Mapping[str, tuple[Path, Path]], fixed: str, moving: str) -> Record:
        return {
            "case_id": f"{fixed}-{moving}",
            "subjects": [fixed, moving],
            "fixed": str(subjects[fixed][0]),
            "moving": str(subjects[moving][0]),
            "fixed_labels": str(subjects[fixed][1]),
            "moving_labels": str(subjects[moving][1]),
        }

    def _subjects(self, survey: Survey, index: Mapping[str, Any]) -> dict[str, tuple[Path, Path]]:
        """Image and labels of everyone in the index whose files are sound."""
        root = survey.root
        assert root is not None
        entries = index.get("training", [])
        if index and index["numTraining"] != len(entries):
            survey.fault(_INDEX, f"numTraining is {index['numTraining']}, but training lists {len(entries)} images")
        found: dict[str, tuple[Path, Path]] = {}
        axes: dict[str, list[str]] = {}
        channels: dict[Path, int] = {}
        for number, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or not all(isinstance(entry.get(k), str) for k in ("image", "label")):
                survey.fault(_INDEX, f"training[{number}] is {entry!r}, expected {{'image': ..., 'label': ...}}")
                continue
            image, label = root / entry["image"], root / entry["label"]
            name = image.name.removesuffix(".gz").removesuffix(".nii")
            if name in found:
                survey.fault(_INDEX, f"training[{number}]: {entry['image']} is listed twice")
                continue
            found[name] = (image, label)
            survey.holds(label, "labels")
            grid = self._check(survey, image, label, channels)
            if grid is not None:
                axes.setdefault(_axes(grid), []).append(name)
        survey.count("people", len(found))
        _check_channels(survey, channels)
        if len(axes) > 1:
            kinds = "; ".join(f"{code}: {len(names)}, e.g. {names[0]}" for code, names in sorted(axes.items()))
            survey.note(
                _INDEX, f"images of several axis orders ({kinds}): the moving one is brought to the fixed one's"
            )
        _strays(survey, found, index.get("test", []))
        return found

    def _check(self, survey: Survey, image: Path, label: Path, channels: dict[Path, int]) -> Grid | None:
        """The grid of an image, where it and its labels are sound by their headers; tells `channels` theirs."""
        grids: dict[str, Grid] = {}
        for role, path in (("image", image), ("label", label)):
            try:
                grids[role], number = _read_header(path)
            except DataError as error:
                survey.fault(path, str(error).removeprefix(f"{path}: "))
                continue
            if role == "label" and number > 1:
                survey.fault(path, f"{number} channels, expected labels of one")
            if role == "image":
                channels[path] = number
                survey.count(f"images of {number} channel{'s' if number > 1 else ''}")
                survey.holds(path, "image" if number == 1 else "series")
                if self.channel >= number:
                    survey.fault(path, f"no channel {self.channel}: it has {number}, counted from 0")
        if len(grids) < 2:
            return None
        if grids["image"].shape != grids["label"].shape:
            survey.fault(label, f"shape {grids['label'].shape}, expected {grids['image'].shape} as its image {image}")
        elif not grids_equal(grids["image"], grids["label"]):
            survey.note(label, "another geometry in the header than that of its image, which is used")
        return grids["image"]

    def load(self, record: Record) -> RegistrationPair:
        names = self._label_names
        fixed, moving = (self._person(str(record[k]), str(record[f"{k}_labels"])) for k in ("fixed", "moving"))
        grid = fixed[0].grid
        moving = tuple(_like(image, grid, mode) for image, mode in zip(moving, ("linear", "nearest"), strict=True))
        arrays = {
            "fixed": fixed[0].array,
            "moving": moving[0].array,
            "fixed_labels": fixed[1].array,
            "moving_labels": moving[1].array,
        }
        for key in ("fixed", "moving"):
            stray = set(np.unique(arrays[f"{key}_labels"]).tolist()) - {0, *names}
            if stray:
                raise DataError(
                    f"{record[f'{key}_labels']}: holds the labels {sorted(stray)}, which {_INDEX} does not name; "
                    f"expected {sorted(names)}"
                )
        size = self.size or grid.shape
        steps: list[Callable[..., Any]] = []
        if self.percentile is not None:
            steps.append(scale_intensity(["fixed", "moving"], upper=self.percentile))
        steps.append(ResizeWithPadOrCropd(list(arrays), spatial_size=size))
        # As MONAI pads and crops: the smaller half in front, the middle voxel kept in the middle.
        start = [n // 2 - s // 2 if n > s else -((s - n) // 2) for s, n in zip(size, grid.shape, strict=True)]
        spacing, affine = geometry(cropped(grid, start, size))
        return RegistrationPair(
            case_ids=(str(record["case_id"]),),
            **preprocess(arrays, steps),
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            label_names=names,
        )

    @functools.cached_property
    def _label_names(self) -> dict[int, str]:
        survey = Survey(self.root_folder())
        names = {int(key): str(value) for key, value in _index(survey).get("labels", {}).items() if int(key) != 0}
        survey.cases(self.name, "test")
        return names

    def _person(self, image: str, labels: str) -> tuple[LoadedImage, LoadedImage]:
        """The chosen channel of an image, and its labels on the same grid."""
        grid, channels = _read_header(Path(image))
        picture = read_image(image) if channels == 1 else self._channel(Path(image), grid)
        marked = read_image(labels, kind="labels")
        if marked.grid.shape != grid.shape:
            raise DataError(f"{labels}: shape {marked.grid.shape}, expected {grid.shape} as its image {image}")
        return picture, LoadedImage(marked.array, picture.grid, marked.path)

    def _channel(self, path: Path, grid: Grid) -> LoadedImage:
        stored = nifti.read_array(path)[1]
        if stored is None:
            raise DataError(f"{path}: voxels of a type that is not supported, expected numbers")
        if self.channel >= stored.shape[-1]:
            raise DataError(f"{path}: no channel {self.channel}: it has {stored.shape[-1]}, counted from 0")
        array = np.ascontiguousarray(stored[..., self.channel], dtype=np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{path}: channel {self.channel} has NaN or infinite voxels; expected finite intensities")
        if array.min() == array.max():
            raise DataError(f"{path}: channel {self.channel} is constant, every voxel is {array.flat[0]:g}")
        return LoadedImage(array, grid, path)


def _index(survey: Survey) -> dict[str, Any]:
    """The content of `dataset.json`; empty where it cannot be used, which is a fault."""
    assert survey.root is not None
    path = survey.root / _INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        survey.fault(path, "no such file; expected the index of the task")
        return {}
    except (OSError, ValueError) as error:
        survey.fault(path, f"not readable as JSON: {error}")
        return {}
    if not isinstance(content, dict):
        survey.fault(path, f"expected a JSON object with {', '.join(_KEYS)}, got {type(content).__name__}")
        return {}
    absent = [key for key in _KEYS if key not in content]
    for key in absent:
        survey.fault(path, f"no key {key!r}; expected {', '.join(_KEYS)}")
    for key, kind in (("training", list), ("labels", dict), ("test", list)):
        if key in content and not isinstance(content[key], kind):
            survey.fault(
                path, f"{key} is {content[key]!r:.60}, expected a JSON {'array' if kind is list else 'object'}"
            )
            absent.append(key)
    if not absent:
        wrong = [key for key in content["labels"] if not str(key).isdigit()]
        if wrong:
            survey.fault(path, f"labels: {wrong[0]!r} is no label number; expected numbers with their names")
    return {} if survey.faults else content


def _read_header(path: Path) -> tuple[Grid, int]:
    """The grid of the first three axes, and the length of the fourth.

    Raises:
        DataError: missing, unreadable, truncated, of another dimension, zero spacing or singular affine.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, but {_INDEX} lists it")
    if nifti.is_nifti(path):
        header = nifti.read_header(path)
        nifti.check_geometry(path, header)
        nifti.check_length(path, header)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable or truncated image ({reason(error)})") from error
    shape = tuple(int(n) for n in reader.GetSize())
    if len(shape) not in (3, 4):
        raise DataError(f"{path}: {len(shape)} axes, shape {shape}; expected x, y, z and perhaps channels")
    try:
        grid = squeezed_grid(shape, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), 3)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return grid, (*shape, 1)[3]


def _strays(survey: Survey, found: Mapping[str, tuple[Path, Path]], test: Sequence[Any]) -> None:
    """What lies in the folders without being listed, and people who are in `training` and in `test`."""
    root = survey.root
    assert root is not None
    survey.count("test images, not used", len(test))
    for entry in test:
        path = entry if isinstance(entry, str) else str(dict(entry).get("image", "")) if entry else ""
        name = Path(path).name.removesuffix(".gz").removesuffix(".nii")
        if name in found:
            survey.fault(_INDEX, f"{name} is listed in training and in test")
    listed = {path for paths in found.values() for path in paths}
    for folder in sorted({path.parent for path in listed}):
        files = sorted(folder.glob("*")) if folder.is_dir() else []
        resource = [f for f in files if f.name.startswith("._")]
        if resource:
            survey.count("macOS resource files, ignored", len(resource))
        extra = [f for f in files if nifti.is_nifti(f) and not f.name.startswith(".") and f not in listed]
        if extra:
            names = ", ".join(f.name for f in extra[:5])
            survey.note(folder, f"{len(extra)} images that {_INDEX} does not list are not used: {names}")


def _check_channels(survey: Survey, channels: Mapping[Path, int]) -> None:
    """That all images have as many channels as most of them."""
    counts = list(channels.values())
    usual = max(set(counts), key=counts.count, default=1)
    for path, number in channels.items():
        if number != usual:
            survey.fault(path, f"{number} channel{'s' if number > 1 else ''}, expected {usual} as the others")


def _axes(grid: Grid) -> str:
    """Three letters that tell where the axes point, such as LPS."""
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction))


def _like(image: LoadedImage, grid: Grid, mode: str) -> LoadedImage:
    """`image` with the order of axes and the spacing of `grid`, over its own extent."""
    if _axes(image.grid) != _axes(grid):
        turned = sitk.DICOMOrient(to_sitk(image.array, image.grid), _axes(grid))
        own = squeezed_grid(turned.GetSize(), turned.GetSpacing(), turned.GetOrigin(), turned.GetDirection(), 3)
        array = np.ascontiguousarray(sitk.GetArrayFromImage(turned).T).astype(image.array.dtype, copy=False)
        image = LoadedImage(array, own, image.path)
    own = image.grid
    if np.allclose(own.spacing_mm, grid.spacing_mm, rtol=1e-2):
        return image
    ratio = np.asarray(own.spacing_mm) / np.asarray(grid.spacing_mm)
    shape = np.maximum(1, np.rint(ratio * own.shape)).astype(int)
    # The same centre: in voxels of the image it lies at (n - 1) / 2.
    first = (np.asarray(own.shape) - 1) / 2 - (shape - 1) / 2 / ratio
    origin = own.to_world(first[None])[0]
    target = Grid(tuple(int(n) for n in shape), grid.spacing_mm, tuple(float(o) for o in origin), own.direction)
    return resample_to(image, target, mode)
