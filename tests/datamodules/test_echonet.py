"""EchoNet-Dynamic on a small twin in its own format: every case is what was put in, every fault is named."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from datamodules import echonet
from datamodules.echonet import EchoNet
from reg_bench.cli import main
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError, DataError, MissingExtraError
from reg_bench.inspection import Inspection, inspect
from reg_bench.results import read_rows
from reg_bench.video_io import write_video

SIZE = 112
PERIOD = 40
# Grey levels that JPEG at its best quality may change, of 255.
QUANTISATION = 8
TRACING_HEADER = "FileName,X1,Y1,X2,Y2,Frame"
LIST_HEADER = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"

# Name, split, frames, rate, traced frames (end-systole first, as in the original).
VIDEOS = [
    ("0X100009310A3BD7FC", "VAL", 60, 50, (22, 2)),
    ("0X1002E8FBACD08477", "TRAIN", 60, 50, (20, 40)),
    ("0X1005D03EED19C65B", "TRAIN", 64, 30, (25, 1)),
    ("0X10075961BC11C88E", "TEST", 60, 51, (24, 4)),
    ("0X10094BA0A028EAC3", "TEST", 70, 50, (40, 58)),
]
# Those that the protocols with tracings leave out.
SHORT = ("0X10AAAAAAAAAAAAAA", "TRAIN", 49, 50, (20, 40))
UNTRACED = ("0X10BBBBBBBBBBBBBB", "TRAIN", 60, 50, ())
SINGLE = ("0X10CCCCCCCCCCCCCC", "VAL", 60, 50, (7,))
FAR = ("0X10DDDDDDDDDDDDDD", "TEST", 75, 50, (20, 70))


def axes(frame: int) -> tuple[float, float, float, float]:
    """Centre and half axes of the ventricle, largest in frames 0, 40, ..."""
    beat = np.cos(2 * np.pi * frame / PERIOD)
    return 56.3 + beat, 52.6, 16 + 4 * beat, 27 + 3 * beat


def cone() -> NDArray[np.bool_]:
    """Where the scanner looks, `(rows, columns)`."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return (np.abs(x - 56) < 4 + 0.55 * y) & (np.hypot(x - 56, y) < 108)


def pictures(frames: int, seed: int = 0) -> NDArray[np.uint8]:
    """A dark ventricle in bright speckle, black outside the cone."""
    y, x = np.mgrid[:SIZE, :SIZE]
    speckle = 110 + 40 * np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE)).cumsum(0) / np.sqrt(y + 1)
    made = []
    for t in range(frames):
        cx, cy, a, b = axes(t)
        depth = np.hypot((x - cx) / a, (y - cy) / b)
        made.append(np.clip(speckle, 30, 240) * np.clip(3 * (depth - 0.9), 0.1, 1) * cone())
    return np.stack(made).round().astype(np.uint8)


def chords(frame: int) -> NDArray[np.float64]:
    """The long axis, then twenty chords from apex to base: x1, y1, x2, y2."""
    cx, cy, a, b = axes(frame)
    heights = np.linspace(-0.97, 0.97, 20)
    widths = a * np.sqrt(1 - heights**2)
    rows = np.stack((cx - widths, cy + b * heights, cx + widths, cy + b * heights), axis=1)
    return np.concatenate(([[cx, cy - b, cx, cy + b]], rows))


def list_line(video: tuple[str, str, int, float, tuple[int, ...]]) -> str:
    name, split, frames, rate, _ = video
    return f"{name},55.1,40.2,90.3,{SIZE},{SIZE},{rate},{frames},{split}"


def tracing_lines(name: str, traced: tuple[int, ...]) -> list[str]:
    return [f"{name}.avi," + ",".join(f"{v:.6f}" for v in row) + f",{t}" for t in traced for row in chords(t)]


