"""Short-axis cine MR of the Sunnybrook Cardiac Data in its original form: DICOM with contours as text."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.contours import enclosed_area, fill_polygon
from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.dicom_frames import DicomHeader, read_dicom_frames, read_dicom_header
from reg_bench.errors import ConfigError, DataError
from reg_bench.preprocessing import cropped, geometry, plane, preprocess, scale_intensity
from reg_bench.splits import Split
from reg_bench.survey import Survey
from reg_bench.types import ImageSequence, RegistrationPair

_PATIENT = re.compile(r"SC-(HF-I|HF-NI|HYP|N)-(\d{1,2})", re.IGNORECASE)
_CONTOUR = re.compile(r"IM-\d+-(\d+)-([io])contour-manual\.txt", re.IGNORECASE)
_IMAGE = re.compile(r"IM-(\d+)-(\d+)\.dcm", re.IGNORECASE)
_TABLE = "scd_patientdata.csv"
# What macOS puts into archives: a second tree of the same names.
_RESOURCES = "__MACOSX"
_CAVITY, _WALL = 1, 2
# Times the usual step between the points of a contour by which its ends may lie apart without a note.
_OPEN = 5
# Frames of a heart beat: the same in all patients.
_FRAMES = 20
# The three sets of the 2009 challenge, by group and number.
_CHALLENGE: Mapping[Split, Mapping[str, tuple[int, ...]]] = {
    "train": {"HF-I": (1, 2, 4, 40), "HF-NI": (3, 4, 34, 36), "HYP": (1, 3, 38, 40), "N": (2, 3, 40)},
    "val": {"HF-I": (5, 6, 7, 8), "HF-NI": (7, 11, 31, 33), "HYP": (6, 7, 8, 37), "N": (5, 6, 7)},
    "test": {"HF-I": (9, 10, 11, 12), "HF-NI": (12, 13, 14, 15), "HYP": (9, 10, 11, 12), "N": (9, 10, 11)},
}
_FOLDERS: Mapping[str, Split] = {"training": "train", "validation": "val", "online": "test"}


@dataclass
class _Slice:
    """The frames at one place in the patient, by number, and the contours among them."""

    frames: dict[int, Path] = field(default_factory=dict)
    inner: dict[int, Path] = field(default_factory=dict)
    outer: dict[int, Path] = field(default_factory=dict)


class SunnybrookDicom(RegistrationDataModule):
    """Cardiac cine MR of 45 patients as distributed (DICOM, contours as text): end-diastole to end-systole per slice.

    Contours are found by their folder `<patient>/contours-manual/IRCCI-expert`, wherever that lies below the root,
    and images by folders of the patient's name with or without a zero (`SC-HF-I-1`, `SC-HF-I-01`) or, in the release
    of the Cardiac Atlas Project, by its number in `scd_patientdata.csv`. Frame NNNN of a contour is file NNNN of
    the short-axis series, whatever the number of that series: the series that holds all contoured frames, the one
    called CINESAX if there are several.

    Frames at the same place in the patient (ImagePositionPatient; 20 consecutive numbers where the headers do not
    tell) are a slice. Among its frames with an inner contour the one with the largest cavity is end-diastole (moving)
    and the one with the smallest end-systole (fixed); slices with less than two such frames are left out and counted.
    Labels: 1 cavity, inside the inner contour; 2 wall, between inner and outer, where both frames have an outer one.
    A pixel belongs to a contour if its centre does; the centre of the first pixel is at (0, 0). Papillary contours
    (p1, p2, ...) are not used: those muscles belong to the cavity.

    A case is called `<patient>/slice<z>/<frame>` with slices and frames counted from 0. Both images of a pair are
    scaled to 0..1 by the 99.5th percentile of the two together, sequences by that over time. Axes are x, y; spacing
    from PixelSpacing. `sequence` gives all frames of a slice, with end-diastole as reference, where its 20 are there.

    Args:
        root: folder with images and contours, in any of the forms below.
        images, contours: folders below the root to look for either; the whole root if not given.
        size: the central part of the pictures that is kept, pixels along x and y; whole pictures if not given.
        seconds_per_frame: of sequences. From the headers if not given, else a heart beat of one second.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: a size or time that is not positive.
    """

    name: ClassVar[str] = "sunnybrook-dicom"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "CC0-1.0"
    folder: ClassVar[str] = "sunnybrook"
    source: ClassVar[str] = (
        "https://www.cardiacatlas.org/sunnybrook-cardiac-data (SCD_IMAGES_01..05, SCD_ManualContours, "
        "scd_patientdata.csv), or the archives of the 2009 challenge; cite P. Radau et al., Evaluation Framework for "
        "Algorithms Segmenting Short Axis Cardiac MRI, The MIDAS Journal, 2009, hdl.handle.net/10380/3070"
    )
    layout: ClassVar[str] = """
        release of the Cardiac Atlas Project:
          scd_patientdata.csv                                    PatientID,OriginalID,...: SCD0000101,SC-HF-I-1
          [SCD_IMAGES_01/]SCD0000101/CINESAX_300/IM-0003-NNNN.dcm
          SCD_ManualContours/SC-HF-I-01/contours-manual/IRCCI-expert/IM-0001-NNNN-icontour-manual.txt  x y per line
          SCD_ManualContours/SC-HF-I-01/contours-manual/IRCCI-expert/IM-0001-NNNN-ocontour-manual.txt
        or that of the challenge (Part1 online, Part2 validation, Part3 training):
          [Sunnybrook Cardiac MR Database DICOMPart3/]TrainingDataDICOM/SC-HF-I-01/DICOM/IM-0001-NNNN.dcm
          or challenge_training/SC-HF-I-1/IM-0004-NNNN.dcm
          [Sunnybrook Cardiac MR Database ContoursPart3/]TrainingDataContours/SC-HF-I-01/contours-manual/...
    """
    splits: ClassVar[str] = (
        "the sets of the 2009 challenge: train its training, val its validation, test its online patients, 15 each, "
        "by the names of the patients; a patient who is none of the 45 belongs where the name of a folder above says "
        "training, validation or online, else to test"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        images: str | None = None,
        contours: str | None = None,
        size: tuple[int, int] | None = None,
        seconds_per_frame: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.images, self.contours = root, images, contours
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.seconds_per_frame = seconds_per_frame
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"{self.name}: size must be positive, got {self.size}")
        if seconds_per_frame is not None and not seconds_per_frame > 0:
            raise ConfigError(f"{self.name}: seconds_per_frame must be positive, got {seconds_per_frame}")

    def look_through(self) -> Survey:
        root = self.root_folder()
        survey = Survey(root)
        drawn = _contour_folders(survey, root / (self.contours or ""))
        series = _image_series(survey, root, root / (self.images or ""))
        for patient, folder in sorted(drawn.items()):
            marks = _contours(survey, folder)
            if not marks["i"]:
                survey.fault(folder, "no file IM-0001-NNNN-icontour-manual.txt")
                continue
            chosen = _choose(survey, folder, patient, series.get(patient, {}), sorted(marks["i"]))
            if chosen:
                slices = _slices(survey, chosen, marks)
                survey.records[_split_of(patient, folder.relative_to(root))] += self._cases(survey, patient, slices)
        survey.count("patients", len(drawn))
        for patient in sorted(series.keys() - drawn.keys()):
            survey.note(next(iter(series[patient])).parent, f"{patient}: images without contours are not used")
        if not drawn:
            pairs = next(root.glob("SC-*.npz"), None)
            hint = (
                "" if pairs is None else f"; {pairs.name} is of the paired arrays, which the dataset sunnybrook reads"
            )
            survey.fault("", f"no folder <patient>/contours-manual/IRCCI-expert below it{hint}")
        return survey

    def _cases(self, survey: Survey, patient: str, slices: Sequence[_Slice]) -> list[Record]:
        cases: list[Record] = []
        for z, one in enumerate(slices):
            areas = {n: a for n, path in one.inner.items() if (a := _area(survey, path)) is not None}
            for path in one.outer.values():
                _area(survey, path)
            survey.count("contours", len(one.inner) + len(one.outer))
            if len(areas) < 2:
                survey.count(f"slices with {'one contoured frame' if areas else 'no contour'}, left out")
                continue
            moving, fixed = max(areas, key=lambda n: (areas[n], -n)), min(areas, key=lambda n: (areas[n], n))
            if len(areas) > 2:
                used = f"{moving} and {fixed} are used"
                survey.note(one.inner[moving], f"{len(areas)} frames of its slice have contours; {used}")
            if fixed in one.outer and moving not in one.outer:
                survey.note(one.outer[fixed], "the outer contour is at end-systole, where the cavity is smallest")
            numbers = sorted(one.frames)
            name = f"{patient}/slice{z:02d}"
            frame = numbers.index(fixed)
            record: dict[str, Any] = {
                "case_id": f"{name}/{frame:03d}",
                "sequence": name,
                "frame": frame,
                "reference": numbers.index(moving),
                "fixed": str(one.frames[fixed]),
                "moving": str(one.frames[moving]),
                "fixed_inner": str(one.inner[fixed]),
                "moving_inner": str(one.inner[moving]),
            }
            if fixed in one.outer and moving in one.outer:
                record |= {"fixed_outer": str(one.outer[fixed]), "moving_outer": str(one.outer[moving])}
                survey.count("slices with cavity and wall")
            else:
                survey.count("slices with cavity only")
            if len(numbers) == _FRAMES:
                record["frames"] = [str(one.frames[n]) for n in numbers]
                for path in one.frames.values():
                    survey.holds(path, "picture")
            else:
                survey.count(f"slices without all {_FRAMES} frames: no sequence")
            cases.append(record)
        return cases

    def load(self, record: Record) -> RegistrationPair:
        images, spacing, affine = self._images([record["fixed"], record["moving"]])
        labels = self._labels(record, images.shape[-2:])
        return RegistrationPair(
            case_ids=(str(record["case_id"]),),
            fixed=self._window(images[None, None, 0]),
            moving=self._window(images[None, None, 1]),
            fixed_spacing_mm=spacing,
            moving_spacing_mm=spacing,
            fixed_affine=affine,
            moving_affine=affine,
            fixed_labels=self._window(labels["fixed"][None, None]),
            moving_labels=self._window(labels["moving"][None, None]),
            label_names=_names(record),
            frames=(int(record["frame"]),),
        )

    def sequence(self, record: Record) -> ImageSequence:
        """All frames of the slice of `record`, with labels at end-diastole (the reference) and end-systole.

        Raises:
            DataError: not all frames of the slice are there.
        """
        if "frames" not in record:
            raise DataError(f"{record['sequence']}: not all {_FRAMES} frames of this slice are there, only a pair")
        images, spacing, affine = self._images(record["frames"])
        labels = self._labels(record, images.shape[-2:])
        known = {int(record["frame"]): labels["fixed"], int(record["reference"]): labels["moving"]}
        return ImageSequence(
            case_ids=(str(record["sequence"]),),
            frames=self._window(images[None, :, None]),
            seconds_per_frame=self.seconds_per_frame or _seconds([Path(p) for p in record["frames"]]),
            reference=int(record["reference"]),
            spacing_mm=spacing,
            affine=affine,
            labels=self._window(torch.stack([known[t] for t in sorted(known)])[None, :, None]),
            labelled_frames=tuple(sorted(known)),
            label_names=_names(record),
        )

    def _images(self, files: Sequence[str]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Frames `(T, x, y)` on one scale, whole; spacing and affine of the part that is kept."""
        header = read_dicom_header(Path(files[0]))
        stored = read_dicom_frames([Path(f) for f in files])
        for file, frame in zip(files, stored, strict=True):
            if frame.min() == frame.max():
                raise DataError(f"{file}: a constant image, every pixel is {frame.flat[0]:g}; nothing to register")
        scaled = preprocess({"image": stored}, [scale_intensity("image")])["image"][0, 0]
        if header.spacing_mm is None:
            return scaled, None, None
        start, shape = self._part(header.shape)
        spacing, affine = geometry(cropped(plane(header.shape, header.spacing_mm), start, shape))
        return scaled, spacing, affine

    def _labels(self, record: Record, shape: Sequence[int]) -> dict[str, Tensor]:
        labels = {}
        for role in ("fixed", "moving"):
            mask = np.zeros(tuple(shape), np.uint8)
            if f"{role}_outer" in record:
                mask[fill_polygon(_points(Path(record[f"{role}_outer"])), shape)] = _WALL
            mask[fill_polygon(_points(Path(record[f"{role}_inner"])), shape)] = _CAVITY
            labels[role] = torch.from_numpy(mask)
        return labels

    def _part(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First pixel and size of what is kept of a picture."""
        kept = tuple(min(k, n) for k, n in zip(self.size or shape, shape, strict=True))
        return tuple(n // 2 - k // 2 for n, k in zip(shape, kept, strict=True)), kept

    def _window(self, image: Tensor) -> Tensor:
        (x, y), (width, height) = self._part(image.shape[-2:])
        return image[..., x : x + width, y : y + height].clone()


def _names(record: Record) -> dict[int, str]:
    return {_CAVITY: "cavity", _WALL: "wall"} if "fixed_outer" in record else {_CAVITY: "cavity"}


def _normal(match: re.Match[str]) -> str:
    """The name of a patient as the folders of contours have it: two digits."""
    return f"SC-{match[1].upper()}-{int(match[2]):02d}"


def _split_of(patient: str, folder: Path) -> Split:
    group, number = patient.removeprefix("SC-").rsplit("-", 1)
    for split, groups in _CHALLENGE.items():
        if int(number) in groups[group]:
            return split
    for part in reversed(folder.parts):
        for word, split in _FOLDERS.items():
            if word in part.lower():
                return split
    return "test"


def _contour_folders(survey: Survey, root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if not root.is_dir():
        survey.fault(root, "no such folder; expected the contours in it")
    for folder in sorted(root.rglob("IRCCI-expert")):
        if _RESOURCES in folder.parts:
            continue
        match = _PATIENT.fullmatch(folder.parent.parent.name)
        if match is None:
            survey.note(folder, "not used: the folder above contours-manual is no patient such as SC-HF-I-01")
        elif _normal(match) in found:
            survey.fault(folder, f"contours of {_normal(match)} once more, also in {found[_normal(match)]}")
        else:
            found[_normal(match)] = folder
    return found


def _contours(survey: Survey, folder: Path) -> dict[str, dict[int, Path]]:
    """The files of inner (i) and outer (o) contours by frame number."""
    marks: dict[str, dict[int, Path]] = {"i": {}, "o": {}}
    for path in sorted(folder.iterdir()):
        match = _CONTOUR.fullmatch(path.name)
        if match is not None:
            marks[match[2].lower()][int(match[1])] = path
        elif re.search(r"-p\d", path.name):
            survey.count("papillary contours, not used")
        elif not path.name.startswith("."):
            survey.note(path, "not used: no name such as IM-0001-0048-icontour-manual.txt")
    for number in sorted(marks["o"].keys() - marks["i"].keys()):
        survey.fault(marks["o"][number], f"an outer contour without an inner one of frame {number}")
    return marks


def _image_series(survey: Survey, root: Path, below: Path) -> dict[str, dict[Path, dict[int, Path]]]:
    """Per patient every series, as a folder and the number in its file names, with its files by frame number."""
    if not below.is_dir():
        survey.fault(below, "no such folder; expected the images in it")
    originals = _originals(survey, root)
    found: dict[str, dict[Path, dict[int, Path]]] = defaultdict(dict)
    for folder, folders, files in os.walk(below):
        folders[:] = sorted(set(folders) - {_RESOURCES})
        matches = [m for name in sorted(files) if (m := _IMAGE.fullmatch(name))]
        patient = _patient_of(Path(folder).relative_to(below), originals) if matches else None
        for match in matches if patient else ():
            series = found[str(patient)].setdefault(Path(folder) / f"IM-{match[1]}", {})
            series[int(match[2])] = Path(folder) / match[0]
    return found


def _patient_of(folder: Path, originals: Mapping[str, str]) -> str | None:
    for part in reversed(folder.parts):
        match = _PATIENT.fullmatch(part)
        if match is not None:
            return _normal(match)
        if part in originals:
            return originals[part]
    return None


def _originals(survey: Survey, root: Path) -> dict[str, str]:
    """The original names of the patients by their numbers in the release of the Cardiac Atlas Project."""
    names: dict[str, str] = {}
    for path in sorted(root.rglob(_TABLE)):
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            absent = [c for c in ("PatientID", "OriginalID") if c not in (reader.fieldnames or [])]
            if absent:
                survey.fault(path, f"no column {absent[0]!r}; found {', '.join(reader.fieldnames or []) or 'none'}")
                continue
            for line, row in enumerate(reader, start=2):
                match = _PATIENT.fullmatch((row["OriginalID"] or "").strip())
                number = (row["PatientID"] or "").strip()
                if match is None:
                    survey.fault(path, f"line {line}: OriginalID {row['OriginalID']!r}, expected one such as SC-HF-I-1")
                elif names.setdefault(number, _normal(match)) != _normal(match):
                    survey.fault(path, f"line {line}: {number!r} is {_normal(match)} and {names[number]}")
    return names


def _choose(
    survey: Survey, folder: Path, patient: str, series: Mapping[Path, Mapping[int, Path]], wanted: Sequence[int]
) -> Mapping[int, Path]:
    """The short-axis series, which the contours belong to; empty, and a fault, where there is none."""
    if not series:
        survey.fault(folder, f"no images of {patient}: no DICOM/IM-0001-NNNN.dcm or the like in a folder of that name")
        return {}
    # First those called short-axis, then those with the most of the contoured frames, then the longest.
    order = sorted(
        series,
        key=lambda s: ("CINESAX" not in s.parent.name.upper(), -len(set(wanted) & set(series[s])), -len(series[s]), s),
    )
    best = series[order[0]]
    for number in wanted:
        if number not in best:
            survey.fault(order[0].with_name(f"{order[0].name}-{number:04d}.dcm"), "no such image, but it has a contour")
    covering = [s for s in order if set(wanted) <= set(series[s])]
    if len(covering) > 1 and "CINESAX" not in order[0].parent.name.upper():
        message = f"{len(covering)} series hold all contoured frames of {patient}; {order[0]} is used"
        survey.note(order[0].parent, message)
    return best


def _slices(survey: Survey, images: Mapping[int, Path], marks: Mapping[str, Mapping[int, Path]]) -> list[_Slice]:
    """Frames by their place in the patient, in order of their first number."""
    headers: dict[int, DicomHeader] = {}
    for number, path in sorted(images.items()):
        try:
            header = read_dicom_header(path)
        except DataError as error:
            survey.fault(path, str(error).removeprefix(f"{path}: "))
            continue
        if header.frames != 1:
            survey.fault(path, f"{header.frames} frames, expected one per file")
            continue
        headers[number] = header
    survey.count("images", len(images))
    # A pair does not need them, so it is `data check` that complains.
    for number in set(range(min(images), max(images) + 1)) - set(images):
        survey.holds(_numbered(images, number), "picture")
    placed = all(h.position is not None for h in headers.values())
    of = {number: h.position if placed else (number - 1) // _FRAMES for number, h in headers.items()}
    usual = _usual_sizes(headers, of)
    found: dict[Any, _Slice] = {}
    for number, header in headers.items():
        one = found.setdefault(of[number], _Slice())
        if (header.shape, header.spacing_mm) != usual[of[number]]:
            shape, spacing = usual[of[number]]
            survey.fault(
                images[number],
                f"{header.shape} pixels of {header.spacing_mm} mm, expected {shape} of {spacing} as the other frames "
                "of its slice",
            )
            continue
        one.frames[number] = images[number]
        for kind, contours in (("i", one.inner), ("o", one.outer)):
            if number in marks[kind] and _fits(survey, marks[kind][number], header):
                contours[number] = marks[kind][number]
    if headers and any(h.spacing_mm is None for h in headers.values()):
        survey.note(next(iter(images.values())), "no PixelSpacing in its series: distances are in pixels")
    return list(found.values())


def _numbered(images: Mapping[int, Path], number: int) -> Path:
    """The name that the file of a number would have."""
    known = next(iter(images.values()))
    return known.with_name(re.sub(r"\d+(?=\.[^.]*$)", lambda m: f"{number:0{len(m[0])}d}", known.name))


def _usual_sizes(headers: Mapping[int, DicomHeader], of: Mapping[int, Any]) -> dict[Any, tuple[Any, Any]]:
    """The most frequent shape and spacing of each slice."""
    counted: defaultdict[Any, Counter[tuple[Any, Any]]] = defaultdict(Counter)
    for number, header in headers.items():
        counted[of[number]][header.shape, header.spacing_mm] += 1
    return {place: sizes.most_common(1)[0][0] for place, sizes in counted.items()}


def _fits(survey: Survey, path: Path, header: DicomHeader) -> bool:
    """Whether a contour can be read and lies inside its image."""
    try:
        points = _points(path)
    except DataError as error:
        survey.fault(path, str(error).removeprefix(f"{path}: "))
        return False
    outside = ((points < -0.5) | (points > np.asarray(header.shape) - 0.5)).any(axis=1)
    if outside.any():
        first = int(outside.argmax())
        survey.fault(
            path,
            f"{int(outside.sum())} points outside the image of {header.shape[0]} x {header.shape[1]} pixels, first "
            f"line {first + 1}: {points[first].tolist()}",
        )
    steps = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1)
    # Contours are drawn as closed lines of points about a pixel apart; the first step is the one that closes them.
    if steps[0] > _OPEN * max(1.0, float(np.median(steps[1:]))):
        survey.note(path, f"its ends are {steps[0]:.1f} pixels apart and are joined by a line; is the file truncated?")
    return not bool(outside.any())


def _points(path: Path) -> NDArray[np.float64]:
    """The corners `(N, 2)` of a contour, x and y in pixels.

    Raises:
        DataError: not lines of two numbers, NaN, or less than three points; names the line.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            x, y = (float(value) for value in line.split())
        except ValueError as error:
            raise DataError(f"{path}: line {number} is {line.strip()[:40]!r}, expected x y in pixels") from error
        if not np.isfinite([x, y]).all():
            raise DataError(f"{path}: line {number} is {line.strip()[:40]!r}, expected finite numbers")
        rows.append((x, y))
    if len(rows) < 3:
        raise DataError(f"{path}: {len(rows)} points, expected at least 3")
    return np.asarray(rows)


def _area(survey: Survey, path: Path) -> float | None:
    """Pixels that a contour encloses; `None`, and a fault, below one."""
    area = enclosed_area(_points(path))
    if area < 1:
        survey.fault(path, f"encloses {area:.2f} pixels, expected at least one")
    return area if area >= 1 else None


def _seconds(files: Sequence[Path]) -> float:
    """Time between frames by the headers, else that of a heart beat of one second."""
    headers = [read_dicom_header(f) for f in files]
    times = [h.trigger_s for h in headers if h.trigger_s is not None]
    if len(times) == len(headers) and max(times) > min(times):
        return (max(times) - min(times)) / (len(times) - 1)
    return headers[0].seconds_per_frame or 1 / _FRAMES
