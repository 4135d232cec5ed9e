"""A dataset looked through case by case: what is in it and every fault, for `reg-bench data check`."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import RegBenchError
from reg_bench.inspection_contents import contents
from reg_bench.inspection_files import content_fault, files_of, split_faults, unread
from reg_bench.io import HeaderWarning
from reg_bench.splits import SPLITS
from reg_bench.survey import Finding, Record, Severity, Survey, subjects_of
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

    Files that no case needs (see `Survey.holds`) are opened too, unless there is a limit. A fault of a file is told
    once, however many cases share the file.

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
    result.findings += split_faults(data.name, survey)
    chosen = []
    for split in SPLITS:
        records = survey.records[split]
        result.cases[split] = len(records)
        result.subjects[split] = len({s for r in records for s in subjects_of(r)})
        chosen += records[:limit]
    named = {os.path.abspath(path) for record in chosen for path in files_of(record)}
    rest = [] if limit is not None else unread(survey, named)
    found = _Found(survey)
    for number, record in enumerate(chosen, start=1):
        _look_at(data, record, result, found, visit)
        progress(number, len(chosen) + len(rest))
    for number, (path, content) in enumerate(rest, start=len(chosen) + 1):
        fault = content_fault(path, content)
        if fault is not None:
            found.add({"file": str(path)}, fault)
        progress(number, len(chosen) + len(rest))
    result.findings = list(dict.fromkeys([*result.findings, *found.findings()]))
    return result


def _look_at(
    data: RegistrationDataModule,
    record: Record,
    result: Inspection,
    found: _Found,
    visit: Callable[[RegistrationPair], None],
) -> None:
    """Loads a case and takes up what it holds and what is wrong with it."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", HeaderWarning)
            pair = data.load(record)
    except Exception as error:  # A damaged file makes its reader raise whatever the damage led to.
        found.add(record, str(error) if isinstance(error, RegBenchError) else f"{type(error).__name__}: {error}")
        return
    for warning in told:
        if issubclass(warning.category, HeaderWarning):
            found.add(record, str(warning.message), severity="note")
    faults = list(contents(pair))
    for role, what, text in faults:
        found.add(record, text, role, what)
    _tally(result, pair)
    if not faults:
        result.loaded += 1
        visit(pair)


class _Found:
    """What is wrong with files and cases: each thing once, with the cases that it was met in."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.cases: dict[Finding, list[str]] = {}

    def add(self, record: Record, text: str, role: str = "", what: str = "", severity: Severity = "fault") -> None:
        """Takes up a fault; its file is the one that the text begins with, or that the record names for `what`.

        Args:
            record: of the case; without `case_id` if it is none.
            role, what: `fixed` or `moving`, and `image`, `labels`, `mask` or the name of a set of points.
        """
        line, inner, files = f"{record.get('where')}: ", record.get("record", record), files_of(record)
        told = text.removeprefix(line)
        path = next((f for f in files if told.startswith(f"{f}: ")), None)
        if path is not None:
            text = told.removeprefix(f"{path}: ") + (f" ({record['where']})" if told != text else "")
        elif what:
            own = next((k for k in _entries(role, what) if inner.get(k) in files), None)
            path = None if own is None else inner[own]
            # Of a file of one image it does not matter which role that has in this case.
            text = f"{what}: {text}" if own and role and own.startswith(role) else f"{role} {what}: {text}".lstrip()
        case = str(record.get("case_id", ""))
        place = f"case {case}" if path is None else self.survey.relative(path)
        finding = Finding(place, self.survey.shortened(text), severity)
        self.cases.setdefault(finding, []).extend([] if path is None or not case else [case])

    def findings(self) -> Iterator[Finding]:
        """Each with the first of its cases, but for what the look through the folder told already."""
        known = set(self.survey.findings)
        for finding, cases in self.cases.items():
            if finding not in known:
                more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
                told = f"; case {cases[0]}{more}" if cases else ""
                yield replace(finding, message=finding.message + told)


def _entries(role: str, what: str) -> tuple[str, ...]:
    """Entries of a record that may name the file of `what`."""
    if what == "image":
        return (role, "images", "video", "file")
    if what == "labels":
        return (f"{role}_labels", f"{role}_inner", "labels", "contours", "file")
    return (what, f"{role}_{what}", f"{role}_points", "points") if what else ()


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