def write_twin(root: Path, videos: list[Any]) -> Path:
    (root / "Videos").mkdir(parents=True)
    tracings = [TRACING_HEADER]
    for number, (name, _, frames, rate, traced) in enumerate(videos):
        write_video(root / "Videos" / f"{name}.avi", pictures(frames, number), rate)
        tracings += tracing_lines(name, traced)
    (root / "FileList.csv").write_text("\n".join([LIST_HEADER, *map(list_line, videos)]) + "\n")
    (root / "VolumeTracings.csv").write_text("\n".join(tracings) + "\n")
    return root


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound videos only; read, never written."""
    return write_twin(tmp_path_factory.mktemp("echonet") / "EchoNet-Dynamic", VIDEOS)


@pytest.fixture(scope="module")
def odd_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the oddities of the original; read, never written."""
    return write_twin(tmp_path_factory.mktemp("odd") / "echo", [*VIDEOS, SHORT, UNTRACED, SINGLE, FAR])


@pytest.fixture
def copy(twin: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(twin, tmp_path / "copy"))


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def ids(data: EchoNet) -> dict[str, list[str]]:
    return {split: [str(r["case_id"]) for r in data.records(split)] for split in ("train", "val", "test")}  # type: ignore[arg-type]


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def ellipse(frame: int) -> NDArray[np.bool_]:
    """The ventricle as `(x, y)`."""
    x, y = np.indices((SIZE, SIZE))
    cx, cy, a, b = axes(frame)
    return np.asarray(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1)


# What is read is what was written.


def test_traced_pairs(twin: Path) -> None:
    data = EchoNet(root=twin)
    assert ids(data) == {
        "train": ["0X1002E8FBACD08477/020", "0X1005D03EED19C65B/024"],
        "val": ["0X100009310A3BD7FC/020"],
        "test": ["0X10075961BC11C88E/020", "0X10094BA0A028EAC3/018"],
    }
    for number, (name, split, frames, _, traced) in enumerate(VIDEOS):
        [record] = [r for r in data.records(split.lower()) if r["sequence"] == name]  # type: ignore[arg-type]
        pair, written = data.load(record), pictures(frames, number).swapaxes(1, 2)
        assert pair.case_ids == (record["case_id"],)
        assert pair.frames == (max(traced) - min(traced),)
        assert pair.fixed_spacing_mm is None
        assert pair.label_names == {1: "left ventricle"}
        for image, labels, t in (
            (pair.moving, pair.moving_labels, min(traced)),
            (pair.fixed, pair.fixed_labels, max(traced)),
        ):
            assert labels is not None
            assert type(image) is torch.Tensor
            assert image.dtype == torch.float32
            assert image.shape == labels.shape == (1, 1, SIZE, SIZE)
            assert np.abs(255 * image[0, 0].numpy() - written[t]).max() <= QUANTISATION
            assert dice(labels[0, 0].numpy() == 1, ellipse(t)) > 0.97
        assert pair.mask is not None
        assert dice(pair.mask[0, 0].numpy(), cone().T) > 0.99


def test_end_diastole_is_the_larger_frame(twin: Path) -> None:
    data = EchoNet(root=twin, protocol="ed-es")
    # Frame numbers within clips that begin at the earlier traced frame; diastole (the second) may be the later.
    assert ids(data)["train"] == ["0X1002E8FBACD08477/000", "0X1005D03EED19C65B/024"]
    assert ids(data)["test"] == ["0X10075961BC11C88E/020", "0X10094BA0A028EAC3/018"]
    first, second = (data.sequence(r) for r in data.records("train"))
    assert (first.reference, second.reference) == (20, 0)
    other = EchoNet(root=twin)
    pair, early = data.load(data.records("train")[0]), other.load(other.records("train")[0])
    assert torch.equal(pair.moving, first.frames[:, 20])
    assert torch.equal(pair.fixed, early.moving)
    for record in data.records("train"):
        pair = data.load(record)
        assert pair.moving_labels is not None
        assert pair.fixed_labels is not None
        assert pair.moving_labels.sum() > 1.3 * pair.fixed_labels.sum()


