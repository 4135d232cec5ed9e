"""The tasks of the Learn2Reg challenge, as the organisers distribute them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.image_io import LoadedImage, read_image
from reg_bench.learn2reg_2020 import find_2020, task_of_2020
from reg_bench.learn2reg_checks import check_headers, check_pairs
from reg_bench.learn2reg_files import task_of_json
from reg_bench.learn2reg_json import find_task_jsons, name_in, read_task_json
from reg_bench.learn2reg_points import read_pair_points
from reg_bench.learn2reg_presets import PRESETS, preset_called
from reg_bench.learn2reg_splits import TestPairs, split_pairs
from reg_bench.learn2reg_task import Pair, TaskFiles, points_of
from reg_bench.preprocessing import geometry, preprocess, scale_intensity
from reg_bench.resampling import at_size
from reg_bench.splits import SPLITS
from reg_bench.survey import Survey
from reg_bench.types import PointPairs, RegistrationPair

# CT without a voxel below this is stored with an offset, so that air is about 0; the window moves with it.
_NO_AIR_HU, _OFFSET_HU = -500.0, 1000.0


class Learn2Reg(RegistrationDataModule):
    """Any task of the Learn2Reg challenge: LungCT, AbdomenCTCT, HippocampusMR, OASIS, NLST, AbdomenMRCT, and more.

    Since 2022 a task is what its `<Task>_dataset.json` says; a preset fills in what the file leaves open. Tasks 2, 3
    and 4 of 2020 are found by their folders. As the challenge scores, index belongs to index: nothing is resampled,
    headers are ignored but for the spacing of the moving image, in which the target registration error is measured.

    Intensities of CT become 0..1 between the window of the preset; where no voxel lies below -500, air is taken to be
    stored as 0 and the window moves up by 1000. Those of all other modalities become 0..1 between the minimum and the
    99.5th percentile of each image.

    Args:
        root: folder that the task was unpacked to, or one up to two folders above.
        task: which one, where several lie there (`LungCT`); also names the preset of a file of unknown name.
        edition: layout of `2022` (and later) or of `2020`; found by looking if not given.
        test: which pairs are the split `test`. `auto`: `registration_test` if its images and anything to score with
            (labels, landmarks or keypoints) are here; else `registration_val` if it can be scored; else pairs of
            subjects held out. The others take what is named, with or without truth; `holdout` draws subjects.
        holdout: share of the subjects drawn with the seed for `val` (and `test`) where no pairs are given.
        train_pairs, val_pairs: pairs of different people that are drawn at most, for `unpaired` and `hybrid` tasks.
        size: shape that the images are resampled to for the method, such as the 64 x 64 x 64 of the pyramid paper;
            fields are brought back and scored at full resolution. Full resolution if not given.
        intensity: `task` as above; `raw` as stored; `paper2` for the pyramid paper: CT by minimum and maximum of the
            fixed image, others by their own.
        window: intensities of CT in HU that become 0 and 1, in place of the preset's.
        masks: whether the mask of the fixed image goes with a pair; by default where the challenge restricts SDlogJ
            to it. Voxels that are exactly 1 count, as there.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: an option that makes no sense.
    """

    name: ClassVar[str] = "learn2reg"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (3,)
    licence: ClassVar[str] = "that of each task, see `licence` in its dataset JSON"
    folder: ClassVar[str] = "learn2reg"
    source: ClassVar[str] = (
        "https://learn2reg.grand-challenge.org/Datasets/ ; cite A. Hering et al., Learn2Reg: comprehensive multi-task "
        "medical image registration challenge, dataset and evaluation, IEEE TMI 42(3), 2023, and the source of the task"
    )
    layout: ClassVar[str] = """
        since 2022, here or up to two folders below:
          <Task>_dataset.json
          imagesTr/<Task>_SSSS_mmmm.nii.gz         subject and modality, four digits each; test images in imagesTs
          labelsTr/, masksTr/                      the same names
          landmarksTr/, keypointsTr/               <Task>_SSSS_mmmm.csv: x,y,z in voxels; for a pair of two of several
                                                   modalities keypoints01Tr or keypoints00000001Tr
        2020:
          task_02/training/{scans,lungMasks}/case_NNN_{exp,insp}.nii.gz, lms/case_NNN.txt
          task_03/Training/{img,label}/{img,label}NNNN.nii.gz
          task_04/Training/{img,label}/hippocampus_NNN.nii.gz
          task_0N/pairs_val.csv or task_0N/Training/pairs_val.csv: columns fixed, moving (optional)
    """
    splits: ClassVar[str] = """
        test: the pairs of registration_test if labels or points to score them are here, which are mostly not public;
          else those of registration_val (2020: pairs_val.csv); else pairs of subjects held out with the seed.
        val: the pairs of registration_val if they are not the test already and can be scored; else pairs of subjects
          held out with the seed from training.
        train: pairs of the subjects in `training` who are in none of these, and never those of registration_val.
          paired: the two images of a person (training_paired_images); unpaired: people drawn with the seed;
          hybrid: both.
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        task: str | None = None,
        edition: Literal["2020", "2022", 2020, 2022] | None = None,
        test: TestPairs = "auto",
        holdout: float = 0.1,
        train_pairs: int = 400,
        val_pairs: int = 40,
        size: tuple[int, int, int] | None = None,
        intensity: Literal["task", "raw", "paper2"] = "task",
        window: tuple[float, float] | None = None,
        masks: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < holdout < 1:
            raise ConfigError(f"{self.name}: holdout must lie between 0 and 1, got {holdout}")
        if window is not None and not window[0] < window[1]:
            raise ConfigError(f"{self.name}: window must be a lower and a higher intensity, got {window}")
        if size is not None and any(n < 2 for n in size):
            raise ConfigError(f"{self.name}: size must be three lengths of at least 2, got {size}")
        self.root, self.task, self.test = root, task, test
        self.edition = None if edition is None else str(edition)
        self.holdout, self.train_pairs, self.val_pairs = holdout, train_pairs, val_pairs
        self.size = None if size is None else tuple(size)
        self.intensity, self.masks = intensity, masks
        self.window = None if window is None else tuple(window)
        self._challenge: TaskFiles | None = None

    def challenge(self) -> TaskFiles | None:
        self.survey()
        return self._challenge

    def look_through(self) -> Survey:
        survey = Survey(self.root_folder())
        task = self._challenge = self._find(survey)
        if task is None:
            return survey
        for scan in (*task.scans.values(), *task.test_scans.values()):
            survey.count("test images" if scan.test else "training images")
            survey.holds(scan.image, "image")
            for kind, path in scan.files.items():
                survey.count(f"{kind} files")
                if kind == "label" or kind == "mask":
                    survey.holds(path, "labels")
        check_headers(task, survey)
        pairs = split_pairs(
            task,
            survey,
            seed=self.seed,
            test=self.test,
            holdout=self.holdout,
            train_pairs=self.train_pairs,
            val_pairs=self.val_pairs,
        )
        check_pairs(task, [pair for split in SPLITS for pair in pairs[split]], survey)
        for split in SPLITS:
            survey.records[split] = [self._record(task, pair) for pair in pairs[split]]
        return survey

    def _find(self, survey: Survey) -> TaskFiles | None:
        """The files of the task that was asked for, or of the only one there."""
        root = survey.root
        assert root is not None
        jsons = {} if self.edition == "2020" else {path: name_in(path) for path in find_task_jsons(root)}
        old = {} if self.edition == "2022" else find_2020(root)
        if not jsons and not old:
            expected = {"2020": "no task of 2020", "2022": "no <Task>_dataset.json"}
            survey.fault(root, f"{expected.get(self.edition or '', 'no task of Learn2Reg')} here or below; {_EXPECTED}")
            return None
        chosen = self._choose(jsons, old)
        if isinstance(chosen, str):
            return task_of_2020(chosen, *old[chosen], survey)
        content = read_task_json(chosen, lambda text: survey.fault(chosen, text))
        if content is None:
            return None
        for text in content.notes:
            survey.note(chosen, text)
        preset = preset_called(content.name)
        if preset is None and self.task and self.task.lower() != content.name.lower():
            preset = preset_called(self.task)
            survey.note(chosen, f"the task is called {content.name!r}; taken for {self.task}, as asked for")
        return task_of_json(content, preset, survey)

    def _choose(self, jsons: dict[Path, str], old: dict[str, tuple[Path, Path]]) -> Path | str:
        found = [*jsons.values(), *(f"{name} (2020)" for name in old)]
        if self.task is None:
            if len(found) > 1:
                raise DataError(f"{self.name}: several tasks here, {', '.join(found)}: choose by `task` or `edition`")
            return next(iter(jsons)) if jsons else next(iter(old))
        wanted = self.task.lower()
        fitting: list[Path | str] = [path for path, name in jsons.items() if name.lower() == wanted]
        fitting += [name for name in old if name.lower() == wanted]
        if not fitting and len(jsons) == 1 and preset_called(self.task):
            # A file of unknown name; one that is another task of the challenge is not to be taken for this one.
            fitting += [path for path, name in jsons.items() if preset_called(name) is None]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise DataError(f"{self.name}: {self.task} is here {len(fitting)} times; give its own folder or `edition`")
        raise DataError(
            f"{self.name}: no task {self.task!r} here; found {', '.join(found)}. Presets: {', '.join(PRESETS)}"
        )

    def _record(self, task: TaskFiles, pair: Pair) -> Record:
        fixed, moving = pair
        preset = task.preset
        record: dict[str, Any] = {
            "case_id": f"{fixed.id}-{moving.id}",
            "subjects": list(dict.fromkeys((fixed.subject, moving.subject))),
            "fixed": str(fixed.image),
            "moving": str(moving.image),
            "fixed_window": self._window_of(task, fixed.modality),
            "moving_window": self._window_of(task, moving.modality),
            "label_names": {str(value): name for value, name in preset.labels.items()},
        }
        for role, scan in (("fixed", fixed), ("moving", moving)):
            if "label" in scan.files:
                record[f"{role}_labels"] = str(scan.files["label"])
        if "mask" in fixed.files and (preset.masked if self.masks is None else self.masks):
            record["mask"] = str(fixed.files["mask"])
        for base, (here, there) in points_of(fixed, moving).items():
            record[f"fixed_{base}"], record[f"moving_{base}"] = str(here), str(there)
        return record

    def _window_of(self, task: TaskFiles, modality: int) -> list[float] | None:
        window = task.preset.window_of(modality)
        return None if window is None else [float(v) for v in self.window or window]

    def load(self, record: Record) -> RegistrationPair:
        images = {role: read_image(record[role]) for role in ("fixed", "moving")}
        for image in images.values():
            if image.grid.dimension != 3:
                raise DataError(f"{image.path}: a {image.grid.dimension}-D image {image.grid.shape}, expected 3-D")
        arrays: dict[str, NDArray[Any]] = self._scaled(record, images)
        for role, image in images.items():
            if f"{role}_labels" in record:
                arrays[f"{role}_labels"] = _companion(Path(record[f"{role}_labels"]), image)
        if "mask" in record:
            arrays["mask"] = _mask(Path(record["mask"]), images["fixed"])
        tensors = preprocess(arrays, [])
        spaces = {role: geometry(image.grid) for role, image in images.items()}
        pair = RegistrationPair(
            case_ids=(str(record["case_id"]),),
            **tensors,
            fixed_spacing_mm=spaces["fixed"][0],
            moving_spacing_mm=spaces["moving"][0],
            fixed_affine=spaces["fixed"][1],
            moving_affine=spaces["moving"][1],
            label_names={int(value): name for value, name in record["label_names"].items()} or None,
            points=self._points(record, images),
        )
        return pair if self.size is None else at_size(pair, self.size)

    @staticmethod
    def _points(record: Record, images: dict[str, LoadedImage]) -> dict[str, PointPairs] | None:
        grids = (images["fixed"].grid, images["moving"].grid)
        found: dict[str, PointPairs] = {}
        for base in ("landmarks", "keypoints"):
            if f"fixed_{base}" not in record:
                continue
            here, there = (
                torch.from_numpy(read_pair_points(Path(record[f"{role}_{base}"]), side, grids).copy())
                for side, role in enumerate(("fixed", "moving"))
            )
            if len(here) != len(there):
                raise DataError(
                    f"{record[f'moving_{base}']}: {len(there)} points, expected {len(here)} as of the fixed"
                )
            found[base] = PointPairs((here,), (there,))
        return found or None

    def _scaled(self, record: Record, images: dict[str, LoadedImage]) -> dict[str, NDArray[Any]]:
        """Intensities as asked for."""
        arrays = {role: image.array for role, image in images.items()}
        if self.intensity == "raw":
            return arrays
        scaled: dict[str, NDArray[Any]] = {}
        for role, array in arrays.items():
            window = record[f"{role}_window"]
            if self.intensity == "paper2":
                reference = array if window is None else arrays["fixed"]
                low, high = float(reference.min()), float(reference.max())
                scaled[role] = (array - np.float32(low)) / np.float32(high - low)
            elif window is None:
                scaled[role] = preprocess({role: array}, [scale_intensity(role)])[role][0, 0].numpy()
            else:
                scaled[role] = _windowed(Path(record[role]), array, *window)
        return scaled


_EXPECTED = "`reg-bench data describe learn2reg` shows what is expected"


def _windowed(path: Path, array: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    offset = _OFFSET_HU if array.min() > _NO_AIR_HU else 0.0
    scaled = np.clip((array - np.float32(low + offset)) / np.float32(high - low), 0, 1)
    if scaled.min() == scaled.max():
        raise DataError(
            f"{path}: intensities {array.min():g} to {array.max():g} lie outside the window {low:g} to {high:g} HU; "
            "expected CT, or give another window"
        )
    return scaled


def _companion(path: Path, image: LoadedImage) -> NDArray[Any]:
    """A label map, voxel by voxel on the grid of `image`."""
    found = read_image(path, kind="labels").array
    if found.shape != image.array.shape:
        raise DataError(f"{path}: shape {found.shape}, expected {image.array.shape} as its image {image.path}")
    return found


def _mask(path: Path, image: LoadedImage) -> NDArray[Any]:
    """The voxels that are exactly 1: the challenge leaves all others out."""
    values = _companion(path, image)
    if not (values == 1).any():
        raise DataError(f"{path}: holds the values {np.unique(values)[:9].tolist()}, expected 1 inside the mask")
    return values == 1
