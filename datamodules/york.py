"""Short-axis cine MR of 33 children with contours in most frames (York University, Andreopoulos and Tsotsos)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.contours import enclosed_area, fill_polygon
from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.mat_io import mat_shapes, read_mat_array, read_mat_cells
from reg_bench.preprocessing import cropped, geometry, plane, preprocess, scale_intensity
from reg_bench.survey import Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import ImageSequence, RegistrationPair

_IMAGES, _CONTOURS = "sol_yxzt", "manual_seg_32points"
_SUBJECTS = range(1, 34)
_ABSENT = -99999
_CAVITY, _MYOCARDIUM = 1, 2

Outline = NDArray[np.float64]


class York(RegistrationDataModule):
    """Short-axis cine MR of 33 children, 20 phases: moving frame 0, fixed every other frame, labels cavity and wall.

    Pairs are 2-D, views of `sequence`; a case is called `pat<subject>/slice<z>/<frame>`. **Slices and frames are
    numbered from 0** here, subjects from 1 as in the names of the files: slice 4, which Paper I ("registration by
    tracking") uses, is `sol_yxzt(:,:,5,:)` in MATLAB, as in the code of that paper. Frame 0 is the first in the
    file. Paper I used 32 of the 33 subjects and does not say which one it left out; `exclude` leaves out any.

    Labels: 1 cavity, the pixels whose centre lies inside the endocardial polygon; 2 myocardium, inside the
    epicardial polygon but not in the cavity. The points are in pixels counted from 1 and are joined by straight
    lines. Intensities are scaled to 0..1 by the 99.5th percentile of the whole slice over time. Axes are x, y. The
    files know neither spacing nor time.

    Args:
        root: folder with the MAT files, in it or in folders below it.
        slices: slices used, counted from 0; all if `None`.
        exclude: numbers of subjects that are left out.
        labelled_only: only frames with contours are cases, and only slices with contours in frame 0; the rest is
            counted. Sequences hold all frames in any case.
        size: the central part of the pictures that is kept, pixels along x and y; whole pictures if `None`.
        spacing_mm: size of a pixel, of all subjects or as a table `{subject: mm}`; unknown if `None`, and
            distances are then in pixels.
        seconds_per_frame: nominal; 20 frames cover one heart beat of unknown length.
        train_share, val_share: shares of the subjects, drawn with the seed, that go into train and val.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: a negative slice, shares that leave nothing to test, or a spacing that is not positive.
    """

    name: ClassVar[str] = "york"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "free for research; the paper must be cited"
    folder: ClassVar[str] = "york"
    source: ClassVar[str] = (
        "http://www.cse.yorku.ca/~mridataset (mrimages.tar.gz, manual_seg.tar.gz); cite A. Andreopoulos and "
        'J. K. Tsotsos, "Efficient and generalizable statistical models of shape and appearance for analysis of '
        'cardiac MRI", '
        "Medical Image Analysis 12(3):335-357, 2008"
    )
    layout: ClassVar[str] = """
        sol_yxzt_pat<N>.mat             N = 1..33: variable sol_yxzt, rows y, columns x, slices, frames
        manual_seg_32points_pat<N>.mat  variable manual_seg_32points, cells (slices, frames): 65 x 2 or -99999
        (MATLAB 5 to 7.3; in the folder itself or in folders below it, such as mrimages and manual_seg)
    """
    splits: ClassVar[str] = (
        "test: all subjects, unless train_share or val_share draw some of them into train and val with the seed"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        slices: tuple[int, ...] | None = (4,),
        exclude: tuple[int, ...] = (),
        labelled_only: bool = True,
        size: tuple[int, int] | None = None,
        spacing_mm: float | Mapping[int, float] | None = None,
        seconds_per_frame: float = 0.05,
        train_share: float = 0.0,
        val_share: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.exclude, self.labelled_only = root, tuple(exclude), labelled_only
        self.slices = None if slices is None else tuple(slices)
        self.size = None if size is None else (int(size[0]), int(size[1]))
        if isinstance(spacing_mm, Mapping):
            spacing_mm = {int(number): float(value) for number, value in spacing_mm.items()}
        self.spacing_mm = spacing_mm
        self.seconds_per_frame = seconds_per_frame
        self.train_share, self.val_share = train_share, val_share
        if self.slices is not None and (not self.slices or min(self.slices) < 0):
            raise ConfigError(f"{self.name}: slices must be numbers from 0, got {list(self.slices)}")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"{self.name}: size must be positive, got {self.size}")
        if min(train_share, val_share) < 0 or train_share + val_share >= 1:
            raise ConfigError(f"{self.name}: train_share {train_share} and val_share {val_share} leave nothing to test")
        values = self.spacing_mm.values() if isinstance(self.spacing_mm, dict) else [self.spacing_mm]
        if not all(v is None or (np.isfinite(v) and v > 0) for v in values) or not seconds_per_frame > 0:
            raise ConfigError(f"{self.name}: spacing_mm and seconds_per_frame must be positive")

    def look_through(self) -> Survey:
        root = self.root_folder()
        survey = Survey(root)
        images, contours = (_by_subject(survey, root, kind) for kind in (_IMAGES, _CONTOURS))
        there = sorted(images | contours)
        absent = [n for n in _SUBJECTS if n not in there]
        if not there:
            survey.fault("", f"no file {_IMAGES}_pat<N>.mat or {_CONTOURS}_pat<N>.mat in it or in folders below")
        elif absent:
            few = len(there) <= len(absent)
            listed = ", ".join(map(str, there if few else absent))
            survey.note("", f"{len(there)} of the 33 subjects are there{': ' if few else ', all but '}{listed}")
        for number in sorted(set(self.exclude) - set(there)):
            survey.note("", f"subject {number} is to be excluded and is not there")
        used = [n for n in there if n not in self.exclude]
        if len(used) < len(there):
            survey.count("excluded subjects", len(there) - len(used))
        splits = self._split_of(used)
        for number in used:
            for kind, files, others in ((_IMAGES, images, contours), (_CONTOURS, contours, images)):
                if number not in files:
                    survey.fault(f"{kind}_pat{number}.mat", f"missing; it belongs to {others[number]}")
            if number in images and number in contours:
                survey.count("subjects")
                survey.records[splits[number]] += self._cases(survey, number, images[number], contours[number])
        return survey

    def _split_of(self, subjects: list[int]) -> dict[int, str]:
        drawn = [subjects[i] for i in random_generator(self.name, "split", self.seed).permutation(len(subjects))]
        train, val = (round(share * len(drawn)) for share in (self.train_share, self.val_share))
        return {n: "train" if i < train else "val" if i < train + val else "test" for i, n in enumerate(drawn)}

    def _cases(self, survey: Survey, number: int, images: Path, contours: Path) -> list[Record]:
        """The cases of a subject; whatever is wrong with its files goes into `survey`."""
        shape = _shape_of(survey, images)
        cells = _cells_of(survey, contours)
        if shape is None or cells is None:
            return []
        if cells.shape != shape[2:]:
            there = f"{shape[2]} slices and {shape[3]} frames"
            survey.fault(contours, f"{_CONTOURS} is {' x '.join(map(str, cells.shape))} cells, {images} has {there}")
            return []
        survey.count("slices", shape[2])
        survey.count("frames", shape[2] * shape[3])
        wanted = range(shape[2]) if self.slices is None else self.slices
        marked = _marked(survey, contours, cells, shape[:2], wanted)
        survey.count("frames with contours", len(marked))
        cases: list[Record] = []
        for z in wanted:
            if z >= shape[2]:
                survey.note(images, f"slice {z} (from 0) is asked for, there are {shape[2]}; left out")
                continue
            labelled = [t for t in range(1, shape[3]) if (z, t) in marked and (z, 0) in marked]
            frames = labelled if self.labelled_only else list(range(1, shape[3]))
            survey.count("frames left out without contours", shape[3] - 1 - len(frames))
            if self.labelled_only and (z, 0) not in marked:
                survey.note(contours, f"slice {z} (from 0) has no contours in frame 0, the moving one; left out")
            name = f"pat{number:02d}/slice{z:02d}"
            files = {"images": str(images), "contours": str(contours)}
            cases += [
                {"case_id": f"{name}/{t:03d}", "sequence": name, "subject": number, **files, "slice": z, "frame": t}
                for t in frames
            ]
        return cases

    def load(self, record: Record) -> RegistrationPair:
        pair = self.sequence(record).pair(int(record["frame"]))
        # Not views: the sequence is kept for the next case, and a view carries all of it to another process.
        tensors = ("fixed", "moving", "fixed_labels", "moving_labels")
        return replace(pair, **{k: v.clone() for k in tensors if (v := getattr(pair, k)) is not None})

    def sequence(self, record: Record) -> ImageSequence:
        """All frames of the slice of `record`, with labels in those frames that have contours."""
        z, number = int(record["slice"]), int(record["subject"])
        frames, labels, labelled = _read_slice(str(record["images"]), str(record["contours"]), z)
        whole = frames.shape[-2:]
        kept = whole if self.size is None else self.size
        start = [max(0, n // 2 - k // 2) for n, k in zip(whole, kept, strict=True)]
        window = tuple(slice(a, a + k) for a, k in zip(start, kept, strict=True))
        frames, labels = frames[..., *window].contiguous(), labels[..., *window].contiguous()
        spacing = self.spacing_mm.get(number) if isinstance(self.spacing_mm, dict) else self.spacing_mm
        place: tuple[Tensor | None, Tensor | None] = (None, None)
        if spacing is not None:
            place = geometry(cropped(plane(whole, (spacing, spacing)), start, frames.shape[-2:]))
        return ImageSequence(
            case_ids=(str(record["sequence"]),),
            frames=frames,
            seconds_per_frame=self.seconds_per_frame,
            spacing_mm=place[0],
            affine=place[1],
            labels=labels if labelled else None,
            labelled_frames=labelled or None,
            label_names={_CAVITY: "cavity", _MYOCARDIUM: "myocardium"},
        )


def _by_subject(survey: Survey, root: Path, kind: str) -> dict[int, Path]:
    """The files `<kind>_pat<N>.mat` below `root` by N."""
    found: dict[int, Path] = {}
    for path in sorted(root.rglob(f"{kind}_pat*.mat")):
        match = re.fullmatch(rf"{kind}_pat(\d+)\.mat", path.name)
        if match is None:
            survey.note(path, f"not read: the name is not {kind}_pat<N>.mat")
        elif (number := int(match[1])) in found:
            survey.fault(path, f"subject {number} occurs twice, also as {found[number]}")
        else:
            found[number] = path
    return found


def _shape_of(survey: Survey, path: Path) -> tuple[int, int, int, int] | None:
    """Rows, columns, slices and frames; `None` and a fault where the file cannot be used."""
    try:
        shapes = mat_shapes(path)
    except DataError as error:
        survey.fault(path, str(error).removeprefix(f"{path}: "))
        return None
    shape = shapes.get(_IMAGES)
    if shape is None:
        survey.fault(path, f"no variable {_IMAGES!r}; it holds {', '.join(sorted(shapes)) or 'none'}")
    elif len(shape) != 4 or shape[3] < 2 or min(shape) < 1:
        survey.fault(path, f"{_IMAGES} has shape {shape}, expected (rows, columns, slices, frames), 2 frames or more")
    else:
        survey.count(f"pictures of {shape[1]} x {shape[0]}", shape[2] * shape[3])
        return shape[0], shape[1], shape[2], shape[3]
    return None


def _cells_of(survey: Survey, path: Path) -> NDArray[np.object_] | None:
    try:
        mat_shapes(path)  # Says so when the file is too short.
        return read_mat_cells(path, _CONTOURS)
    except DataError as error:
        survey.fault(path, str(error).removeprefix(f"{path}: "))
        return None


def _marked(
    survey: Survey, path: Path, cells: NDArray[np.object_], size: tuple[int, int], wanted: Sequence[int]
) -> set[tuple[int, int]]:
    """Slice and frame of every cell with contours; equal complaints of a slice are told once.

    What is wrong in a slice that nobody asked for is a note.
    """
    marked: set[tuple[int, int]] = set()
    wrong: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for z, t in np.ndindex(cells.shape):
        try:
            if _outlines(cells[z, t], size) is not None:
                marked.add((z, t))
        except DataError as error:
            wrong[z, str(error)].append(t)
    for (z, message), frames in wrong.items():
        listed = ", ".join(map(str, frames))
        say = survey.fault if z in wanted else survey.note
        say(path, f"slice {z}, frame{'s' if len(frames) > 1 else ''} {listed} (from 0): {message}")
    return marked


def _outlines(cell: Any, size: tuple[int, int]) -> tuple[Outline, Outline] | None:
    """Endocardial and epicardial corners `(N, 2)` as x, y counted from 0; `None` where nothing was drawn.

    Raises:
        DataError: neither contours nor the mark for their absence; points outside a picture of `size` (rows,
            columns); contours that enclose nothing. The message names no file.
    """
    values = np.asarray(cell)
    if values.dtype.kind not in "iufb":
        raise DataError(f"holds {values.dtype} values, expected points")
    values = values.astype(np.float64)
    if values.size == 0 or (values == _ABSENT).all():
        return None
    middle = values.shape[0] // 2
    if values.ndim != 2 or values.shape[1] != 2 or middle < 3 or values.shape[0] % 2 == 0 or values[middle].any():
        raise DataError(
            f"{' x '.join(map(str, values.shape))} values, expected 65 x 2 (32 endocardial points x, y, a row of "
            f"zeros, 32 epicardial points) or {_ABSENT}"
        )
    endocardium, epicardium = values[:middle] - 1, values[middle + 1 :] - 1
    for name, points in (("endocardial", endocardium), ("epicardial", epicardium)):
        if not np.isfinite(points).all():
            raise DataError(f"{name} points that are NaN or infinite")
        outside = ((points < -0.5) | (points > np.array([size[1], size[0]]) - 0.5)).any(axis=1)
        if outside.any():
            first = int(outside.argmax())
            raise DataError(
                f"{int(outside.sum())} {name} points outside the picture of {size[1]} x {size[0]} pixels, first "
                f"number {first + 1} at ({points[first, 0] + 1:g}, {points[first, 1] + 1:g}) counted from 1"
            )
    inner, outer = enclosed_area(endocardium), enclosed_area(epicardium)
    if not 1 <= inner < outer:
        raise DataError(
            f"the endocardial contour encloses {inner:.1f} pixels, the epicardial {outer:.1f}; expected at least 1, "
            "and less inside than outside"
        )
    return endocardium, epicardium


def _mask(outlines: tuple[Outline, Outline], shape: tuple[int, int]) -> NDArray[np.uint8]:
    endocardium, epicardium = outlines
    mask = np.where(fill_polygon(epicardium, shape), _MYOCARDIUM, 0).astype(np.uint8)
    mask[fill_polygon(endocardium, shape)] = _CAVITY
    return mask


@kept_while_unchanged(2)
def _read_slice(images: str, contours: str, z: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Frames `(1, T, 1, x, y)` in 0..1, labels `(1, L, 1, x, y)` and the frames that these belong to."""
    pictures = read_mat_array(Path(images), _IMAGES, (slice(None), slice(None), z))
    stored = pictures.astype(np.float32).transpose(1, 0, 2)
    bad = int((~np.isfinite(stored)).sum())
    if bad:
        raise DataError(f"{images}: {_IMAGES} has {bad} voxels that are NaN or infinite in slice {z} (from 0)")
    if stored.min() == stored.max():
        raise DataError(f"{images}: {_IMAGES} is constant in slice {z} (from 0), every voxel is {stored.flat[0]:g}")
    width, height = stored.shape[:2]
    # (x, y, t) is scaled as one image, so that all frames share one scale.
    scaled = preprocess({"image": stored}, [scale_intensity("image")])["image"]
    drawn: dict[int, tuple[Outline, Outline]] = {}
    for t, cell in enumerate(read_mat_cells(Path(contours), _CONTOURS)[z]):
        try:
            outlines = _outlines(cell, (height, width))
        except DataError as error:
            raise DataError(f"{contours}: slice {z}, frame {t} (from 0): {error}") from error
        if outlines is not None:
            drawn[t] = outlines
    masks = [_mask(outlines, (width, height)) for outlines in drawn.values()]
    labels = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, width, height), np.uint8))
    return scaled[0].permute(3, 0, 1, 2)[None].contiguous(), labels[None, :, None], tuple(drawn)