def test_clips_hold_every_frame_and_end_with_the_video(twin: Path) -> None:
    data = EchoNet(root=twin, protocol="clip")
    [record] = data.sequence_records("val")
    clip = data.sequence(record)
    # From frame 2 to 51 of 60.
    assert clip.frames.shape == (1, 50, 1, SIZE, SIZE)
    assert clip.labelled_frames == (0, 20)
    assert clip.seconds_per_frame == pytest.approx(1 / 50)
    assert clip.reference == 0
    assert clip.mask is not None
    assert clip.mask.shape == clip.frames.shape
    written = pictures(60, 0)[2:52].swapaxes(1, 2)
    assert np.abs(255 * clip.frames[0, :, 0].numpy() - written).max() <= QUANTISATION
    assert ids(data)["val"] == [f"0X100009310A3BD7FC/{t:03d}" for t in range(1, 50)]
    labelled = data.load(data.records("val")[19])
    assert labelled.fixed_labels is not None
    assert torch.equal(labelled.fixed, clip.frames[:, 20])
    assert torch.equal(labelled.moving, clip.frames[:, 0])
    assert data.load(data.records("val")[18]).fixed_labels is None
    # From frame 40 of 70.
    assert [data.sequence(r).length for r in data.sequence_records("test")] == [50, 30]


def test_random_clips(odd_twin: Path) -> None:
    data, again = (EchoNet(root=odd_twin, protocol="random", length=30) for _ in range(2))
    other = EchoNet(root=odd_twin, protocol="random", length=30, seed=1)
    clips = data.sequence_records("train")
    # The untraced and the short video serve as well.
    assert [r["sequence"] for r in clips] == [v[0] for v in (*VIDEOS[1:3], SHORT, UNTRACED)]
    assert clips == again.sequence_records("train")
    assert [r["first"] for r in clips] != [r["first"] for r in other.sequence_records("train")]
    for record in (*clips, *other.sequence_records("test")):
        assert 0 <= record["first"] <= record["frames"] - 30
        assert record["end"] - record["first"] == 30
    clip = data.sequence(clips[0])
    traced = [t - clips[0]["first"] for t in (20, 40)]
    assert clip.labelled_frames == tuple(t for t in traced if 0 <= t < 30)
    assert data.sequence(clips[-1]).labels is None
    assert data.load(data.records("train")[0]).frames == (1,)
    starts = {
        EchoNet(root=odd_twin, protocol="random", length=59, seed=s).records("val")[0]["first"] for s in range(12)
    }
    assert starts == {0, 1}


def test_names_with_and_without_extension(twin: Path, copy: Path) -> None:
    tables = [copy / "FileList.csv", copy / "VolumeTracings.csv"]
    for name, *_ in VIDEOS:
        edit(tables[0], f"{name},", f"{name}.avi,")
        tables[1].write_text(tables[1].read_text().replace(f"{name}.avi,", f"{name},"))
    assert ids(EchoNet(root=copy)) == ids(EchoNet(root=twin))
    assert inspect(EchoNet(root=copy)).loaded == len(VIDEOS)


def test_a_table_saved_by_a_spreadsheet(copy: Path) -> None:
    path = copy / "FileList.csv"
    text = path.read_text().replace(",TEST", ",test").replace(",60,", ",60.0,")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    assert inspect(EchoNet(root=copy)).loaded == len(VIDEOS)


