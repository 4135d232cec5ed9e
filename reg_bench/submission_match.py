"""Which file of a submission is which field: missing, extra and misspelt names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from reg_bench.submission_archive import Archive
from reg_bench.submission_fault import Checked
from reg_bench.submission_layout import FieldId, number_of, numbered, paths

_EXTENSIONS = (".npz", ".nii.gz")
_NUMBERS = re.compile(r"\d+")


@dataclass
class Match:
    """The files that are the field of a pair; the first is the one that the evaluation reads."""

    task: str
    field: FieldId
    names: list[str]


def match(archive: Archive, profile: str, tasks: dict[str, Sequence[FieldId]], checked: Checked) -> list[Match]:
    """The files of every field that is there, under a right name or a wrong one.

    Tells of files that are missing, misspelt, in a wrong folder, there twice, or not asked for.
    """
    if archive.top:
        checked.fault(
            archive.top,
            "folder",
            f"all files lie in the folder {archive.top.rstrip('/')} of the zip, expected at its top",
            "zip the files, not their folder",
        )
    for name in archive.twice:
        checked.fault(name, "twice", "stands in the zip twice", "write the zip anew")
    strangers = set(archive.names)
    found = []
    wanted = [(task, one) for task, fields in tasks.items() for one in fields]
    for task, one in wanted:
        names = [name for name in _accepted(profile, task, one) if name in strangers]
        strangers -= set(names)
        found.append(Match(task, one, names))
        _check_spelling(profile, one, names, checked)
    for entry in found:
        if not entry.names:
            _look_for(entry, profile, strangers, checked)
    for name in sorted(strangers - _other_tasks(profile, tasks, strangers)):
        checked.fault(name, "extra", "is no file of this submission", "remove it")
    return [entry for entry in found if entry.names]


def _accepted(profile: str, task: str, one: FieldId) -> list[str]:
    """All names under which an evaluation of this form takes the field, first the ones it reads first."""
    if numbered(profile):
        return list(paths(profile, task, one))
    return [name + extension for name in one.accepted for extension in _EXTENSIONS]


def _check_spelling(profile: str, one: FieldId, names: list[str], checked: Checked) -> None:
    if numbered(profile) or not names:
        return
    stems = [stem_of(name) for name in names]
    double = sorted({stem for stem in stems if stems.count(stem) > 1})
    for stem in double:
        checked.fault(
            f"{stem}.nii.gz",
            "twice",
            f"the field is there twice, as {stem}.npz too, and the evaluation reads only the .npz",
            "keep one of them",
        )
    for wanted in one.names:
        if wanted not in stems:
            checked.notes.append(
                f"{names[0]}: one of the organisers' two evaluation scripts wants the name {wanted} for it; "
                "a submission that both take holds the field under both names"
            )


def stem_of(name: str) -> str:
    """The file name without its ending."""
    last = PurePosixPath(name).name
    for extension in (".nii.gz", ".npz", ".nii", ".npy"):
        if last.lower().endswith(extension):
            return last[: -len(extension)]
    return last


def _look_for(entry: Match, profile: str, strangers: set[str], checked: Checked) -> None:
    """A field that is not there under a right name: perhaps it is under a wrong one."""
    right = paths(profile, entry.task, entry.field)[0]
    for name in sorted(strangers):
        message = _misspelt(name, right, entry.field)
        if message is None or not _same_task(name, entry.task, profile):
            continue
        strangers.discard(name)
        checked.fault(name, "name", f"{message}, expected {right}", f"rename it to {right}")
        if PurePosixPath(name).name.lower().endswith(_EXTENSIONS) and "exchanged" not in message:
            entry.names.append(name)
        return
    alternatives = [n for n in entry.field.accepted if not right.startswith(n)] if not numbered(profile) else []
    also = f" (or {alternatives[0]})" if alternatives else ""
    checked.fault(right, "missing", f"is missing{also}", "write the field of this pair, zero if there is none")


def _misspelt(name: str, right: str, one: FieldId) -> str | None:
    """How a name differs from the right one if it means the same pair."""
    stem = stem_of(name)
    numbers = [int(n) for n in _NUMBERS.findall(stem)]
    fixed, moving = (int(i.subject) for i in (one.fixed, one.moving))
    long = [fixed, one.fixed.modality, moving, one.moving.modality]
    if numbers in ([fixed, moving], long):
        if stem == stem_of(right) and PurePosixPath(name).parent == PurePosixPath(right).parent:
            return f"the ending is {PurePosixPath(name).name[len(stem) :] or 'missing'}"
        return "the name is not spelt as asked for"
    if numbers in ([moving, fixed], [*long[2:], *long[:2]]) and fixed != moving:
        return "fixed and moving seem exchanged"
    return None


def _same_task(name: str, task: str, profile: str) -> bool:
    """Files in the folder of another task are not of this one."""
    folder = PurePosixPath(name).parts[0] if "/" in name else ""
    if not numbered(profile) or not re.fullmatch(r"task_\d+", folder, re.IGNORECASE):
        return True
    return int(folder.split("_")[1]) == number_of(profile, task)


def _other_tasks(profile: str, tasks: dict[str, Sequence[FieldId]], names: set[str]) -> set[str]:
    """Files of the other tasks of 2020, whose pairs are not known here: they are looked at for their form alone."""
    if profile != "learn2reg-2020":
        return set()
    own = {number_of(profile, task) for task in tasks}
    pattern = re.compile(r"task_0([1-4])/disp_\d{4}_\d{4}\.npz")
    return {name for name in names if (m := pattern.fullmatch(name)) and int(m[1]) not in own}
