"""Names everything that is wrong with a Learn2Reg submission, each fault with its fix, and not only the first."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reg_bench.errors import DataError
from reg_bench.learn2reg_presets import PRESETS
from reg_bench.learn2reg_task import Pair
from reg_bench.submission_archive import Archive
from reg_bench.submission_array import Form, check_array
from reg_bench.submission_fault import KINDS, WORSE, Checked
from reg_bench.submission_layout import NUMBERS, number_of, numbered
from reg_bench.submission_match import match
from reg_bench.submission_pairs import Submitted, Which, find_submitted, load_case
from reg_bench.submission_readings import judge
from reg_bench.submission_work import spread

_SHOWN = 5


@dataclass(frozen=True)
class _Job:
    """A field and what it is to be compared with."""

    archive: Path
    names: tuple[str, ...]
    form: Form
    pair: Pair
    same_contrast: bool
    images: bool


def check(
    path: Path,
    datasets: Sequence[Path],
    *,
    which: Which = "auto",
    images: bool = True,
    workers: int | None = None,
    max_mb: float | None = None,
) -> Checked:
    """All faults of a submission.

    Args:
        path: the zip, or the folder of its files.
        datasets: dataset JSON files or folders of tasks; of the tasks there, those that the submission can hold.
        which: the pairs that it has to hold.
        images: whether the fields are compared with the images.
        workers: processes; by number and size of the cases if not given.
        max_mb: largest zip that is accepted.

    Raises:
        DataError: the data cannot be used. What is wrong with the submission never raises.
    """
    notes: list[str] = []
    tasks = [task for dataset in datasets for task in find_submitted(dataset, which)]
    try:
        archive = Archive(path)
    except DataError as error:
        if not path.exists():
            raise
        checked = Checked("")
        text = str(error).removeprefix(f"{path}: ")
        checked.fault(path.name, "corrupt", text, "pack the files again, and compare the sizes after a transfer")
        return checked
    profile = profile_of(archive, tasks)
    tasks = entered_tasks(archive, profile, tasks)
    checked = Checked(profile, sum(len(t.pairs) for t in tasks), notes=notes)
    matches = match(archive, profile, {task.name: task.fields() for task in tasks}, checked)
    by_name = {task.name: task for task in tasks}
    jobs = []
    for entry in matches:
        task = by_name[entry.task]
        pair = task.pairs[task.fields().index(entry.field)]
        form = Form(profile, task.name, task.shape)
        jobs.append(_Job(path, tuple(entry.names), form, pair, _same_contrast(task, pair), images))
    voxels = sum(int(np.prod(job.form.shape)) for job in jobs)
    still = 0
    for result in spread(_checked_field, jobs, workers, voxels):
        checked.faults += result.faults
        checked.notes += result.notes
        still += result.expected
    if jobs and still == len(jobs):
        checked.notes.append("no field moves anything: all are zero")
    elif still:
        checked.notes.append(f"{still} of {len(jobs)} fields are zero")
    if profile == "learn2reg-2020":
        _check_other_tasks(archive, tasks, checked)
    size = path.stat().st_size / 1e6 if path.is_file() else 0.0
    if max_mb is not None and size > max_mb:
        fix = "write float16 npz (profile learn2reg-npz), or compress the files"
        checked.fault(path.name, "oversize", f"{size:.0f} MB, expected at most {max_mb:.0f}", fix)
    return checked


def profile_of(archive: Archive, tasks: Sequence[Submitted]) -> str:
    """The form of a submission, from the names of its files."""
    names = archive.names
    if any(name.lower().endswith(".nii.gz") for name in names):
        return "learn2reg"
    in_folders = any(re.match(r"task_\d+/", name, re.IGNORECASE) for name in names)
    if not in_folders and not (tasks and all(task.layout == "2020" for task in tasks)):
        return "learn2reg-npz" if any(name.lower().endswith(".npz") for name in names) else "learn2reg"
    of_2020 = any(task.name in NUMBERS["learn2reg-2020"] for task in tasks)
    return "learn2reg-2020" if of_2020 else "learn2reg-2021"


def entered_tasks(archive: Archive, profile: str, tasks: Sequence[Submitted]) -> list[Submitted]:
    """The tasks that the submission is of.

    Raises:
        DataError: several where one is expected, or none of that edition.
    """
    if numbered(profile):
        known = [task for task in tasks if task.name in NUMBERS[profile]]
        names = [task.name for task in known]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise DataError(f"{double[0]} was given {names.count(double[0])} times; give one --dataset for each task")
        if not known:
            given = ", ".join(task.name for task in tasks)
            raise DataError(f"{archive.path}: taken for {profile}, of which {given} is no task")
        return known
    if len(tasks) > 1:
        listed = ", ".join(f"{task.name} ({task.source})" for task in tasks)
        raise DataError(f"{archive.path}: a submission of one task, but several were given by --dataset: {listed}")
    return list(tasks)


def _same_contrast(task: Submitted, pair: Pair) -> bool:
    names = task.task.preset.modality
    only = next(iter(names.values()), "") if len(names) == 1 else None
    fixed, moving = (only if only is not None else names.get(scan.modality, "") for scan in pair)
    return pair[0].modality == pair[1].modality or (bool(fixed) and fixed == moving)


def _checked_field(job: _Job) -> Checked:
    """The faults of one field; `expected` of the result counts it if it is zero."""
    result = Checked(job.form.profile)
    archive = Archive(job.archive)
    first = None
    for place, name in enumerate(job.names):

        def say(kind: str, message: str, fix: str, name: str = name) -> None:
            result.fault(name, kind, message, fix)

        size = archive.size(name)
        try:
            found = archive.load(name)
            size = max(size, found.array.nbytes)
        except DataError as error:
            say("corrupt", str(error).removeprefix(f"{name}: "), "write the file again")
            found = None
        if size > job.form.most_bytes:
            limit = f"{job.form.most_bytes / 1e6:.1f} MB"
            message = f"{size / 1e6:.1f} MB unpacked, more than a field of this task can have ({limit})"
            say("oversize", message, "write one field of the expected shape and type, and nothing else")
        if found is None:
            continue
        fields = check_array(found, job.form, say, functools.partial(_note, result, name))
        if place and first is not None and fields is not None and not np.array_equal(first, fields):
            say("differ", f"is not the same field as {job.names[0]}", "write one field under both names")
        if fields is not None and first is None:
            first = fields
    if first is not None and job.images:
        _compare(first, job, result)
    return result


def _note(result: Checked, name: str, text: str) -> None:
    result.notes.append(f"{name}: {text}")


def _compare(fields: np.ndarray, job: _Job, result: Checked) -> None:
    pair = load_case(job.pair, masked=False)
    assert pair.fixed_spacing_mm is not None
    verdict = judge(
        pair.fixed[0, 0].numpy(),
        pair.moving[0, 0].numpy(),
        fields,
        pair.fixed_spacing_mm[0].double().numpy(),
        same_contrast=job.same_contrast,
    )
    if verdict.kind == "still":
        result.expected = 1
        return
    numbers = f"mismatch {verdict.before:.3f} unwarped, {verdict.after:.3f} warped"
    if verdict.kind:
        message, fix = WORSE if verdict.kind == "worse" else KINDS[verdict.kind]
        other = "" if verdict.other is None else f", {verdict.other:.3f} if read so"
        result.fault(job.names[0], verdict.kind, f"{message} ({numbers}{other})", fix)
    elif verdict.doubt:
        result.notes.append(f"{job.names[0]}: {KINDS[verdict.doubt][0]}, or the registration is weak ({numbers})")


def _check_other_tasks(archive: Archive, tasks: Sequence[Submitted], checked: Checked) -> None:
    """The tasks of 2020 that were not entered: they have to be there, in their form."""
    own = {task.name for task in tasks}
    for name, preset in PRESETS.items():
        if not preset.task_2020 or name in own:
            continue
        folder = f"task_{number_of('learn2reg-2020', name):02d}"
        files = [n for n in archive.names if re.fullmatch(rf"{folder}/disp_\d{{4}}_\d{{4}}\.npz", n)]
        if not files:
            fix = "add zero fields for it, as `reg-bench submit --profile learn2reg-2020` does"
            checked.fault(f"{folder}/", "missing", f"no field of {name}; all four tasks have to be there", fix)
        assert preset.shape is not None
        form = Form("learn2reg-2020", name, preset.shape)
        for file in files:
            _check_stranger(archive, file, form, checked)


def _check_stranger(archive: Archive, name: str, form: Form, checked: Checked) -> None:
    try:
        found = archive.load(name)
    except DataError as error:
        checked.fault(name, "corrupt", str(error).removeprefix(f"{name}: "), "write the file again")
        return
    faults = Checked("")
    check_array(found, form, lambda *fault: faults.fault(name, *fault), lambda text: None)
    # The data of a task that is not at hand may have another size than the challenge's.
    ignored = {"shape", "resolution", "axes"} if not np.any(found.array) and found.array.ndim == 4 else set()
    checked.faults += [fault for fault in faults.faults if fault.kind not in ignored]


def text(checked: Checked) -> str:
    """The faults as lines, alike ones together."""
    groups: dict[tuple[str, str], list[str]] = {}
    shown: dict[tuple[str, str], str] = {}
    for fault in checked.faults:
        key = (fault.kind, fault.fix)
        groups.setdefault(key, []).append(fault.file)
        shown.setdefault(key, str(fault))
    lines = [f"note: {note}" for note in dict.fromkeys(checked.notes)]
    for key, files in groups.items():
        if len(files) == 1:
            lines.append(f"{key[0]}: {shown[key]}")
            continue
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        lines.append(f"{key[0]}: {shown[key]} ({len(files)} files: {', '.join(files[:_SHOWN])}{more})")
    head = f"taken for {checked.profile}, {checked.expected} fields expected" if checked.profile else "not readable"
    count = len(checked.faults)
    return "\n".join([head, *lines, f"{count} fault{'s' * (count != 1)}" if count else "no fault"])


def write(checked: Checked, path: Path) -> None:
    """The faults as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(checked.as_dict(), indent=1) + "\n", encoding="utf-8")