def test_oddities_are_noted_and_counted(odd_twin: Path) -> None:
    shutil.copy(odd_twin / "Videos" / f"{SHORT[0]}.avi", odd_twin / "Videos" / "0X10EEEEEEEEEEEEEE.avi")
    data = EchoNet(root=odd_twin, exclude=["0X1002E8FBACD08477.avi", "0XNOBODY"])
    assert [len(data.records(s)) for s in ("train", "val", "test")] == [1, 1, 2]  # type: ignore[arg-type]
    assert data.survey().counts == {
        "videos": 9,
        "excluded": 1,
        "traced frames": 13,
        "without two traced frames": 2,
        "traced frames too far apart": 1,
        "too short": 1,
    }
    assert [str(f) for f in data.survey().findings] == [
        "Videos/0X10BBBBBBBBBBBBBB.avi: traced frames in VolumeTracings.csv: none, two are needed; left out",
        "Videos/0X10CCCCCCCCCCCCCC.avi: traced frames in VolumeTracings.csv: frame 7 (line 254), two are needed; "
        "left out",
        "Videos/0X10DDDDDDDDDDDDDD.avi: its traced frames are 50 frames apart, a clip has 50; left out",
        "FileList.csv: 1 videos with fewer than 50 frames are left out",
        "Videos/0X10EEEEEEEEEEEEEE.avi: not in FileList.csv; not used",
        "FileList.csv: 1 names of `exclude` are not listed, first 0XNOBODY",
    ]
    assert not data.survey().faults
    # One frame more, and the distant pair fits.
    assert len(EchoNet(root=odd_twin, length=51).records("test")) == 3


def test_checksum_follows_the_tracings_and_not_the_folder(twin: Path, copy: Path) -> None:
    before = EchoNet(root=twin).checksum()
    assert EchoNet(root=copy).checksum() == before
    lines = (copy / "VolumeTracings.csv").read_text().splitlines()
    moved = next(i for i, line in enumerate(lines) if line.startswith("0X10075961BC11C88E")) + 9
    values = lines[moved].split(",")
    lines[moved] = ",".join([values[0], f"{float(values[1]) + 3:.6f}", *values[2:]])
    (copy / "VolumeTracings.csv").write_text("\n".join(lines) + "\n")
    assert EchoNet(root=copy).checksum() != before


def test_disk_cache_gives_the_same_pair(twin: Path, tmp_path: Path) -> None:
    data = EchoNet(root=twin, cache="disk", cache_dir=str(tmp_path))
    for _ in range(2):
        pair = data.dataset("val")[0]
        assert torch.equal(pair.fixed, data.load(data.records("val")[0]).fixed)
        assert pair.mask.dtype == torch.bool
    assert len(list(tmp_path.glob("*.pt"))) == 1


# The polygon.


def drawing(text: str) -> NDArray[np.bool_]:
    """Lines of text as `(x, y)`."""
    return np.array([[c == "#" for c in line.strip()] for line in text.strip().splitlines()]).T


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([(1, 1), (4, 1), (4, 3), (1, 3)], "...... \n .####. \n .####. \n .####. \n ......"),
        # Concave: a notch from above.
        ([(0, 0), (2, 2), (4, 0), (4, 3), (0, 3)], "#...#. \n ##.##. \n #####. \n #####. \n ......"),
        # Beyond the border.
        ([(-3, 2), (9, 2), (9, 9), (-3, 9)], "...... \n ...... \n ###### \n ###### \n ######"),
        # Self-crossing: two triangles that meet in (2, 2).
        ([(0, 0), (4, 0), (0, 4), (4, 4)], "#####. \n .###.. \n ..#... \n .###.. \n #####."),
        # Two squares, the inner one twice enclosed: even-odd leaves a hole, its outline belongs.
        ([(0, 0), (5, 0), (5, 4), (0, 4), (0, 0), (1, 1), (4, 1), (4, 3), (1, 3), (1, 1)],
         "###### \n ###### \n ##..## \n ###### \n ######"),
    ],
)  # fmt: skip
def test_polygons_by_hand(corners: list[tuple[int, int]], expected: str) -> None:
    for turned in (corners, corners[::-1], corners[2:] + corners[:2]):
        filled = echonet._filled(np.array(turned), (6, 5))
        assert np.array_equal(filled, drawing(expected)) or turned is not corners, filled.T
    assert np.array_equal(echonet._filled(np.array(corners[::-1]), (6, 5)), drawing(expected))


