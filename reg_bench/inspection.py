"""A dataset looked through case by case: what is in it and every fault, for `reg-bench data check`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import DataError, RegBenchError
from reg_bench.splits import SPLITS
from reg_bench.survey import Finding, Survey, subjects_of
from reg_bench.types import RegistrationPair

Progress = Callable[[int, int], None]


@dataclass
class Inspection:
    """The result of `inspect`.

    Attributes:
        survey: what the dataset told of its folder.
        cases, subjects: numbers per split.
        shapes, spacings: how often each fixed grid occurs, as text.
        labels: in how many loaded cases each label stands in the fixed map.
        landmarks: number of points per named set, over all loaded cases.
        frames: how many cases belong to a frame of a sequence.
        loaded: cases that were loaded without a fault.
        findings: those of the survey, then those of the cases.
    """

    survey: Survey
    cases: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)
    shapes: Counter[str] = field(default_factory=Counter)
    spacings: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    landmarks: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    loaded: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == "fault"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {
            "root": str(self.survey.root) if self.survey.root else None,
            "cases": self.cases,
            "subjects": self.subjects,
            "counts": self.survey.counts,
            "loaded": self.loaded,
            "frames": self.frames,
            "shapes": dict(self.shapes),
            "spacings": dict(self.spacings),
            "labels": dict(self.labels),
            "landmarks": dict(self.landmarks),
            "findings": [vars(f) for f in self.findings],
        }


def inspect(
    data: RegistrationDataModule,
    *,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
    visit: Callable[[RegistrationPair], None] = lambda pair: None,
) -> Inspection:
    """Looks through the folder of a dataset, then loads its cases and looks at what they hold.

    Args:
        data: the dataset.
        limit: load at most this many cases of each split; the folder is looked through whole.
        progress: told after each case how many of how many are done.
        visit: shown every case that could be loaded.

    Raises:
        DataError: the root folder does not exist.
    """
    survey = data.survey()
    result = Inspection(survey, findings=list(survey.findings))
    result.findings += _split_faults(data, survey)
    chosen = []
    for split in SPLITS:
        records = survey.records[split]
        result.cases[split] = len(records)
        result.subjects[split] = len({s for r in records for s in subjects_of(r)})
        chosen += records[:limit]
    for number, record in enumerate(chosen, start=1):
        try:
            pair = data.load(record)
        except (RegBenchError, OSError, ValueError, RuntimeError) as error:
            text = str(error) if isinstance(error, RegBenchError) else f"{type(error).__name__}: {error}"
            result.findings.append(Finding(f"case {record['case_id']}", survey.shortened(text)))
        else:
            found = [Finding(f"case {record['case_id']}", text) for text in content_faults(pair)]
            result.findings += found
            _tally(result, pair)
            if not found:
                result.loaded += 1
                visit(pair)
        progress(number, len(chosen))
    result.findings = list(dict.fromkeys(result.findings))
    return result


def _split_faults(data: RegistrationDataModule, survey: Survey) -> Iterator[Finding]:
    """Identifiers that occur twice, people in two splits, and nothing to test on."""
    where: dict[str, set[str]] = {}
    for split, records in survey.records.items():
        counted = Counter(str(r["case_id"]) for r in records)
        for case, number in counted.items():
            if number > 1:
                yield Finding(f"case {case}", f"the identifier occurs {number} times in split {split!r}")
        for subject in {s for r in records for s in subjects_of(r)}:
            where.setdefault(subject, set()).add(split)
    for subject, splits in sorted(where.items()):
        if len(splits) > 1:
            yield Finding("", f"{subject} is in the splits {' and '.join(s for s in SPLITS if s in splits)}; one only")
    if not any(survey.records.values()) and not survey.faults:
        yield Finding("", f"{data.name}: no case was found")


def content_faults(pair: RegistrationPair) -> Iterator[str]:
    """What is wrong with the values of a case, beyond what `RegistrationPair` itself refuses."""
    if pair.scored is not None:
        yield from content_faults(pair.scored)
        return
    for role in ("fixed", "moving"):
        image: Tensor = getattr(pair, role)
        if not bool(image.isfinite().all()):
            yield f"{role} image: {int((~image.isfinite()).sum())} voxels are NaN or infinite"
        elif float(image.min()) == float(image.max()):
            yield f"{role} image: constant, every voxel is {float(image.min()):g}"
        yield from _geometry_faults(pair, role)
        yield from _label_faults(pair, role)
        shape = torch.tensor(image.shape[2:], dtype=torch.float64)
        for name, sets in (pair.points or {}).items():
            points = getattr(sets, role)[0].double()
            outside = (points.isnan() | (points < -0.5) | (points > shape - 0.5)).any(dim=1)
            if bool(outside.any()):
                first = int(outside.nonzero()[0])
                yield (
                    f"{name}: {int(outside.sum())} {role} points lie outside the image of "
                    f"{tuple(image.shape[2:])} voxels, first number {first} at {points[first].tolist()}"
                )
    if pair.mask is not None and not bool(pair.mask.any()):
        yield "mask: empty"
    if pair.true_displacement is not None and not bool(pair.true_displacement.isfinite().all()):
        yield "true displacement: has NaN or infinite values"


def _geometry_faults(pair: RegistrationPair, role: str) -> Iterator[str]:
    spacing, affine = getattr(pair, f"{role}_spacing_mm"), getattr(pair, f"{role}_affine")
    if spacing is not None and not bool(((spacing > 0) & spacing.isfinite()).all()):
        yield f"{role} spacing: {spacing[0].tolist()} mm, expected positive numbers"
    if affine is not None and not abs(float(torch.linalg.det(affine[0].double()))) > 1e-12:
        yield f"{role} affine: singular"


def _label_faults(pair: RegistrationPair, role: str) -> Iterator[str]:
    labels: Tensor | None = getattr(pair, f"{role}_labels")
    if labels is None:
        return
    values = torch.unique(labels).tolist()
    if not any(v != 0 for v in values):
        yield f"{role} labels: empty, every voxel is background"
    elif pair.label_names is not None and not set(values) & set(pair.label_names):
        yield f"{role} labels: hold {values[:9]}, none of the expected {sorted(pair.label_names)}"


def _tally(result: Inspection, pair: RegistrationPair) -> None:
    pair = pair.scored or pair
    result.shapes[" x ".join(str(n) for n in pair.spatial_shape)] += 1
    spacing = pair.fixed_spacing_mm
    text = "unknown" if spacing is None else " x ".join(f"{s:.4g}" for s in spacing[0].tolist()) + " mm"
    result.spacings[text] += 1
    result.frames += pair.frames is not None
    if pair.fixed_labels is not None:
        names: Mapping[int, str] = pair.label_names or {}
        for value in torch.unique(pair.fixed_labels).tolist():
            if value != 0:
                result.labels[f"{value} {names[value]}" if value in names else str(value)] += 1
    for name, sets in (pair.points or {}).items():
        result.landmarks[name] += len(sets.fixed[0])


def checksums(root: Path) -> Iterator[tuple[str, str]]:
    """SHA-256 and relative name of every file below `root`, in order of name.

    Raises:
        DataError: a file that cannot be read.
    """
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
            yield digest, path.relative_to(root).as_posix()
