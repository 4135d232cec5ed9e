"""What is scored of a submission: the evaluation configuration of the organisers, read or made from the dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reg_bench.errors import DataError
from reg_bench.learn2reg_task import points_of
from reg_bench.submission_pairs import Submitted, with_pairs

METRICS = ("sdlogj", "dice", "hd95", "tre")


@dataclass(frozen=True)
class Method:
    """One thing that is measured.

    Attributes:
        name: as the results call it, such as `DSC` or `TRE_lm`.
        metric: `sdlogj`, `dice`, `hd95` or `tre`.
        labels: of `dice` and `hd95`.
        points: of `tre`: `landmarks` or `keypoints`.
    """

    name: str
    metric: str
    labels: tuple[int, ...] = ()
    points: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a task, and whether SDlogJ is restricted to the mask."""

    task: str
    methods: tuple[Method, ...]
    masked: bool

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels that any of the methods counts."""
        return tuple(sorted({label for method in self.methods for label in method.labels}))


def made_for(task: Submitted) -> Evaluation:
    """The configuration that the organisers' script makes of the dataset JSON, with the metrics of the task.

    Labels and points that no pair has are left out.
    """
    preset = task.task.preset
    labels = tuple(sorted(preset.labels)) or _labels_at_hand(task)
    labelled = any("label" in pair[0].files and "label" in pair[1].files for pair in task.pairs)
    sets = {name for pair in task.pairs for name in points_of(*pair)}
    wanted = preset.metrics or ("dice", "hd95", "tre", "sdlogj")
    methods = [Method("LogJacDetStd", "sdlogj")]
    for metric, name in (("dice", "DSC"), ("hd95", "HD95")):
        if metric in wanted and labelled and labels:
            methods.append(Method(name, metric, labels))
    if "tre" in wanted:
        for name, short in (("landmarks", "TRE_lm"), ("keypoints", "TRE_kp")):
            if name in sets:
                methods.append(Method(short, "tre", points=name))
    return Evaluation(task.name, tuple(methods), preset.masked)


def _labels_at_hand(task: Submitted) -> tuple[int, ...]:
    """Where neither JSON nor preset names labels: those of the first fixed image that has some."""
    import numpy as np

    from reg_bench.image_io import read_image

    for fixed, moving in task.pairs:
        if "label" in fixed.files and "label" in moving.files:
            found = np.unique(read_image(fixed.files["label"], kind="labels").array)
            return tuple(int(value) for value in found if value != 0)
    return ()


def read_evaluation(path: Path, tasks: list[Submitted]) -> tuple[Evaluation, Submitted]:
    """The configuration in `path`, and the task that it is of with the pairs that it lists.

    Raises:
        DataError: unreadable, or anything in it that does not fit; names the key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable evaluation configuration ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of keys")
    name = content.get("task_name")
    chosen = [task for task in tasks if task.name == name] or (tasks if len(tasks) == 1 else [])
    if len(chosen) != 1:
        raise DataError(f"{path}: task_name is {name!r}, the data given by --dataset {[t.name for t in tasks]}")
    methods = tuple(_method(entry, f"{path}: evaluation_methods[{i}]") for i, entry in enumerate(_list(content, path)))
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: evaluation_methods: names must be unique, got {names}")
    shape = content.get("expected_shape")
    expected = [*chosen[0].shape, len(chosen[0].shape)]
    if shape is not None and list(shape) != expected:
        raise DataError(f"{path}: expected_shape is {shape}, the fixed images have {expected}")
    pairs = content.get("eval_pairs")
    task = chosen[0]
    if pairs is not None:
        try:
            task = with_pairs(task, [(pair["fixed"], pair["moving"]) for pair in pairs])
        except (TypeError, KeyError) as error:
            raise DataError(f"{path}: eval_pairs: expected paths 'fixed' and 'moving' in each") from error
    return Evaluation(str(name), methods, bool(content.get("masked_evaluation", False))), task


def _list(content: Mapping[str, Any], path: Path) -> list[Any]:
    found = content.get("evaluation_methods")
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: evaluation_methods: expected a list of metrics, got {found!r}")
    return found


def _method(entry: Any, where: str) -> Method:
    if not isinstance(entry, dict) or entry.get("metric") not in METRICS or not isinstance(entry.get("name"), str):
        raise DataError(f"{where}: expected a name and a metric of {', '.join(METRICS)}, got {entry!r}")
    if entry["metric"] == "tre":
        if entry.get("dest") not in ("landmarks", "keypoints"):
            raise DataError(f"{where}: dest must be landmarks or keypoints, got {entry.get('dest')!r}")
        return Method(entry["name"], "tre", points=entry["dest"])
    if entry["metric"] == "sdlogj":
        return Method(entry["name"], "sdlogj")
    labels = entry.get("labels")
    try:
        # The organisers' script writes labels of the command line as texts.
        return Method(entry["name"], entry["metric"], tuple(int(label) for label in labels or ()))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: labels must be whole numbers, got {labels!r}") from error