def enclosed(corners: list[list[int]], x: int, y: int) -> bool:
    """The same rule with a ray upwards and exact fractions, a pixel at a time."""
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if x0 == x1:
            if x == x0 and min(y0, y1) <= y <= max(y0, y1):
                return True
            continue
        height = y0 + Fraction((y1 - y0) * (x - x0), x1 - x0)
        if min(x0, x1) <= x <= max(x0, x1) and height == y:
            return True
        if (x0 <= x) != (x1 <= x) and height > y:
            inside = not inside
    return inside


def test_polygons_against_exact_arithmetic() -> None:
    generator = np.random.default_rng(3)
    for count in (3, 4, 5, 8, 13):
        corners = generator.integers(-4, 20, (count, 2))
        filled = echonet._filled(corners, (16, 14))
        expected = [[enclosed(corners.tolist(), x, y) for y in range(14)] for x in range(16)]
        assert np.array_equal(filled, np.array(expected)), corners


def test_the_long_axis_is_no_part_of_the_outline(copy: Path) -> None:
    pair = EchoNet(root=copy).load(EchoNet(root=copy).records("val")[0])
    lines = (copy / "VolumeTracings.csv").read_text().splitlines()
    lines[1] = "0X100009310A3BD7FC.avi,0,0,111,111,22"
    (copy / "VolumeTracings.csv").write_text("\n".join(lines) + "\n")
    changed = EchoNet(root=copy).load(EchoNet(root=copy).records("val")[0])
    assert torch.equal(pair.fixed_labels, changed.fixed_labels)  # type: ignore[arg-type]


# Faults.


def truncate(folder: Path) -> None:
    path = folder / "Videos" / "0X10075961BC11C88E.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shorten(folder: Path) -> None:
    write_video(folder / "Videos" / "0X1002E8FBACD08477.avi", pictures(55), 50)


def enlarge(folder: Path) -> None:
    write_video(folder / "Videos" / "0X1005D03EED19C65B.avi", np.repeat(pictures(64), 2, axis=2), 50)


def blacken(folder: Path) -> None:
    write_video(folder / "Videos" / "0X100009310A3BD7FC.avi", np.zeros((60, SIZE, SIZE), np.uint8), 50)


def in_list(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "FileList.csv", old, new)


