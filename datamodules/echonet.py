"""Echocardiograms of 10,030 people with the left ventricle traced in two frames (EchoNet-Dynamic)."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from monai.transforms import ScaleIntensityRanged
from numpy.typing import NDArray
from scipy import ndimage

from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.file_state import kept_while_unchanged
from reg_bench.preprocessing import preprocess
from reg_bench.splits import SPLITS
from reg_bench.survey import Record, Survey
from reg_bench.synthesis import random_generator
from reg_bench.types import ImageSequence, RegistrationPair
from reg_bench.video_io import read_video

Protocol = Literal["traced", "ed-es", "clip", "random"]

_LIST, _TRACINGS, _VIDEOS = "FileList.csv", "VolumeTracings.csv", "Videos"
_LIST_COLUMNS = ("FileName", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split")
_TRACING_COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")
# The long axis and twenty chords.
_USUAL_LINES = 21
# Grey levels (of 255) above which a pixel of the brightest picture belongs to the field of view: what lies outside
# was set to 0 before the JPEG compression, which leaves a few levels of ringing.
_FIELD_LEVEL = 8


class EchoNet(RegistrationDataModule):
    """Echocardiograms (EchoNet-Dynamic): sequences of 50 frames, left ventricle labelled in two of them.

    A clip is `length` consecutive frames, intensities divided by 255, axes x, y, pixel size unknown (distances are in
    pixels). Where two frames are traced, the clip starts at the earlier one and ends with the video if that comes
    first (Paper III fills up and masks instead). The mask is the field of view: pixels brighter than 8 of 255 in any
    frame of the video, without holes.

    `protocol` says which pairs are cases:

    * `traced`: moving the earlier traced frame, fixed the later, as Paper III computes its Dice; a case per video.
    * `ed-es`: moving end-diastole, fixed end-systole, whichever comes first; a case per video. End-diastole is the
      frame with the larger outline.
    * `clip`: moving the first frame of the same clip (the earlier traced one), fixed every other.
    * `random`: a clip that starts anywhere, drawn with the seed, moving its first frame, fixed every other; for
      training. Needs no tracings.

    Videos with fewer than `length` frames are left out, and but for `random` those without two traced frames and those
    whose traced frames do not fit in one clip. The label is the polygon that the authors' code fills: the first line
    of a frame, the long axis, is left out, then the first ends of the chords and their second ends backwards, all
    rounded to whole pixels; a pixel is inside by the even-odd rule or when its centre lies on the outline.

    The survey reads the two tables and the names of the videos; the videos themselves (truncated, other number or size
    of frames than listed) are looked at when a case is loaded, which `reg-bench data check` does.

    Args:
        root: folder with `FileList.csv`, `VolumeTracings.csv` and `Videos`.
        protocol: see above.
        length: frames of a clip.
        exclude: names of videos to leave out, with or without `.avi`.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: an unknown protocol, or a clip of fewer than two frames.
    """

    name: ClassVar[str] = "echonet"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "Stanford EchoNet-Dynamic Research Use Agreement (non-commercial, no redistribution)"
    folder: ClassVar[str] = "EchoNet-Dynamic"
    source: ClassVar[str] = """
        https://echonet.github.io/dynamic (registration and the research use agreement are needed)
        D. Ouyang et al., "Video-based AI for beat-to-beat assessment of cardiac function", Nature 580, 2020
    """
    layout: ClassVar[str] = """
        FileList.csv           FileName, EF, ESV, EDV, FrameHeight, FrameWidth, FPS, NumberOfFrames, Split
        VolumeTracings.csv     FileName, X1, Y1, X2, Y2, Frame (from 0), a line per chord, the long axis first
        Videos/<FileName>.avi  112 x 112 pixels
    """
    splits: ClassVar[str] = (
        "column Split of FileList.csv: TRAIN 7465, VAL 1288, TEST 1277 videos, each taken as a person"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        protocol: Protocol = "traced",
        length: int = 50,
        exclude: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if protocol not in get_args(Protocol):
            raise ConfigError(f"{self.name}: protocol must be one of {', '.join(get_args(Protocol))}, got {protocol!r}")
        if length < 2:
            raise ConfigError(f"{self.name}: length must be at least 2 frames, got {length}")
        if isinstance(exclude, str):
            raise ConfigError(f"{self.name}: exclude must be a list of names, got {exclude!r}")
        self.root, self.protocol, self.length = root, protocol, length
        self.exclude = tuple(sorted({_stem(name) for name in exclude}))

    def load(self, record: Record) -> RegistrationPair:
        return self.sequence(record).pair(int(record["frame"]))

    def sequence(self, record: Record) -> ImageSequence:
        """The clip of `record`, with the labels of its traced frames."""
        first, end = int(record["first"]), int(record["end"])
        video, field_of_view = _read(str(record["video"]))
        expected = (int(record["columns"]), int(record["rows"]))
        if video.shape[1:] != expected:
            found = f"{video.shape[1]} x {video.shape[2]} pixels"
            raise DataError(f"{record['video']}: {found}, expected {expected[0]} x {expected[1]} as {_LIST} says")
        if len(video) < int(record["frames"]):
            raise DataError(f"{record['video']}: {len(video)} frames, expected {record['frames']} as {_LIST} says")
        scale = ScaleIntensityRanged("frames", a_min=0, a_max=255, b_min=0, b_max=1)
        frames = preprocess({"frames": video[first:end].astype(np.float32)}, [scale])["frames"]
        traced = {int(t) - first: outline for t, outline in json.loads(str(record["tracings"])).items()}
        traced = {t: traced[t] for t in sorted(traced) if 0 <= t < end - first}
        labels = [_filled(np.asarray(outline, dtype=np.int64), expected) for outline in traced.values()]
        return ImageSequence(
            case_ids=(str(record["sequence"]),),
            frames=frames.permute(0, 2, 1, 3, 4).contiguous(),
            seconds_per_frame=1 / float(record["frames_per_second"]),
            reference=int(record["reference"]),
            labels=torch.from_numpy(np.stack(labels).astype(np.uint8))[None, :, None] if labels else None,
            labelled_frames=tuple(traced) if labels else None,
            label_names={1: "left ventricle"} if labels else None,
            mask=torch.from_numpy(field_of_view).expand(1, end - first, 1, *expected).contiguous(),
        )

    def look_through(self) -> Survey:
        survey = Survey(self.root_folder())
        assert survey.root is not None
        present = _present(survey.root / _VIDEOS, survey)
        videos = list(_videos(survey.root / _LIST, survey))
        needed = self.protocol != "random" or (survey.root / _TRACINGS).exists()
        traces = _traces(survey.root / _TRACINGS, survey) if needed else {}
        short = 0
        for video in videos:
            survey.count("videos")
            if video.name in self.exclude:
                survey.count("excluded")
                continue
            if present is not None and video.name not in present:
                survey.fault(f"{_VIDEOS}/{video.name}.avi", f"missing, {_LIST}, line {video.line} names it")
                continue
            outlines = _outlines(video, traces.get(video.name, {}), survey)
            if video.frames < self.length:
                short += 1
            elif outlines is not None and self._usable(video, outlines, survey):
                survey.records[video.split] += self._cases(video, outlines, survey)
        if short:
            survey.count("too short", short)
            survey.note(_LIST, f"{short} videos with fewer than {self.length} frames are left out")
        _note_strays(survey, {v.name for v in videos}, present or set(), traces, self.exclude)
        return survey

    def _usable(self, video: _Video, outlines: dict[int, _Outline], survey: Survey) -> bool:
        """Whether the protocol can use the tracings of a video; notes why not."""
        if self.protocol == "random":
            return True
        file = f"{_VIDEOS}/{video.name}.avi"
        if len(outlines) < 2:
            survey.count("without two traced frames")
            found = "".join(f"frame {t} (line {o.line})" for t, o in outlines.items()) or "none"
            survey.note(file, f"traced frames in {_TRACINGS}: {found}, two are needed; left out")
            return False
        apart = max(outlines) - min(outlines)
        if apart >= self.length:
            survey.count("traced frames too far apart")
            survey.note(file, f"its traced frames are {apart} frames apart, a clip has {self.length}; left out")
            return False
        return True

    def _cases(self, video: _Video, outlines: dict[int, _Outline], survey: Survey) -> list[Record]:
        assert survey.root is not None
        traced = sorted(outlines)
        if self.protocol == "random":
            generator = random_generator(self.name, video.name, self.seed)
            first = int(generator.integers(0, video.frames - self.length, endpoint=True))
        else:
            first = traced[0]
        end = min(first + self.length, video.frames)
        reference, fixed = 0, list(range(1, end - first))
        if self.protocol in ("traced", "ed-es"):
            # All but the earliest and the latest traced frame only lend their labels to the sequence.
            fixed = [traced[-1] - first]
            if self.protocol == "ed-es" and outlines[traced[-1]].area > outlines[traced[0]].area:
                reference, fixed = fixed[0], [0]
        shared = {
            "subjects": [video.name],
            "sequence": video.name,
            "video": str(survey.root / _VIDEOS / f"{video.name}.avi"),
            "frames": video.frames,
            "columns": video.columns,
            "rows": video.rows,
            "frames_per_second": video.frames_per_second,
            "first": first,
            "end": end,
            "reference": reference,
            # In the record, so that a corrected tracing changes checksum and cache of its video.
            "tracings": json.dumps({t: outlines[t].points for t in traced}, separators=(",", ":")),
        }
        return [{"case_id": f"{video.name}/{t:03d}", "frame": t, **shared} for t in fixed]


@dataclass(frozen=True)
class _Video:
    """A line of the list of videos."""

    name: str
    split: str
    frames: int
    columns: int
    rows: int
    frames_per_second: float
    line: int


@dataclass(frozen=True)
class _Trace:
    """What is traced in one frame: the line where it begins, and (x1, y1, x2, y2) of each line."""

    line: int
    chords: list[tuple[float, float, float, float]]


@dataclass(frozen=True)
class _Outline:
    """The polygon of a traced frame in whole pixels."""

    line: int
    points: list[list[int]]
    area: float


def _stem(name: str) -> str:
    """The name without `.avi`: the list has it without, the tracings with it, early copies the other way round."""
    name = name.strip()
    return name[:-4] if name.lower().endswith(".avi") else name


def _present(folder: Path, survey: Survey) -> set[str] | None:
    if not folder.is_dir():
        survey.fault(folder, "no such folder; expected the videos")
        return None
    return {entry.name[:-4] for entry in os.scandir(folder) if entry.name.endswith(".avi")}


def _table(path: Path, columns: Sequence[str], survey: Survey) -> Iterator[tuple[int, list[str]]]:
    """Line number and the values of `columns` for every line; complains of what is no such table."""
    if not path.is_file():
        survey.fault(path, "no such file")
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            absent = [c for c in columns if c not in header]
            if absent:
                survey.fault(path, f"no column {', '.join(absent)}; found {', '.join(header)[:200] or 'an empty file'}")
                return
            chosen = [header.index(c) for c in columns]
            for row in reader:
                if len(row) == len(header):
                    yield reader.line_num, [row[i] for i in chosen]
                elif row:
                    survey.fault(path, f"line {reader.line_num}: {len(row)} values, expected {len(header)}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        survey.fault(path, f"not a readable CSV ({error})")


def _videos(path: Path, survey: Survey) -> Iterator[_Video]:
    """The lines of the list that can be used."""
    lines: dict[str, int] = {}
    for line, (name, rows, columns, rate, frames, split) in _table(path, _LIST_COLUMNS, survey):
        name = _stem(name)
        problems = []
        if not name:
            problems.append("FileName is empty")
        elif name in lines:
            problems.append(f"{name} stands in line {lines[name]} already")
        if split.strip().lower() not in SPLITS:
            problems.append(f"Split must be TRAIN, VAL or TEST, got {split!r}")
        numbers = {}
        for what, text in (("FrameHeight", rows), ("FrameWidth", columns), ("NumberOfFrames", frames)):
            numbers[what] = _whole(text)
            if not numbers[what]:
                problems.append(f"{what} must be a positive whole number, got {text!r}")
        if not 0 < (seen := _number(rate)) < math.inf:
            problems.append(f"FPS must be a positive number, got {rate!r}")
        lines.setdefault(name, line)
        for problem in problems:
            survey.fault(path, f"line {line}: {problem}")
        if not problems:
            size = numbers["FrameWidth"], numbers["FrameHeight"]
            yield _Video(name, split.strip().lower(), numbers["NumberOfFrames"], *size, seen, line)


def _traces(path: Path, survey: Survey) -> dict[str, dict[int, _Trace]]:
    """What is traced, by video and frame."""
    traces: dict[str, dict[int, _Trace]] = {}
    name, of_video = "", {}
    # Some 425,000 lines: a video's stand together, and numbers are looked at closely only when they are none.
    for line, (named, *ends, number) in _table(path, _TRACING_COLUMNS, survey):
        if named != name:
            name, of_video = named, traces.setdefault(_stem(named), {})
        try:
            x1, y1, x2, y2 = map(float, ends)
        except ValueError:
            x1 = y1 = x2 = y2 = math.nan
        frame = int(number) if number.isdecimal() else _whole(number)
        if not math.isfinite(x1 + y1 + x2 + y2):
            survey.fault(path, f"line {line} ({name}): X1, Y1, X2, Y2 must be numbers, got {', '.join(ends)}")
        elif frame is None:
            survey.fault(path, f"line {line} ({name}): Frame must be a whole number from 0, got {number!r}")
        elif frame in of_video:
            of_video[frame].chords.append((x1, y1, x2, y2))
        else:
            of_video[frame] = _Trace(line, [(x1, y1, x2, y2)])
    return {name: of_video for name, of_video in traces.items() if of_video}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str) -> int | None:
    """A whole number from 0, also when written as 174.0."""
    value = _number(text)
    return int(value) if value >= 0 and value.is_integer() else None


def _outlines(video: _Video, traces: dict[int, _Trace], survey: Survey) -> dict[int, _Outline] | None:
    """The polygon of each traced frame in order of time; `None` after a fault."""
    found: dict[int, _Outline] = {}
    size, sound = np.array([video.columns, video.rows]), True
    for frame, trace in sorted(traces.items()):
        # The first line is the long axis.
        ends = np.rint(np.asarray(trace.chords[1:], dtype=np.float64).reshape(-1, 4)).astype(np.int64)
        points = np.concatenate((ends[:, :2], ends[::-1, 2:]))
        (x, y), (x1, y1) = points.T, np.concatenate((points[1:], points[:1])).T
        area = abs(float((x * y1 - y * x1).sum())) / 2
        problem = ""
        if frame >= video.frames:
            problem = f"the video has {video.frames} frames, the last is {video.frames - 1}"
        elif area == 0:
            problem = f"its {len(trace.chords)} lines enclose nothing, expected the long axis and at least two chords"
        elif bool(((points < -size) | (points > 2 * size)).any()):
            problem = f"points far outside the image of {video.columns} x {video.rows} pixels"
        elif bool((points.max(0) < 0).any() or (points.min(0) >= size).any()):
            problem = f"the outline lies outside the image of {video.columns} x {video.rows} pixels"
        if problem:
            survey.fault(_TRACINGS, f"line {trace.line}: frame {frame} of {video.name}: {problem}")
            sound = False
        else:
            survey.count("traced frames")
            if len(trace.chords) != _USUAL_LINES:
                survey.count(f"frames traced by other than {_USUAL_LINES} lines")
            found[frame] = _Outline(trace.line, points.tolist(), area)
    return found if sound else None


def _note_strays(
    survey: Survey, listed: set[str], present: set[str], traces: dict[str, dict[int, _Trace]], exclude: Sequence[str]
) -> None:
    """What one of the three sources has and the list has not; none of it is used."""
    if not listed:
        return
    for name in sorted(present - listed):
        survey.note(f"{_VIDEOS}/{name}.avi", f"not in {_LIST}; not used")
    for name, frames in traces.items():
        if name not in listed:
            line = next(iter(frames.values())).line
            survey.note(_TRACINGS, f"line {line}: {name} is not in {_LIST}; its tracings are not used")
    unknown = [name for name in exclude if name not in listed]
    if unknown:
        survey.note(_LIST, f"{len(unknown)} names of `exclude` are not listed, first {unknown[0]}")


@kept_while_unchanged(2)
def _read(path: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All frames `(T, x, y)` and the field of view `(x, y)`; kept, because every pair of a clip needs them."""
    video = np.ascontiguousarray(read_video(path).swapaxes(1, 2))
    return video, np.asarray(ndimage.binary_fill_holes(video.max(axis=0) > _FIELD_LEVEL))


def _filled(corners: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels `(x, y)` inside a polygon by the even-odd rule or on its outline; exact, its corners are whole numbers."""
    x, y = np.indices(shape)
    inside, outline = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        between = (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1))
        outline |= (side == 0) & between
        # Does the ray towards larger x cross this edge? Its lower end belongs to it, its upper end does not.
        inside ^= ((y0 > y) != (y1 > y)) & ((side > 0) == (y1 > y0))
    return inside | outline
