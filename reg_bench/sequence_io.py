"""Sequences of frames from files: 4-D images, folders of frames, videos and DICOM, all in one form.

A `Series` is what a source tells before its voxels are read; `read_frames` and `read_maps` then give `(T, *S)`,
axes x, y[, z]. A third axis of length 1 is dropped: a file of `(X, Y, 1, T)` holds 2-D frames.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from reg_bench import nifti
from reg_bench.dicom_frames import DicomHeader, is_dicom, read_dicom_frames, read_dicom_header
from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import PICTURE_SUFFIXES, read_grid, read_voxels, squeezed_grid
from reg_bench.image_series import read_4d, read_4d_header
from reg_bench.preprocessing import plane
from reg_bench.video_io import read_video, read_video_info

VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", *PICTURE_SUFFIXES)
_COMPANIONS = (".raw", ".zraw")  # voxels of .mhd and .nhdr files
# Share by which single intervals may differ from their mean where a time is derived from them.
_EVEN = 0.25


@dataclass(frozen=True)
class Series:
    """A source of frames and what is known of it without its voxels.

    Attributes:
        path: file or folder.
        kind: how it is read; `image` is a single frame.
        grid: of every frame; spacing 1 where it is not known.
        length: number of frames.
        spacing_known: whether the source tells a spacing.
        seconds_per_frame: where the source tells it.
        files: of a folder, frame by frame.
        notes: oddities that were dealt with as they say.
    """

    path: Path
    kind: Literal["4d", "image", "folder", "video", "dicom"]
    grid: Grid
    length: int
    spacing_known: bool = True
    seconds_per_frame: float | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        return self.grid.dimension

    def with_spacing(self, spacing_mm: Sequence[float]) -> Series:
        """The same frames with another distance between voxels."""
        grid = Grid(self.grid.shape, tuple(spacing_mm), self.grid.origin, self.grid.direction)
        return replace(self, grid=grid, spacing_known=True)


def open_series(path: Path, *, maps: bool = False) -> Series:
    """Looks at the headers of a source of frames.

    Args:
        path: a 4-D image (NIfTI `(x, y, z, t)`, or what else SimpleITK reads with four axes), a folder with one
            image for each frame, a video, or a DICOM file with several frames.
        maps: of labels or a mask: a single 2-D or 3-D image will do, videos and DICOM will not.

    Raises:
        DataError: missing, unreadable or truncated, or frames that do not fit together; several faults of a folder
            stand on a line each.
    """
    if path.is_dir():
        return _folder(path, maps)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    video, dicom = path.name.lower().endswith(VIDEO_SUFFIXES), is_dicom(path)
    if maps and (video or dicom):
        raise DataError(f"{path}: a {'video' if video else 'DICOM file'}, expected whole numbers in an image or folder")
    if video:
        return _video(path)
    if dicom:
        return _dicom(path)
    if maps and _axes(path) < 4:
        return Series(path, "image", read_grid(path), 1, not _is_picture(path))
    if _axes(path) < 4:
        raise DataError(
            f"{path}: a single image of {_axes(path)} axes, expected frames over time: a 4-D image (x, y, z, t), in "
            "2-D (x, y, 1, t), a folder with an image for each frame, a video or a DICOM file with several frames"
        )
    grid, length, seconds = read_4d_header(path)
    return Series(path, "4d", _flat(grid), length, True, seconds)


def read_frames(series: Series) -> NDArray[np.float32]:
    """The intensities `(T, *S)` float32.

    Raises:
        DataError: truncated or damaged, or voxels that are NaN or infinite; names the file.
    """
    if series.kind == "4d":
        return _series_4d(series)
    if series.kind == "video":
        return np.ascontiguousarray(read_video(series.path).swapaxes(1, 2), dtype=np.float32)
    if series.kind == "dicom" or (series.files and is_dicom(series.files[0])):
        return read_dicom_frames(series.files or [series.path])
    frames = np.stack([_finite(path, read_voxels(path)[0]) for path in series.files])
    return np.ascontiguousarray(frames, dtype=np.float32)


def read_maps(series: Series) -> NDArray[np.int32]:
    """Labels or masks `(T, *S)` as whole numbers; a frame may be all background.

    Raises:
        DataError: truncated or damaged, or voxels that are no whole numbers; names the file.
    """
    if series.kind == "4d":
        return _whole(series.path, _series_4d(series))
    files = series.files or (series.path,)
    return np.stack([_whole(path, _finite(path, read_voxels(path)[0])) for path in files])


def frame_number(path: Path) -> int | None:
    """The number that the name of a file ends with, such as 12 in `frame_0012.png` and `t12_labels.nii.gz`."""
    found = re.findall(r"\d+", _stem(path))
    return int(found[-1]) if found else None


def frames_of_files(files: Sequence[Path], sequence: Series) -> dict[int, Path]:
    """Which frame of `sequence` each file belongs to, by the number in its name.

    Where the sequence is a folder whose frames are numbered, that is the frame with the same number; else the
    number counts frames from 0.

    Raises:
        DataError: a name without number, a number that no frame has, or two files for one frame; a line for each.
    """
    numbers = [frame_number(path) for path in sequence.files]
    known = [n for n in numbers if n is not None]
    own = len(known) == len(numbers) == len(set(numbers)) and bool(known)
    index = {n: t for t, n in enumerate(known)} if own else {t: t for t in range(sequence.length)}
    expected = (
        f"one of the frames of {sequence.path}, {min(index)} to {max(index)}"
        if own
        else f"0..{sequence.length - 1} as {sequence.path} has {sequence.length} frames, counted from 0"
    )
    placed: dict[int, Path] = {}
    faults = []
    for path in files:
        number = frame_number(path)
        if number is None:
            faults.append(f"{path}: no frame number in the name, expected {expected}")
        elif number not in index:
            faults.append(f"{path}: its name tells frame {number}, expected {expected}")
        elif index[number] in placed:
            faults.append(f"{path}: frame {number} like {placed[index[number]].name}, expected one file for a frame")
        else:
            placed[index[number]] = path
    if faults:
        raise DataError("\n".join(faults))
    return dict(sorted(placed.items()))


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts `t2` before `t10`."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts], path.name


def _stem(path: Path) -> str:
    return re.sub(r"(\.seg)?\.(nii\.gz|mrk\.json|[a-z]\w*)$", "", path.name, flags=re.IGNORECASE)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _flat(grid: Grid) -> Grid:
    """Without a third axis of length 1."""
    if grid.dimension == 2 or grid.shape[2] > 1:
        return grid
    return squeezed_grid(grid.shape, grid.spacing_mm, grid.origin, grid.direction, 2)


def _axes(path: Path) -> int:
    """Number of axes of an image file."""
    if nifti.is_nifti(path):
        return len(nifti.read_header(path).shape)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(
            f"{path}: unreadable or truncated, or an unknown format; expected a 4-D image, a folder of frames, a "
            f"video ({', '.join(VIDEO_SUFFIXES)}) or DICOM"
        ) from error
    return int(reader.GetDimension())


def _series_4d(series: Series) -> NDArray[np.float32]:
    array, _, _ = read_4d(series.path)
    return np.ascontiguousarray(np.moveaxis(array, -1, 0).reshape(series.length, *series.grid.shape))


def _finite(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise DataError(f"{path}: {bad} of {array.size} voxels are NaN or infinite")
    return array


def _whole(path: Path, array: NDArray[Any]) -> NDArray[np.int32]:
    whole = np.rint(array).astype(np.int32)
    if not np.array_equal(whole, array):
        example = np.asarray(array)[whole != array].flat[0]
        raise DataError(f"{path}: labels must be whole numbers, found {example:g}; was the map interpolated?")
    return whole


def _video(path: Path) -> Series:
    info = read_video_info(path)
    if not (info.columns > 0 and info.rows > 0):
        raise DataError(f"{path}: the header tells no size of the pictures")
    # Some containers do not tell how many pictures they hold.
    length = info.frames or len(read_video(path))
    seconds = 1 / info.frames_per_second if info.frames_per_second > 0 else None
    return Series(path, "video", plane((info.columns, info.rows), (1.0, 1.0)), length, False, seconds)


def _dicom(path: Path) -> Series:
    header = read_dicom_header(path)
    grid = plane(header.shape, header.spacing_mm or (1.0, 1.0))
    return Series(path, "dicom", grid, header.frames, header.spacing_mm is not None, header.seconds_per_frame)


def _folder(path: Path, maps: bool) -> Series:
    """A folder with one file for each frame, in natural order of the names."""
    files, others = frame_files(path)
    if not files:
        raise DataError(f"{path}: a folder without images; expected one file for each frame")
    # The names of label maps tell their frames, whatever else is in them.
    faults = [] if maps else _mixed(path, files)
    dicom = is_dicom(files[0])
    if maps and dicom:
        raise DataError(f"{path}: DICOM files, expected maps of whole numbers in another format")
    headers: list[tuple[Path, Grid, DicomHeader | None]] = []
    for file in files:
        try:
            headers.append((file, *_frame_header(file, dicom)))
        except DataError as error:
            faults.append(str(error))
    for file, grid, _ in headers[1:]:
        first = headers[0]
        if grid.shape != first[1].shape:
            faults.append(f"{file}: shape {grid.shape}, expected {first[1].shape} as {first[0].name}")
        elif not grids_equal(grid, first[1]):
            faults.append(f"{file}: another geometry than {first[0].name}; expected one grid for all frames")
    about = [h for *_, h in headers if h is not None]
    faults += _places(path, about)
    if faults:
        raise DataError("\n".join(faults))
    notes = [f"{path}: {len(others)} files are no images and are left out, first {others[0].name}"] if others else []
    notes += _gap(path, files)
    known = about[0].spacing_mm is not None if dicom else not _is_picture(files[0])
    seconds = _interval(about) if dicom else None
    return Series(path, "folder", headers[0][1], len(files), known, seconds, tuple(files), tuple(notes))


def frame_files(path: Path) -> tuple[list[Path], list[Path]]:
    """The images in a folder in natural order, and the other files; hidden files are overlooked."""
    files = sorted((p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural_order)
    frames = [p for p in files if p.name.lower().endswith(_IMAGE_SUFFIXES) or is_dicom(p)]
    others = [p for p in files if p not in frames and p.suffix.lower() not in _COMPANIONS]
    return frames, others


def _frame_header(path: Path, dicom: bool) -> tuple[Grid, DicomHeader | None]:
    if not dicom:
        return read_grid(path), None
    header = read_dicom_header(path)
    if header.frames > 1:
        raise DataError(
            f"{path}: {header.frames} frames in one file of a folder; expected one, or name the file itself"
        )
    return plane(header.shape, header.spacing_mm or (1.0, 1.0)), header


def _mixed(path: Path, files: Sequence[Path]) -> list[str]:
    """Names of several patterns: masks among the frames, or two sequences in one folder."""
    patterns = {re.sub(r"\d+", "#", file.name): file for file in reversed(files)}
    # Identifiers of DICOM files may have any number of parts.
    if len(patterns) == 1 or not any("#" in p for p in patterns) or all(is_dicom(f) for f in files):
        return []
    shown = ", ".join(sorted(patterns)[:4])
    return [f"{path}: holds files of {len(patterns)} kinds of names ({shown}); expected one image for each frame"]


def _places(path: Path, headers: Sequence[DicomHeader]) -> list[str]:
    """DICOM files that are not one plane over time."""
    places, series = {h.position for h in headers}, {h.series for h in headers}
    if len(places) > 1:
        return [f"{path}: the files lie at {len(places)} places in the patient; expected one place over time"]
    return [f"{path}: the files are of {len(series)} series; expected one"] if len(series) > 1 else []


def _gap(path: Path, files: Sequence[Path]) -> list[str]:
    """Where frame numbers that rise by one leave some out."""
    numbers = [n for n in map(frame_number, files) if n is not None]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if len(numbers) < len(files) or len(files) < 3 or steps.count(1) * 2 < len(steps):
        return []
    jump = next((i for i, step in enumerate(steps) if step != 1), None)
    if jump is None:
        return []
    return [
        f"{path}: the numbers jump from {numbers[jump]} to {numbers[jump + 1]}; the frames are taken as evenly "
        "spaced in time"
    ]


def _interval(headers: Sequence[DicomHeader]) -> float | None:
    """Seconds between single DICOM frames: as a header says, else by trigger times that rise evenly."""
    if headers[0].seconds_per_frame is not None:
        return headers[0].seconds_per_frame
    times = [h.trigger_s for h in headers if h.trigger_s is not None]
    if len(times) < max(2, len(headers)):
        return None
    steps = np.diff(times)
    mean = float(steps.mean())
    return mean if mean > 0 and float(np.abs(steps - mean).max()) <= _EVEN * mean else None