def in_tracings(line: int, column: int | None, value: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "VolumeTracings.csv"
        lines = path.read_text().splitlines()
        values = lines[line - 1].split(",")
        if column is None:
            values = value.split(",")
        else:
            values[column] = value
        lines[line - 1] = ",".join(values)
        path.write_text("\n".join(lines) + "\n")

    return change


def beyond(folder: Path) -> None:
    """The later frame of the second video becomes frame 60 of 0..59."""
    path = folder / "VolumeTracings.csv"
    path.write_text("".join(
        line.replace(",40\n", ",60\n") if line.startswith("0X1002E8FBACD08477") else line
        for line in path.read_text().splitlines(keepends=True)
    ))  # fmt: skip


def flatten(folder: Path) -> None:
    """Only the long axis and one chord of end-systole of the first video are left."""
    path = folder / "VolumeTracings.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3] + lines[22:]) + "\n")


FAULTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "truncated": (truncate, ["Videos/0X10075961BC11C88E.avi: truncated"]),
    "fewer frames": (shorten, ["Videos/0X1002E8FBACD08477.avi: 55 frames, expected 60 as FileList.csv says"]),
    "other size": (enlarge, ["Videos/0X1005D03EED19C65B.avi: 224 x 112 pixels, expected 112 x 112"]),
    "no video": (
        lambda folder: (folder / "Videos" / "0X10094BA0A028EAC3.avi").write_text("nothing"),  # type: ignore[dict-item]
        ["Videos/0X10094BA0A028EAC3.avi: ", "not a video"],
    ),
    "constant": (blacken, ["0X100009310A3BD7FC/020", "constant", "mask: empty"]),
    "missing video": (
        lambda folder: (folder / "Videos" / "0X10075961BC11C88E.avi").unlink(),
        ["Videos/0X10075961BC11C88E.avi: missing, FileList.csv, line 5 names it"],
    ),
    "no videos": (lambda folder: shutil.rmtree(folder / "Videos"), ["Videos: no such folder"]),
    "no list": (lambda folder: (folder / "FileList.csv").unlink(), ["FileList.csv: no such file"]),
    "no tracings": (lambda folder: (folder / "VolumeTracings.csv").unlink(), ["VolumeTracings.csv: no such file"]),
    "list is binary": (
        lambda folder: (folder / "FileList.csv").write_bytes(bytes(range(256)) * 9),  # type: ignore[dict-item]
        ["FileList.csv: not a readable CSV"],
    ),
    "list is empty": (
        lambda folder: (folder / "FileList.csv").write_text(""),  # type: ignore[dict-item]
        ["FileList.csv: no column FileName", "an empty file"],
    ),
    "column": (in_list("NumberOfFrames", "Frames"), ["FileList.csv: no column NumberOfFrames; found FileName, EF"]),
    "other dataset": (
        lambda folder: (folder / "VolumeTracings.csv").write_text("FileName,X,Y,Frame\n"),  # type: ignore[dict-item]
        ["VolumeTracings.csv: no column X1, Y1, X2, Y2; found FileName, X, Y, Frame"],
    ),
    "twice": (
        in_list("0X1005D03EED19C65B,", "0X1002E8FBACD08477.avi,"),
        ["FileList.csv: line 4: 0X1002E8FBACD08477 stands in line 3 already"],
    ),
    "split": (in_list("60,VAL", "60,VALID"), ["FileList.csv: line 2: Split must be TRAIN, VAL or TEST, got 'VALID'"]),
    "rate": (in_list(",51,60", ",0,60"), ["FileList.csv: line 5: FPS must be a positive number, got '0'"]),
    "frames": (in_list(",51,60", ",51,many"), ["FileList.csv: line 5: NumberOfFrames", "got 'many'"]),
    "size": (in_list("112,112,51", "112,-1,51"), ["FileList.csv: line 5: FrameWidth", "got '-1'"]),
    "ragged list": (in_list(",51,60,TEST", ",51"), ["FileList.csv: line 5: 7 values, expected 9"]),
    "beyond the end": (
        beyond,
        ["VolumeTracings.csv: line 65: frame 60 of 0X1002E8FBACD08477: the video has 60 frames, the last is 59"],
    ),
    "negative frame": (in_tracings(9, 5, "-3"), ["VolumeTracings.csv: line 9 (0X100009310A3BD7FC.avi): Frame"]),
    "fraction": (in_tracings(9, 5, "2.5"), ["VolumeTracings.csv: line 9", "got '2.5'"]),
    "coordinate": (in_tracings(9, 2, "nan"), ["VolumeTracings.csv: line 9", "must be numbers", "nan"]),
    "comma": (in_tracings(9, 2, "1,5"), ["VolumeTracings.csv: line 9: 7 values, expected 6"]),
    "far point": (in_tracings(9, 1, "4000"), ["VolumeTracings.csv: line 2: frame 22", "points far outside"]),
    "no area": (flatten, ["VolumeTracings.csv: line 2: frame 22", "2 lines enclose nothing"]),
}  # fmt: skip


def checked(folder: Path) -> Inspection:
    return inspect(build_datamodule("echonet", root=folder))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(copy: Path, fault: str) -> None:
    plant, expected = FAULTS[fault]
    plant(copy)
    result = checked(copy)
    text = "\n".join(str(f) for f in result.faults)
    for part in expected:
        assert part in text, text
    assert str(copy) not in text
    if result.survey.faults:
        with pytest.raises(DataError, match=r"echonet: \d+ faults? in") as caught:
            EchoNet(root=copy).records("test")
        assert expected[0] in str(caught.value)


