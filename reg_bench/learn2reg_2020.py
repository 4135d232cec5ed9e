"""The layout of Learn2Reg 2020: tasks 2 (lung CT), 3 (abdominal CT) and 4 (hippocampus MR), found on disk.

    task_02/training/{scans,lungMasks}/case_NNN_{exp,insp}.nii.gz, lms/case_NNN.txt
    task_03/Training/{img,label}/{img,label}NNNN.nii.gz
    task_04/Training/{img,label}/hippocampus_NNN.nii.gz

Names of folders may be in capital or small letters. `pairs_val.csv` (columns `fixed` and `moving`, numbers of cases)
is looked for in the folder of the task, then in its training folder.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from reg_bench.learn2reg_presets import PRESETS, Preset
from reg_bench.learn2reg_task import BOTH, Pair, Scan, TaskFiles, find_path
from reg_bench.survey import Survey

PAIRS = "pairs_val.csv"

_IMAGES = {2: "scans", 3: "img", 4: "img"}
_NAMES = {
    2: re.compile(r"case_(?P<number>\d+)_(?P<phase>exp|insp)\.nii(\.gz)?$", re.IGNORECASE),
    3: re.compile(r"(?P<kind>img|label)(?P<number>\d+)\.nii(\.gz)?$", re.IGNORECASE),
    4: re.compile(r"hippocampus_(?P<number>\d+)\.nii(\.gz)?$", re.IGNORECASE),
}
_EXPECTED = {2: "case_NNN_exp.nii.gz or case_NNN_insp.nii.gz", 3: "imgNNNN.nii.gz", 4: "hippocampus_NNN.nii.gz"}
_TASK = re.compile(r"task_?0?[234]$", re.IGNORECASE)
_LANDMARKS = re.compile(r"case_(?P<number>\d+)\.txt$", re.IGNORECASE)


def find_2020(root: Path) -> dict[str, tuple[Path, Path]]:
    """Name to folder and training folder of every task of 2020 here or up to two folders below."""
    below = [p for depth in ("*", "*/*") for p in root.glob(depth) if _TASK.match(p.name) and p.is_dir()]
    folders = [root, *sorted(below)]
    found: dict[str, tuple[Path, Path]] = {}
    for folder in folders:
        for training in (find_path(folder, "training"), folder):
            number = None if training is None else _number_of(training)
            if training is not None and number is not None:
                found.setdefault(preset_of(number).name, (folder, training))
                break
    return found


def preset_of(number: int) -> Preset:
    """The preset of a task of 2020."""
    return next(preset for preset in PRESETS.values() if preset.task_2020 == number)


def _number_of(training: Path) -> int | None:
    """Which task lies in a training folder, by the names of its images."""
    for number, folder in _IMAGES.items():
        images = find_path(training, folder)
        if images is not None and any(_NAMES[number].match(p.name) for p in images.iterdir()):
            return number
    return None


def task_of_2020(name: str, folder: Path, training: Path, survey: Survey) -> TaskFiles:
    """All files of the task; everything that is missing or does not fit is a fault."""
    preset = PRESETS[name]
    task = TaskFiles(preset)
    task.scans = _lung_scans(training, survey) if preset.task_2020 == 2 else _label_scans(preset, training, survey)
    table = next((p for place in (folder, training) if (p := find_path(place, PAIRS)) is not None), None)
    if table is not None:
        task.val_pairs = _read_pairs(table, task, survey)
    else:
        survey.note("", f"no {PAIRS}: validation and test subjects are drawn with the seed")
    if preset.task_2020 == 2:
        _check_landmarks(task, training, survey)
    return task


def _check_landmarks(task: TaskFiles, training: Path, survey: Survey) -> None:
    """Who has none: a fault where most people have some or the pair is one to validate on, else a note."""
    exhale = [scan for scan in task.scans.values() if scan.modality == 0]
    without = [scan for scan in exhale if BOTH not in scan.files]
    scored = {pair[0].id for pair in task.val_pairs}
    for scan in without if len(without) < len(exhale) else ():
        usual = 2 * len(without) < len(exhale)
        name = re.sub(r"_exp\.nii(\.gz)?$", ".txt", scan.image.name, flags=re.IGNORECASE)
        say = survey.fault if usual or scan.id in scored else survey.note
        say(training / "lms" / name, f"no such file, expected the landmarks of {scan.image}")


def _files(folder: Path | None, pattern: re.Pattern[str], expected: str, survey: Survey) -> dict[tuple[str, str], Path]:
    """Number (and phase or kind) to file; a name that does not fit is a note."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()) if folder is not None else []:
        match = pattern.match(path.name)
        if match is None:
            if not path.name.startswith("."):
                survey.note(path, f"expected {expected}; left alone")
            continue
        groups = match.groupdict()
        key = (f"{int(groups['number']):04d}", str(groups.get("phase") or "").lower())
        if key in found:
            survey.fault(path, f"has the number of {found[key]}")
        found.setdefault(key, path)
    return found


