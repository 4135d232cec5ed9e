"""Writes the files of a Learn2Reg submission: a field under every name that it needs, zero fields, the zip."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reg_bench.displacement_io import write_learn2reg, write_learn2reg_2020
from reg_bench.learn2reg_presets import PRESETS
from reg_bench.submission_layout import FieldId, ImageId, is_half, number_of, numbered, paths, stored_shape
from reg_bench.submission_pairs import VALIDATION_2020, Submitted
from reg_bench.types import DisplacementField

# Where the files lie below the folder of a submission; the zip holds what is in there.
FILES = "submission"
# Members of a zip carry a date; a fixed one makes equal submissions equal zips.
_DATE = (2020, 1, 1, 0, 0, 0)


class FieldFiles:
    """The files of a submission while they come into being, used by every process of a run.

    Args:
        folder: that holds what the zip is to hold.
        profile: see `reg_bench.submission_layout`.
        tasks: name of each task of the suite to its name in the challenge.
    """

    def __init__(self, folder: str | Path, profile: str, tasks: Mapping[str, str]) -> None:
        self.folder, self.profile, self.tasks = Path(folder), profile, dict(tasks)

    def names(self, task: str, case: str) -> tuple[str, ...]:
        """Where the field of a case lies, relative to `folder`."""
        return paths(self.profile, self.tasks[task], FieldId.parse(case))

    def has(self, task: str, case: str) -> bool:
        """Whether the field is there under all its names."""
        return all((self.folder / name).is_file() for name in self.names(task, case))

    def write(self, task: str, case: str, field: DisplacementField) -> None:
        """Writes the field; a file appears whole or not at all.

        Raises:
            DataError: NaN or infinite values, or values beyond float16 where that is the form.
        """
        first, *others = (self.folder / name for name in self.names(task, case))
        first.parent.mkdir(parents=True, exist_ok=True)
        unfinished = first.with_name(f".{os.getpid()}-{first.name}")
        try:
            if numbered(self.profile):
                write_learn2reg_2020(unfinished, field, half=is_half(self.profile, self.tasks[task]))
            else:
                write_learn2reg(unfinished, field)
            for other in others:
                link = other.with_name(f".{os.getpid()}-{other.name}")
                link.write_bytes(unfinished.read_bytes())
                os.replace(link, other)
            os.replace(unfinished, first)
        finally:
            unfinished.unlink(missing_ok=True)


def zero_fields(folder: Path, profile: str, entered: Sequence[str], known: Sequence[Submitted]) -> dict[str, str]:
    """Writes zero fields for the tasks of a numbered profile that were not entered.

    Args:
        entered: names of the tasks that hold fields of a method.
        known: tasks whose pairs and shape are at hand; others get the validation pairs that the organisers list today.

    Returns:
        Name of each such task to where its pairs come from. The files of 2021 without data at hand are left out: their
        pairs are not known.
    """
    at_hand = {submitted.name: submitted for submitted in known}
    done = {}
    for name in () if profile != "learn2reg-2020" else PRESETS:
        if not PRESETS[name].task_2020 or name in entered:
            continue
        if name in at_hand:
            fields, shape, source = at_hand[name].fields(), at_hand[name].shape, "the data"
        else:
            own_shape = PRESETS[name].shape
            assert own_shape is not None
            images = [[ImageId(f"{n:04d}", 0) for n in pair] for pair in VALIDATION_2020[name]]
            fields, shape, source = [FieldId(*pair) for pair in images], own_shape, "the organisers' list of today"
        content = _zeros(stored_shape(profile, name, shape))
        for field in fields:
            path = folder / f"task_{number_of(profile, name):02d}" / f"{field.short_name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
        done[name] = source
    return done


def _zeros(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, arr_0=np.zeros(shape, np.float16))
    return buffer.getvalue()


def expected_files(profile: str, tasks: Mapping[str, Sequence[FieldId]]) -> list[str]:
    """All paths in the zip of the tasks that were entered, in order."""
    return sorted({path for task, fields in tasks.items() for field in fields for path in paths(profile, task, field)})


def remove_strangers(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Removes what an earlier run with another suite or profile left in `folder`; returns its names."""
    strangers = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() not in set(wanted)]
    for path in strangers:
        path.unlink()
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    return sorted(path.relative_to(folder).as_posix() for path in strangers)


def make_zip(folder: Path, names: Sequence[str], path: Path) -> None:
    """Packs the files, which are compressed already; the zip appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member, (folder / name).open("rb") as file:
                while piece := file.read(1 << 22):
                    member.write(piece)
    os.replace(unfinished, path)


def from_settings(settings: Mapping[str, Any] | None) -> FieldFiles | None:
    """The files that a run is to write, from its settings; `None` where it writes none."""
    return None if settings is None else FieldFiles(**settings)