def test_all_faults_together_are_all_listed(copy: Path) -> None:
    """Each in another video or line, found in the tables and in the videos alike."""
    together = ["truncated", "other size", "constant", "beyond the end", "negative frame"]
    for fault in together:
        FAULTS[fault][0](copy)
    in_tracings(70, 2, "a")(copy)
    (copy / "Videos" / "0X10094BA0A028EAC3.avi").unlink()
    with (copy / "FileList.csv").open("a") as file:
        file.write("0X1005D03EED19C65B.avi,1,1,1,112,112,50,60,TEST\n0X1F,1,1,1,112,112,50,60,EVAL\n")
    result = checked(copy)
    text = "\n".join(str(f) for f in result.faults)
    expected = [part for fault in together for part in FAULTS[fault][1]]
    expected += ["line 70 (0X1002E8FBACD08477.avi): X1, Y1, X2, Y2 must be numbers", "0X10094BA0A028EAC3.avi: missing"]
    expected += ["line 7: 0X1005D03EED19C65B stands in line 4 already", "line 8: Split must be TRAIN, VAL or TEST"]
    for part in expected:
        assert part in text, text
    assert len(result.faults) == 11, text


def test_a_missing_tracing_is_named(copy: Path) -> None:
    path = copy / "VolumeTracings.csv"
    path.write_text(path.read_text().replace("0X10075961BC11C88E", "0X10075961BC11C88F"))
    found = [str(f) for f in checked(copy).findings]
    assert "Videos/0X10075961BC11C88E.avi: traced frames in VolumeTracings.csv: none, two are needed; left out" in found
    assert "VolumeTracings.csv: line 128: 0X10075961BC11C88F is not in FileList.csv; its tracings are not used" in found


def test_exclude_gets_past_a_fault(copy: Path) -> None:
    beyond(copy)
    assert len(EchoNet(root=copy, exclude=["0X1002E8FBACD08477"]).records("train")) == 1


