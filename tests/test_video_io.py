"""Videos: what is written comes back, and whatever is wrong with a file is said with its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from reg_bench.errors import DataError, MissingExtraError
from reg_bench.video_io import VideoInfo, read_video, read_video_info, write_video

FRAMES, ROWS, COLUMNS = 24, 40, 56


def pictures(frames: int = FRAMES, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint8]:
    """A bright spot that moves over a noisy gradient; one black and one white picture in front."""
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(0).normal(0, 6, (frames, rows, columns))
    spot = [150 * np.exp(-((x - 10 - t) ** 2 + (y - 20) ** 2) / 30) for t in range(frames)]
    made = np.clip(np.stack(spot) + x + noise, 0, 255).astype(np.uint8)
    made[0], made[1] = 0, 255
    return made


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "a.avi", pictures(), 50)
    return tmp_path / "a.avi"


def test_pictures_come_back(video: Path) -> None:
    assert read_video_info(video) == VideoInfo(FRAMES, COLUMNS, ROWS, 50.0)
    read = read_video(video)
    assert read.dtype == np.uint8
    error = np.abs(read.astype(int) - pictures())
    assert error.shape == (FRAMES, ROWS, COLUMNS)
    assert error.max() <= 8
    assert error.mean() < 1.5
    # The range of grey levels is neither squeezed nor stretched.
    assert read[0].max() == 0
    assert read[1].min() == 255


def test_odd_sizes_and_rates(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", pictures(3, 33, 51), 29.97)
    info = read_video_info(str(tmp_path / "a.avi"))
    assert (info.frames, info.columns, info.rows) == (3, 51, 33)
    assert info.frames_per_second == pytest.approx(29.97, abs=1e-6)
    assert read_video(str(tmp_path / "a.avi")).shape == (3, 33, 51)


def encode(path: Path, frames: NDArray[np.uint8], codec: str, pixels: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(30), options={"qmin": "1", "qmax": "2"})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=pixels)))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "tolerance"),
    [
        ("a.avi", "rawvideo", "gray", 0),
        ("a.avi", "rawvideo", "bgr24", 0),
        ("a.avi", "ffv1", "gray", 0),
        ("a.avi", "mpeg4", "yuv420p", 12),
        ("a.mp4", "mpeg4", "yuv420p", 12),
    ],
)
def test_other_codecs(tmp_path: Path, name: str, codec: str, pixels: str, tolerance: int) -> None:
    encode(tmp_path / name, pictures(), codec, pixels)
    read = read_video(tmp_path / name).astype(int)
    assert np.abs(read - pictures()).max() <= tolerance


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


def without_last_frame(content: bytes) -> bytes:
    """The file as it is when copying stopped exactly between two pictures, its header untouched."""
    return content[: content.rfind(b"00dc", 0, content.rfind(b"idx1"))]


def with_damaged_picture(content: bytes) -> bytes:
    start = content.find(b"00dc", len(content) // 2) + 8
    end = start + int.from_bytes(content[start - 4 : start], "little")
    middle = (start + end) // 2
    return content[:middle] + b"\xff" * (end - middle) + content[end:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut(0), "not a video"),
        (cut(0.01), "not a video"),
        (cut(0.3), "truncated"),
        (cut(0.9), "truncated"),
        (without_last_frame, "truncated, 23 frames where the header declares 24"),
        (with_damaged_picture, "damaged"),
        (lambda content: b"no video at all\n" * 99, "no video|not a video"),
    ],
)
def test_damaged_files_are_named(video: Path, change: Callable[[bytes], bytes], message: str) -> None:
    video.write_bytes(change(video.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        read_video(video)
    assert str(caught.value).startswith(f"{video}: ")
    assert str(caught.value).count(str(video)) == 1


def test_every_cut_through_the_pictures_is_noticed(video: Path) -> None:
    content = video.read_bytes()
    end = content.rfind(b"idx1")
    for length in range(1, end, end // 60):
        video.write_bytes(content[:length])
        with pytest.raises(DataError):
            read_video(video)
    # Only the index at the end is lost: every picture is there.
    video.write_bytes(content[:end])
    assert len(read_video(video)) == FRAMES


def test_missing_folder_and_sound(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.avi: no such file"):
        read_video(tmp_path / "b.avi")
    with pytest.raises(DataError, match="folder"):
        read_video_info(tmp_path)
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"a\.wav: no video stream"):
        read_video(tmp_path / "a.wav")


def test_a_video_without_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = COLUMNS, ROWS, "yuvj420p"
        container.start_encoding()
    with pytest.raises(DataError, match=r"a\.avi: the video has no frame"):
        read_video(tmp_path / "a.avi")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.avi", pictures().astype(np.float32), 50)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.avi", pictures()[0], 50)
    with pytest.raises(ValueError, match="frames_per_second"):
        write_video(tmp_path / "a.avi", pictures(), 0)


def test_without_pyav(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for work in (read_video, read_video_info):
        with pytest.raises(MissingExtraError, match=r"a\.avi: reading a video needs av: pip install .*\[data\]"):
            work(video)
