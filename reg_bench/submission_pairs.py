"""Which pairs of a Learn2Reg task a submission has to hold, from its dataset JSON or its folder of 2020."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import torch

from reg_bench.errors import DataError
from reg_bench.image_io import read_image
from reg_bench.learn2reg_2020 import find_2020, task_of_2020
from reg_bench.learn2reg_checks import check_headers
from reg_bench.learn2reg_files import task_of_json
from reg_bench.learn2reg_json import find_task_jsons, read_task_json
from reg_bench.learn2reg_points import read_pair_points
from reg_bench.learn2reg_presets import preset_called
from reg_bench.learn2reg_splits import split_pairs
from reg_bench.learn2reg_task import Pair, TaskFiles, parse_name, points_of
from reg_bench.preprocessing import geometry
from reg_bench.submission_layout import FieldId, ImageId
from reg_bench.survey import Survey
from reg_bench.types import PointPairs, RegistrationPair

Which = Literal["auto", "registration_val", "registration_test"]

#: Validation pairs of the four tasks of 2020 as the organisers list them today (subjects; exhale and inhale, FLAIR and
#: ultrasound of one person for tasks 1 and 2): for the zero fields of tasks whose own list is not at hand.
VALIDATION_2020: dict[str, tuple[tuple[int, int], ...]] = {
    "CuRIOUS": tuple((n, n) for n in range(3, 22, 3)),
    "LungCT": tuple((n, n) for n in (1, 2, 3)),
    "AbdomenCTCT": tuple(combinations(range(1, 29, 3), 2)),
    "HippocampusMR": tuple((n, 461 - n) for n in range(201, 261)),
}


@dataclass(frozen=True)
class Submitted:
    """A task, as a submission sees it.

    Attributes:
        name: of the task.
        shape: of the fixed images.
        pairs: the pairs to be registered, in the order of the challenge.
        task: all its files.
        source: the JSON or folder that it was found by.
        layout: of its files, `2022` or `2020`.
    """

    name: str
    shape: tuple[int, ...]
    pairs: tuple[Pair, ...]
    task: TaskFiles
    source: Path
    layout: str

    def fields(self) -> list[FieldId]:
        return [field_of(pair) for pair in self.pairs]


def field_of(pair: Pair) -> FieldId:
    """The field of a pair of scans."""
    fixed, moving = (ImageId(scan.subject, scan.modality) for scan in pair)
    return FieldId(fixed, moving)


def find_submitted(
    path: Path, which: Which = "auto", note: Callable[[str], None] = lambda text: None
) -> list[Submitted]:
    """The tasks at `path`: a dataset JSON, a folder with one or more, or a folder of 2020 (one task or all).

    Args:
        which: `auto`: the pairs that `reg-bench run` scores, but never held out ones where the challenge lists any.
        note: told what is odd and was dealt with.

    Raises:
        DataError: nothing there, files that are missing or do not fit, or no pairs.
    """
    if path.is_dir():
        found = [_of_json(p, which, note) for p in find_task_jsons(path)]
        found += [_of_2020(name, *places, which, note) for name, places in find_2020(path).items()]
        if not found:
            raise DataError(f"{path}: no <Task>_dataset.json and no task of 2020 here or below")
        return found
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a dataset JSON of Learn2Reg or a folder of its tasks")
    return [_of_json(path, which, note)]


def _of_json(path: Path, which: Which, note: Callable[[str], None]) -> Submitted:
    survey = Survey(path.parent)
    content = read_task_json(path, lambda text: survey.fault(path, text))
    task = None if content is None else task_of_json(content, preset_called(content.name), survey)
    return _submitted(path, task, survey, which, "2022", note)


def _of_2020(name: str, folder: Path, training: Path, which: Which, note: Callable[[str], None]) -> Submitted:
    survey = Survey(folder)
    task = task_of_2020(name, folder, training, survey)
    return _submitted(folder, task, survey, which, "2020", note)


def _submitted(
    path: Path, task: TaskFiles | None, survey: Survey, which: Which, layout: str, note: Callable[[str], None]
) -> Submitted:
    if task is not None:
        check_headers(task, survey)
    if task is None or survey.faults:
        faults = [str(f) for f in survey.faults]
        raise DataError("\n  ".join([f"{path}: {len(faults)} faults, the data cannot be used", *faults[:20]]))
    pairs = chosen_pairs(task, which)
    if not pairs:
        raise DataError(f"{path}: lists no pairs to submit ({which}), or their images are not here")
    shapes = {task.grids[pair[0].image].shape for pair in pairs if pair[0].image in task.grids}
    shape = task.shapes.get(pairs[0][0].modality) or task.preset.shape
    if len(shapes) == 1:
        (shape,) = shapes
    if shape is None or len(shapes) > 1:
        raise DataError(f"{path}: fixed images of {len(shapes)} shapes, expected one: {sorted(shapes)}")
    for finding in survey.findings:
        note(str(finding))
    return Submitted(task.preset.name, tuple(shape), tuple(pairs), task, path, layout)


def chosen_pairs(task: TaskFiles, which: Which) -> list[Pair]:
    """The pairs of a submission, see `find_submitted`."""
    if which != "auto":
        return task.val_pairs if which == "registration_val" else task.test_pairs
    quiet = Survey()
    pairs = split_pairs(task, quiet, seed=0, test="auto", holdout=0.1, train_pairs=1, val_pairs=40)["test"]
    official = {field_of(p) for p in (*task.val_pairs, *task.test_pairs)}
    if official and not {field_of(p) for p in pairs} & official:
        return list(task.val_pairs or task.test_pairs)
    return pairs


def load_case(pair: Pair, *, masked: bool, labels: tuple[int, ...] | None = None) -> RegistrationPair:
    """A pair with everything that scores it, intensities as stored, index to index.

    Args:
        masked: whether the mask of the fixed image goes with it; voxels that are exactly 1 count.
        labels: which labels count; all that either map holds if not given.

    Raises:
        DataError: files that are unreadable or do not fit.
    """
    images = tuple(read_image(scan.image) for scan in pair)
    labelled = [
        _companion(scan.files["label"], image.array.shape) if "label" in scan.files else None
        for scan, image in zip(pair, images, strict=True)
    ]
    mask = None
    if masked and "mask" in pair[0].files:
        mask = _companion(pair[0].files["mask"], images[0].array.shape) == 1
    grids = (images[0].grid, images[1].grid)
    points = {
        name: PointPairs(
            *((torch.from_numpy(read_pair_points(file, side, grids).copy()),) for side, file in enumerate(files))
        )
        for name, files in points_of(*pair).items()
    }
    spaces = [geometry(grid) for grid in grids]
    return RegistrationPair(
        case_ids=(str(field_of(pair)),),
        fixed=torch.from_numpy(images[0].array)[None, None],
        moving=torch.from_numpy(images[1].array)[None, None],
        fixed_spacing_mm=spaces[0][0],
        moving_spacing_mm=spaces[1][0],
        fixed_affine=spaces[0][1],
        moving_affine=spaces[1][1],
        label_names=None if labels is None else {value: str(value) for value in labels},
        points=points or None,
        fixed_labels=labelled[0],
        moving_labels=labelled[1],
        mask=mask,
    )


def _companion(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    found = read_image(path, kind="labels").array
    if found.shape != shape:
        raise DataError(f"{path}: shape {found.shape}, expected {shape} as its image")
    return torch.from_numpy(found)[None, None]


def with_pairs(submitted: Submitted, wanted: list[tuple[str, str]]) -> Submitted:
    """The task with other pairs, given as paths or names of images as an evaluation configuration lists them.

    Raises:
        DataError: an image that is not there.
    """
    scans = {**submitted.task.test_scans, **submitted.task.scans}
    pairs = []
    for names in wanted:
        both = []
        for name in names:
            parsed = parse_name(Path(name).name)
            scan = None if parsed is None else scans.get(f"{parsed[0]}_{parsed[1]:04d}")
            if scan is None:
                raise DataError(f"{submitted.source}: the evaluation names {name!r}, which is not there")
            both.append(scan)
        pairs.append((both[0], both[1]))
    return replace(submitted, pairs=tuple(pairs))
