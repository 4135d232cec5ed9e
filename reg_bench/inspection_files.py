"""The files of a dataset as `reg-bench data check` sees them: who shares them, what no case needs, checksums."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reg_bench.dicom_frames import read_dicom_frames
from reg_bench.errors import DataError, RegBenchError
from reg_bench.image_io import read_image
from reg_bench.image_series import read_4d
from reg_bench.splits import SPLITS
from reg_bench.survey import Content, Finding, Record, Survey, subjects_of

# Entries of a record that name intensities: what is learned from and tested on.
_IMAGES = ("fixed", "moving", "images", "video", "file")


def files_of(record: Record) -> list[str]:
    """Every file and folder that a record names, the lists in it and the record of a mixed case included."""
    found: list[str] = []
    for value in record.values():
        if isinstance(value, Mapping):
            found += files_of(value)
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and os.sep in text and os.path.isabs(text):
                found.append(text)
    return list(dict.fromkeys(found))


def split_faults(name: str, survey: Survey) -> Iterator[Finding]:
    """Identifiers that occur twice, people and images in two splits, and nothing to test on."""
    for split, records in survey.records.items():
        counted = Counter(str(r["case_id"]) for r in records)
        for case, number in counted.items():
            if number > 1:
                yield Finding(f"case {case}", f"the identifier occurs {number} times in split {split!r}")
    for subject, splits in sorted(_where(survey, subjects_of).items()):
        if len(splits) > 1:
            yield Finding("", f"{subject} is in the splits {' and '.join(s for s in SPLITS if s in splits)}; one only")
    yield from _shared_images(survey)
    if survey.faults:
        return
    if not any(survey.records.values()):
        yield Finding("", f"{name}: no case was found")
    elif not survey.records["test"]:
        yield Finding("", f"{name}: the split 'test' is empty, there is nothing to test on")


def _where(survey: Survey, of: Callable[[Record], Sequence[str]]) -> dict[str, set[str]]:
    """Everything that `of` finds in records, with the splits that it occurs in."""
    where: dict[str, set[str]] = {}
    for split, records in survey.records.items():
        for item in {i for r in records for i in of(r)}:
            where.setdefault(item, set()).add(split)
    return where


def _images(record: Record) -> list[str]:
    return [v for k in _IMAGES if isinstance(v := record.get(k), str) and os.path.isabs(v)]


def _shared_images(survey: Survey) -> Iterator[Finding]:
    """Images for training or validation and for test; one that stands in every case is an atlas."""
    where: dict[str, set[str]] = {}
    for path, splits in _where(survey, _images).items():
        where.setdefault(os.path.realpath(path), set()).update(splits)
    atlas: set[str] | None = None
    for record in (r for split in SPLITS for r in survey.records[split]):
        atlas = set(_images(record)) if atlas is None else atlas & set(_images(record))
    everywhere = {os.path.realpath(path) for path in atlas or ()}
    for path, splits in sorted(where.items()):
        if len(splits) > 1 and path not in everywhere:
            told = " and ".join(s for s in SPLITS if s in splits)
            yield Finding(survey.relative(path), f"this image is in the splits {told}; one only")


def unread(survey: Survey, named: set[str]) -> list[tuple[Path, Content]]:
    """The files of `Survey.contents` that no case opens; those over time in any case, which pairs do not need."""
    over_time = ("series", "picture")
    return [(p, c) for p, c in survey.contents.items() if c in over_time or os.path.abspath(p) not in named]


def content_fault(path: Path, content: Content) -> str | None:
    """What is wrong with a file of that content, or `None`."""
    try:
        if content == "series":
            frames: Any = np.moveaxis(read_4d(path)[0], -1, 0)
        elif content == "picture":
            if not path.is_file():
                return f"{path}: no such file"
            frames = read_dicom_frames([path])
        else:
            read_image(path, kind=content)
            return None
    except Exception as error:  # A damaged file makes its reader raise whatever the damage led to.
        return str(error) if isinstance(error, RegBenchError) else f"{path}: {type(error).__name__}: {error}"
    for number, frame in enumerate(frames):
        if frame.min() == frame.max():
            where = f"frame {number} (from 0) is constant" if len(frames) > 1 else "a constant image"
            return f"{path}: {where}, every voxel is {frame.flat[0]:g}"
    return None


def checksums(
    root: Path, leave_out: Path | None = None, fault: Callable[[Path, str], None] | None = None
) -> Iterator[tuple[str, str]]:
    """SHA-256 and relative name of every file below `root`, in order of name.

    Args:
        leave_out: a folder that is passed over, such as the one that the checksums are written to.
        fault: told of files that cannot be read, which are left out then.

    Raises:
        DataError: a file that cannot be read, without `fault`.
    """
    passed = None if leave_out is None else leave_out.resolve()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if (Path(folder) / f).resolve() != passed)
        for name in sorted(files):
            path = Path(folder) / name
            digest = _digest(path, fault)
            if digest is not None:
                yield digest, path.relative_to(root).as_posix()


def checksums_of(
    paths: Sequence[Path], beside: Path | None, fault: Callable[[Path, str], None] | None = None
) -> Iterator[tuple[str, str]]:
    """SHA-256 and name of each of `paths`, relative to the folder `beside` or full, in order; see `checksums`."""
    for name, path in sorted((str(p) if beside is None else os.path.relpath(p, beside), p) for p in paths):
        digest = _digest(path, fault)
        if digest is not None:
            yield digest, name


def _digest(path: Path, fault: Callable[[Path, str], None] | None) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if fault is None:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        fault(path, f"cannot be read ({error.strerror})")
        return None