def _lung_scans(training: Path, survey: Survey) -> dict[str, Scan]:
    images = _files(find_path(training, "scans"), _NAMES[2], _EXPECTED[2], survey)
    masks = _files(find_path(training, "lungMasks"), _NAMES[2], _EXPECTED[2], survey)
    landmarks = _files(find_path(training, "lms"), _LANDMARKS, "case_NNN.txt", survey)
    found: dict[str, Scan] = {}
    for (subject, phase), image in images.items():
        modality = 0 if phase == "exp" else 1
        files: dict[str, Path] = {}
        if (subject, phase) in masks:
            files["mask"] = masks[subject, phase]
        else:
            survey.fault(training / "lungMasks" / image.name, f"no such file, expected the lung mask of {image}")
        if modality == 0 and (subject, "") in landmarks:
            files[BOTH] = landmarks[subject, ""]
        other = "insp" if phase == "exp" else "exp"
        if (subject, other) not in images:
            survey.fault(
                image.with_name(re.sub(phase, other, image.name, flags=re.IGNORECASE)),
                f"no such file, expected the other phase of {image}",
            )
        scan_id = f"{subject}_{modality:04d}"
        found[scan_id] = Scan(scan_id, subject, modality, image, files)
    for (subject, _), path in landmarks.items():
        if (subject, "exp") not in images:
            survey.fault(path, "landmarks of a case that is not there")
    return found


def _label_scans(preset: Preset, training: Path, survey: Survey) -> dict[str, Scan]:
    number = preset.task_2020
    images = _files(find_path(training, "img"), _NAMES[number], _EXPECTED[number], survey)
    labels = _files(find_path(training, "label"), _NAMES[number], _EXPECTED[number].replace("img", "label"), survey)
    found: dict[str, Scan] = {}
    for (subject, kind), image in images.items():
        files = {}
        if (subject, kind) in labels:
            files["label"] = labels[subject, kind]
        else:
            name = image.name.replace("img", "label")
            survey.fault(training / "label" / name, f"no such file, expected the labels of {image}")
        scan_id = f"{subject}_0000"
        found[scan_id] = Scan(scan_id, subject, 0, image, files)
    for (subject, kind), path in labels.items():
        if (subject, kind) not in images:
            name = path.name.replace("label", "img")
            survey.fault(path, f"labels of an image that is not there, expected {name}")
    return found


def _read_pairs(path: Path, task: TaskFiles, survey: Survey) -> list[Pair]:
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        survey.fault(path, f"cannot be read: {error}")
        return []
    absent = [c for c in ("fixed", "moving") if c not in (reader.fieldnames or [])]
    if absent:
        survey.fault(path, f"no column {absent[0]!r}; found {', '.join(reader.fieldnames or []) or 'none'}")
        return []
    found: list[Pair] = []
    lung = task.preset.task_2020 == 2
    for line, row in enumerate(rows, start=2):
        scans = []
        for role, modality in (("fixed", 0), ("moving", 1 if lung else 0)):
            text = (row[role] or "").strip()
            scan = task.scans.get(f"{int(text):04d}_{modality:04d}") if text.isdecimal() else None
            if scan is None:
                survey.fault(path, f"line {line}: {role} {text!r} is not the number of a case here")
            else:
                scans.append(scan)
        if len(scans) < 2:
            continue
        pair = (scans[0], scans[1])
        if lung and pair[0].subject != pair[1].subject:
            survey.fault(path, f"line {line}: two cases, expected one: exhale and inhale belong to one person")
        elif pair[0].id == pair[1].id:
            survey.fault(path, f"line {line}: a case is paired with itself")
        elif pair in found:
            survey.fault(path, f"line {line}: the pair {pair[0].subject}, {pair[1].subject} occurs twice")
        else:
            found.append(pair)
    return found
