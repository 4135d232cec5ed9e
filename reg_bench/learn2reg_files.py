"""The layout of Learn2Reg since 2022: what a dataset JSON names, found on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from reg_bench.learn2reg_json import Entry, ImagePair, TaskJson
from reg_bench.learn2reg_presets import Preset
from reg_bench.learn2reg_task import Pair, Scan, TaskFiles, find_path, parse_name, point_key
from reg_bench.survey import Survey

_FOLDER = re.compile(r"images(?P<part>Tr|Ts)?", re.IGNORECASE)


def task_of_json(content: TaskJson, preset: Preset | None, survey: Survey) -> TaskFiles:
    """All files of the task; everything that is missing or named twice is a fault."""
    return _Finder(content, survey).find(merged(content, preset, survey))


def merged(content: TaskJson, preset: Preset | None, survey: Survey) -> Preset:
    """What is known of the task: the JSON where it says something, else the preset."""
    known = preset or Preset(content.name, masked=True)
    told: dict[str, tuple[Any, str]] = {
        "pairings": (content.pairings, "pairings"),
        "fixed": (content.fixed, "registration_direction.fixed"),
        "moving": (content.moving, "registration_direction.moving"),
        "labels": (dict(content.labels) or None, "labels"),
        "shape": (content.shapes.get(0), "tensorImageShape"),
    }
    for attribute, (value, key) in told.items():
        if value is None:
            continue
        before = getattr(known, attribute)
        # Other names for the same labels are no disagreement.
        same = set(value) == set(before) if isinstance(value, dict) else value == before
        if preset is not None and not same:
            shown = "none" if before in (None, {}) else before
            survey.note(content.path, f"{key} is {value}, {known.name} has {shown}; the file is right")
        changes: dict[str, Any] = {attribute: value}
        known = replace(known, **changes)
    return replace(known, modality={**known.modality, **content.modality})


class _Finder:
    def __init__(self, content: TaskJson, survey: Survey) -> None:
        self.content, self.survey = content, survey
        self.folder = content.path.parent
        images = [entry.image for entry in (*content.training, *content.test)]
        self.paths = {image: find_path(self.folder, image) for image in images}
        self.point_folders = [
            (key, path.name)
            for path in sorted(self.folder.iterdir())
            if path.is_dir() and (key := point_key(path.name[:-2]))
        ]

    def find(self, preset: Preset) -> TaskFiles:
        task = TaskFiles(preset)
        task.shapes = self._shapes()
        task.scans = self._scans(self.content.training, "training")
        if not self.content.training:
            self.survey.fault(self.content.path, "'training' is empty, expected the list of training images")
        present = any(self.paths[entry.image] is not None for entry in self.content.test)
        if present:
            task.test_scans = self._scans(self.content.test, "test")
        elif self.content.test:
            self.survey.note(self.content.path, f"none of the {len(self.content.test)} test images is here")
        known = {scan.image: scan for scan in (*task.scans.values(), *task.test_scans.values())}
        task.training_pairs = self._pairs(self.content.training_pairs, "training_paired_images", known)
        task.val_pairs = self._pairs(self.content.registration_val, "registration_val", known)
        task.test_pairs = self._pairs(self.content.registration_test, "registration_test", known)
        self._pairs(self.content.test_pairs, "test_paired_images", known)
        return task

    def _shapes(self) -> dict[int, tuple[int, ...]]:
        """One shape for every modality; a file that tells only that of modality 0 means all."""
        shapes = self.content.shapes
        if set(shapes) != {0}:
            return dict(shapes)
        parsed = [parse_name(PurePosixPath(image).name) for image in self.paths]
        return {found[1]: shapes[0] for found in parsed if found}

    def _scans(self, entries: Sequence[Entry], where: str) -> dict[str, Scan]:
        found: dict[str, Scan] = {}
        private: list[str] = []
        for entry in entries:
            name = PurePosixPath(entry.image).name
            parsed = parse_name(name)
            if parsed is None:
                self.survey.fault(
                    self.content.path,
                    f"{where} names {entry.image!r}, expected a name ending in _SSSS_mmmm.nii.gz (subject, modality)",
                )
                continue
            subject, modality = parsed
            scan_id = f"{subject}_{modality:04d}"
            if scan_id in found:
                self.survey.fault(self.content.path, f"{where} lists {entry.image!r} twice, or another of its number")
                continue
            image = self._file(entry.image, "image")
            files = self._files(entry, private if where == "test" else None)
            found[scan_id] = Scan(scan_id, subject, modality, image, files, test=where == "test")
        if private:
            self.survey.note(
                self.folder / private[0],
                f"not here ({len(private)} annotations of test images), as they are not public",
            )
        # Scans whose image is missing have been told of; they make no pairs.
        return {key: scan for key, scan in found.items() if scan.image.is_file()}

    def _file(self, relative: str, kind: str) -> Path:
        path = find_path(self.folder, relative)
        if path is None or not path.is_file():
            self.survey.fault(self.folder / relative, f"no such file; {self.content.path.name} names it as {kind}")
            return self.folder / relative
        return path

    def _files(self, entry: Entry, private: list[str] | None) -> dict[str, Path]:
        """Kind to file of what the entry names, and of what lies beside it without being named."""
        found: dict[str, Path] = {}
        for kind, relative in entry.files.items():
            key = point_key(kind) or kind
            path = self._points_file(relative) if point_key(kind) else find_path(self.folder, relative)
            if path is not None and path.is_file():
                found[key] = path
            elif private is not None:
                private.append(relative)
            else:
                self.survey.fault(self.folder / relative, f"no such file; {self.content.path.name} names it as {kind}")
        for key, folder in (("label", "labels"), ("mask", "masks")):
            beside = find_path(self.folder, _FOLDER.sub(rf"{folder}\g<part>", entry.image, count=1))
            if beside is not None and beside.is_file():
                found.setdefault(key, beside)
        part = _FOLDER.search(entry.image)
        for key, name in self.point_folders:
            if part and part["part"] and name[-2:].lower() == part["part"].lower():
                beside = self._points_file(f"{name}/{PurePosixPath(entry.image).name}")
                if beside is not None:
                    found.setdefault(key, beside)
        return found

    def _points_file(self, relative: str) -> Path | None:
        """Points lie in `.csv`, though the JSON names them with `.nii.gz`."""
        stem = re.sub(r"\.nii(\.gz)?$", "", relative, flags=re.IGNORECASE)
        for name in (relative if relative.lower().endswith(".csv") else f"{stem}.csv", relative):
            path = find_path(self.folder, name)
            if path is not None and path.is_file():
                return path
        return None

    def _pairs(self, given: Sequence[ImagePair], where: str, known: dict[Path, Scan]) -> list[Pair]:
        found: list[Pair] = []
        seen: set[tuple[str, str]] = set()
        named, spelt = set(self.paths.values()), {PurePosixPath(image) for image in self.paths}
        for index, pair in enumerate(given):
            key = f"{where}[{index}]"
            paths = [find_path(self.folder, side) for side in (pair.fixed, pair.moving)]
            for side, path in zip((pair.fixed, pair.moving), paths, strict=True):
                if path not in named if path is not None else PurePosixPath(side) not in spelt:
                    # Images that the challenge keeps to itself need not be listed.
                    say = self.survey.note if path is None and "test" in where else self.survey.fault
                    say(self.content.path, f"{key} names {side!r}, which is neither among training nor among test")
            scans = [known.get(path) if path is not None else None for path in paths]
            if scans[0] is None or scans[1] is None:
                continue
            ids = (scans[0].id, scans[1].id)
            if ids[0] == ids[1]:
                self.survey.fault(self.content.path, f"{key} pairs {pair.fixed!r} with itself")
            elif ids in seen:
                self.survey.fault(self.content.path, f"{key} repeats the pair of {pair.fixed!r} and {pair.moving!r}")
            else:
                found.append((scans[0], scans[1]))
            seen.add(ids)
        return found