def test_options(twin: Path) -> None:
    for options in ({"protocol": "ed"}, {"length": 1}, {"exclude": "0X10"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            EchoNet(root=twin, **options)  # type: ignore[arg-type]


def test_no_folder_tells_where_the_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)echonet\.github\.io.*FileList\.csv.*VolumeTracings\.csv"):
        EchoNet(root=tmp_path / "nowhere").records("test")


def test_without_pyav(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    data = EchoNet(root=copy)
    with pytest.raises(MissingExtraError, match=r"needs av: pip install .*\[data\]"):
        data.load(data.records("test")[0])


# At the command line.


def test_data_check(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "check", "echonet", "--out", str(tmp_path / "out")]
    assert main([*command, "--root", str(copy), "--pictures", "1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == {"videos": 5, "traced frames": 10}
    assert report["labels"] == {"1 left ventricle": 5}
    assert report["shapes"] == {"112 x 112": 5}
    assert len(list((tmp_path / "out").glob("case-*.png"))) == 1
    truncate(copy)
    assert main([*command, "--root", str(copy)]) == 1
    assert "Videos/0X10075961BC11C88E.avi: truncated" in capsys.readouterr().out
    assert main([*command, "--root", str(tmp_path / "nowhere")]) == 2


@pytest.mark.usefixtures("in_this_process")
def test_suite(twin: Path, tmp_path: Path) -> None:
    command = ["run", "echonet", "--data.root", str(twin), "--out", str(tmp_path), "--limit", "2"]
    pairs = ["--tasks", "traced,paper-iii", "--methods", "identity,demons-symmetric"]
    assert main([*command, *pairs]) == 0
    assert main([*command[:-1], "1", "--tasks", "stream", "--methods", "no-motion", "--no-panels"]) == 0
    rows = read_rows(tmp_path)
    assert Counter(row["key"]["task"] for row in rows) == {"traced": 4, "stream": 10, "paper-iii": 2}
    assert {row["status"] for row in rows} == {"ok"}
    streamed = {row["key"]["condition"]: row["values"] for row in rows if row["key"]["task"] == "stream"}
    # Contours are known where frames are traced, without any true displacement.
    assert {v["frame"] for v in streamed[None] if v["metric"] == "contour_error"} == {
        v["frame"] for v in streamed[None] if v["metric"] == "dice" and v["horizon_s"] is None
    }


# Real images: the animal of `cine-sax` as if it were an echocardiogram.


@pytest.mark.data
def test_a_real_heart_in_this_format(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "cine_sax_pig"
    images, labels = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name)))[:, 11]
        for name in ("cine_sax.nii.gz", "lv_labels.nii.gz")
    )
    cavity = labels == 1
    rows, columns = (int(c.mean()) for c in cavity.any(axis=0).nonzero())
    window = (slice(None), slice(max(rows - 56, 0), rows + 56), slice(max(columns - 56, 0), columns + 56))
    images, cavity = images[window].astype(np.float64), cavity[window]
    frames = (np.clip(images / np.percentile(images, 99.5), 0, 1) * 255).round().astype(np.uint8)
    traced, lines = (0, 11), [TRACING_HEADER]
    for t in traced:
        spans = [(x.min(), y, x.max(), y) for y, row in enumerate(cavity[t]) if len(x := row.nonzero()[0])]
        axis = (spans[0][0], spans[0][1], spans[-1][0], spans[-1][1])
        lines += [f"PIG.avi,{','.join(map(str, span))},{t}" for span in (axis, *spans)]
    (tmp_path / "Videos").mkdir()
    write_video(tmp_path / "Videos" / "PIG.avi", frames, 31.6)
    height, width = frames.shape[1:]
    (tmp_path / "FileList.csv").write_text(f"{LIST_HEADER}\nPIG,0,0,0,{height},{width},31.6,{len(frames)},TEST\n")
    (tmp_path / "VolumeTracings.csv").write_text("\n".join(lines) + "\n")

    data = EchoNet(root=tmp_path, length=len(frames))
    [record] = data.records("test")
    pair, clip = data.load(record), data.sequence(record)
    assert np.abs(255 * clip.frames[0, :, 0].numpy().swapaxes(1, 2) - frames).max() <= QUANTISATION
    for found, t in ((pair.moving_labels, 0), (pair.fixed_labels, 11)):
        assert found is not None
        # Every row of the cavity is one span, so the polygon through the ends of the spans is the cavity itself.
        spans_only = np.stack([
            (np.arange(width) >= row.argmax()) & (np.arange(width) < width - row[::-1].argmax()) & row.any()
            for row in cavity[t]
        ])  # fmt: skip
        assert np.array_equal(found[0, 0].numpy().T == 1, spans_only)
        assert dice(spans_only, cavity[t]) > 0.99
    assert pair.moving_labels.sum() > pair.fixed_labels.sum()


def test_random_clips_need_no_tracings(twin: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(twin, tmp_path / "copy"))
    (root / "VolumeTracings.csv").unlink()
    data = EchoNet(root=root, protocol="random")
    assert not inspect(data, limit=1).faults
    assert data.case_ids("test") == EchoNet(root=twin, protocol="random").case_ids("test")
    with pytest.raises(DataError, match=r"VolumeTracings.csv: no such file"):
        EchoNet(root=root).records("test")


def test_a_video_that_changes_is_read_anew(twin: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(twin, tmp_path / "copy"))
    data = EchoNet(root=root)
    record = data.records("test")[0]
    before = data.load(record)
    write_video(record["video"], 255 - pictures(record["frames"], 3), 50)
    assert not torch.equal(before.fixed, data.load(record).fixed)
