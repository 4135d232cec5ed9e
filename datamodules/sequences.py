"""Any folder of image sequences, through a CSV."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from reg_bench.datamodule import Record, RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import file_state
from reg_bench.preprocessing import geometry, preprocess, scale_intensity
from reg_bench.sequence_io import Series, open_series, read_frames, read_maps
from reg_bench.sequence_points import read_tracks
from reg_bench.sequence_table import SequenceRow, check_grid, label_frames, read_sequence_table
from reg_bench.survey import Survey
from reg_bench.types import ImageSequence, PointPairs, RegistrationPair

# Entries of a record that differ between the frames of one sequence.
_OF_A_FRAME = ("case_id", "frame")


class Sequences(RegistrationDataModule):
    """Your own sequences: a CSV with the column sequence and, as far as known, labels, points, mask, reference.

    One case for every frame but the reference: fixed is the frame, moving the reference. File names are relative
    to the CSV. Only `sequence` is required; empty cells count as absent:

    * `sequence`: a 4-D NIfTI `(x, y, z, t)`, 2-D frames as `(x, y, 1, t)`; a folder with one NIfTI, MHA, NRRD, PNG or
      single-frame DICOM for each frame, in natural order of the names; a video such as AVI (extra `data`); a DICOM
      file with several frames. Colour becomes luminance; rows and columns become y and x.
    * `labels`: whole numbers, 0 is background: a 4-D image with all frames (or just those of `labelled_frames`), a
      single image if one frame is listed, or a folder of images whose names end with the frame number: that of the
      frame's own file where `sequence` is a folder of numbered files, else counted from 0. Frames that are
      all background do not count as labelled unless `labelled_frames` lists them.
    * `labelled_frames`: which frames have labels, such as `0 11` or `0-19`.
    * `points`: a CSV with the header `frame,point,x,y[,z]` in voxels, or a folder with a file of points (see
      `reg_bench.points_io`) for some frames, numbered as labels, row by row the same points. The reference must have
      every point; other frames may lack some.
    * `mask`: tissue in which errors count: one image for all frames, or as many frames as the sequence.
    * `reference`: frame number, 0 if empty. Frame numbers count from 0 throughout.
    * `seconds_per_frame`: needed where the file does not tell; a number here overrides the file.
    * `spacing_mm`: one number or one for each axis, such as `0.8 0.8`; overrides the file. Without it, pictures and
      videos have no spacing, and distances are in voxels.
    * `case_id`: unique; the part before the first slash is the subject. By default the name of the file or folder.
    * `split`: `train`, `val` or `test` (default).

    Headers, names and points of every file are checked before work begins, and all faults are listed with the line;
    faults of voxels fail the cases concerned when they are loaded.

    Args:
        csv: the table.
        root: folder that a relative `csv` lies in; the current one if not given.
        frames: which frames are cases: `k` for every k-th, counted from the reference; a list for those frames. The
            reference is never one. All others if not given.
        percentile: scale to 0..1 between the minimum and this percentile, such as 99.5, of the whole sequence, so
            that brightness stays comparable over time; intensities stay as stored if not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: `frames` that cannot be.
        DataError: `percentile` outside 0..100.
    """

    name: ClassVar[str] = "sequences"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    source: ClassVar[str] = "your own files"
    layout: ClassVar[str] = "a CSV, given as --data csv=FILE, and the files that it names"
    splits: ClassVar[str] = "the column split of the CSV; test where it is empty"

    def __init__(
        self,
        csv: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        frames: int | list[int] | None = None,
        percentile: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if percentile is not None and not 0 < percentile <= 100:
            raise DataError(f"{self.name}: percentile must lie in 0..100, got {percentile}")
        wrong = frames < 1 if isinstance(frames, int) else frames is not None and (not frames or min(frames) < 0)
        if wrong:
            raise ConfigError(f"{self.name}: frames must be a stride of at least 1 or a list of frames, got {frames}")
        self.csv = os.path.abspath(csv if root is None else Path(root) / csv)
        self.root, self.frames, self.percentile = root, frames, percentile

    def look_through(self) -> Survey:
        path, survey = Path(self.csv), Survey()
        if not path.is_file():
            missing = f"{self.name}: {path}: no such table of sequences; name one by csv"
            raise DataError("\n  ".join([missing, *self.about()]))
        try:
            table = read_sequence_table(path)
        except DataError as error:
            survey.fault("", str(error))
            return survey
        for line, text in table.notes:
            survey.note(f"{path}, line {line}", text)
        for line, text in table.faults:
            survey.fault(f"{path}, line {line}", text)
        for row in table.rows:
            survey.count("sequences")
            survey.count("sequence frames", row.series.length)
            shared = self._shared(row)
            for frame in self._frames_of(row, survey):
                case = {"case_id": f"{row.case_id}/{frame:03d}", "frame": frame}
                survey.records[row.split].append({**case, **shared})
        return survey

    def _frames_of(self, row: SequenceRow, survey: Survey) -> list[int]:
        """The frames of a sequence that are cases."""
        length, where = row.series.length, f"{self.csv}, line {row.line}"
        if isinstance(self.frames, list | tuple):
            beyond = [t for t in self.frames if t >= length]
            if beyond:
                survey.fault(where, f"frames: {beyond[0]}, expected 0..{length - 1} for {row.series.path}")
            chosen = sorted(set(self.frames) - set(beyond))
        else:
            stride = self.frames or 1
            chosen = [t for t in range(length) if (t - row.reference) % stride == 0]
        cases = [t for t in chosen if t != row.reference]
        if not cases:
            survey.note(where, f"frames: {self.frames} leaves no case of {row.series.path} of {length} frames")
        return cases

    def _shared(self, row: SequenceRow) -> dict[str, Any]:
        """What the records of all frames of a sequence have in common."""
        return {
            "subjects": [row.case_id.split("/")[0]],
            "sequence": row.case_id,
            "where": f"{Path(self.csv).name}, line {row.line}",
            # The path of the sequence itself is `images`: `sequence` is its identifier in every dataset.
            **{"images" if column == "sequence" else column: str(path) for column, path in row.files.items()},
            # The disk cache and `sequence` see by these when a file in a folder has changed.
            "files": [str(p) for f in row.files.values() for p in (sorted(f.iterdir()) if f.is_dir() else [f])],
            "reference": row.reference,
            "seconds_per_frame": row.seconds_per_frame,
            "spacing_mm": " ".join(map(repr, row.spacing_mm)),
            "labelled_frames": " ".join(map(str, row.labelled_frames)),
        }

    def load(self, record: Record) -> RegistrationPair:
        pair = self.sequence(record).pair(int(record["frame"]))
        for role, frame in (("fixed", int(record["frame"])), ("moving", int(record["reference"]))):
            image = getattr(pair, role)
            if float(image.min()) == float(image.max()):
                raise DataError(
                    f"{record['where']}: {record['images']}: frame {frame} is constant, every voxel is "
                    f"{float(image.min()):g}; there is nothing to register"
                )
        return replace(pair, points=_given(pair.points))

    def sequence(self, record: Record) -> ImageSequence:
        """All frames of the sequence of `record`; points are NaN in the frames that lack them."""
        shared = {key: value for key, value in record.items() if key not in _OF_A_FRAME}
        state = [file_state(path) for path in record["files"]]
        try:
            return _sequence(json.dumps(shared, sort_keys=True), json.dumps(state), self.percentile)
        except DataError as error:
            raise DataError(f"{record['where']}: {error}") from error


@functools.lru_cache(maxsize=2)
def _sequence(shared: str, state: str, percentile: float | None) -> ImageSequence:
    """The sequence of a record; kept, because every frame of it is a case. `state` tells when files change."""
    record = json.loads(shared)
    series = open_series(Path(record["images"]))
    if record["spacing_mm"]:
        series = series.with_spacing([float(s) for s in record["spacing_mm"].split()])
    frames = read_frames(series)
    if percentile is not None:
        # (t, x, y, ...) is scaled as one image, so that all frames share one scale.
        scaled = preprocess({"image": frames}, [scale_intensity("image", upper=percentile)])["image"][0, 0]
    else:
        scaled = torch.from_numpy(frames)
    labels, labelled = _labels(record, series)
    spacing_mm, affine = geometry(series.grid) if series.spacing_known else (None, None)
    points = None
    if "points" in record:
        points = {"landmarks": (torch.from_numpy(read_tracks(Path(record["points"]), series, record["reference"])),)}
    return ImageSequence(
        case_ids=(record["sequence"],),
        frames=scaled[None, :, None],
        seconds_per_frame=record["seconds_per_frame"],
        reference=record["reference"],
        spacing_mm=spacing_mm,
        affine=affine,
        labels=None if labels is None else torch.from_numpy(labels)[None, :, None],
        labelled_frames=labelled,
        points=points,
        mask=_mask(record, series),
    )


def _labels(record: Mapping[str, Any], series: Series) -> tuple[NDArray[np.int32] | None, tuple[int, ...] | None]:
    """Maps and frames of those that carry labels."""
    if "labels" not in record:
        return None, None
    source = open_series(Path(record["labels"]), maps=True)
    check_grid(source, series)
    listed = tuple(int(t) for t in record["labelled_frames"].split())
    frames, maps = label_frames(source, series, listed), read_maps(source)
    if not maps.any():
        raise DataError(f"{source.path}: holds no label, every voxel is 0 (background)")
    kept = sorted(
        (i for i, t in enumerate(frames) if (t in listed if listed else maps[i].any())), key=lambda i: frames[i]
    )
    labelled = tuple(frames[i] for i in kept)
    if record["reference"] not in labelled:
        raise DataError(
            f"{source.path}: all background in the reference frame {record['reference']}, so that nothing could be "
            f"compared; expected a reference among the labelled frames {', '.join(map(str, labelled[:9]))}"
        )
    return maps[kept], labelled


def _mask(record: Mapping[str, Any], series: Series) -> torch.Tensor | None:
    if "mask" not in record:
        return None
    source = open_series(Path(record["mask"]), maps=True)
    check_grid(source, series)
    mask = read_maps(source) != 0
    empty = [t for t in range(len(mask)) if not mask[t].any()]
    if empty:
        raise DataError(f"{source.path}: an empty mask" + (f" in frame {empty[0]}" if len(mask) > 1 else ""))
    return torch.from_numpy(mask).expand(series.length, *mask.shape[1:])[None, :, None].contiguous()


def _given(points: Mapping[str, PointPairs] | None) -> dict[str, PointPairs] | None:
    """Only the points that the frame has."""
    sets: dict[str, PointPairs] = {}
    for name, pairs in (points or {}).items():
        there = ~(pairs.fixed[0].isnan().any(dim=1) | pairs.moving[0].isnan().any(dim=1))
        if bool(there.any()):
            sets[name] = PointPairs((pairs.fixed[0][there],), (pairs.moving[0][there],))
    return sets or None
