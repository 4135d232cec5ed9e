"""Grey pictures of video files (AVI, MP4, ...) by PyAV, which brings FFmpeg in its wheel; extra `data`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import DataError, MissingExtraError

PathLike = str | Path


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video tells.

    Attributes:
        frames: number of pictures that the header declares; 0 where the container does not tell.
        columns, rows: size of a picture.
        frames_per_second: mean rate; 0 where the container does not tell.
    """

    frames: int
    columns: int
    rows: int
    frames_per_second: float


def read_video_info(path: PathLike) -> VideoInfo:
    """The header of a video; no picture is decoded.

    Raises:
        DataError: missing, not a video, or without a video stream.
        MissingExtraError: PyAV is not installed.
    """
    path = Path(path)
    with _opened(path) as (_, stream):
        return _info(stream)


def read_video(path: PathLike) -> NDArray[np.uint8]:
    """Luminance of every picture, `(T, rows, columns)`, 0..255.

    Colour is dropped: luminance is that of the codec (ITU-R BT.601 for MJPEG), brought to the full range.

    Raises:
        DataError: missing, not a video, without a video stream, without a picture, damaged, or truncated: fewer
            pictures than the header declares.
        MissingExtraError: PyAV is not installed.
    """
    path = Path(path)
    frames: list[NDArray[np.uint8]] = []
    with _opened(path) as (container, stream):
        info = _info(stream)
        # Loading goes on in several processes at once; one thread is enough for a picture.
        stream.codec_context.thread_count = 1
        # Without this FFmpeg paints over what it cannot decode and goes on.
        stream.codec_context.options = {"err_detect": "explode"}
        for frame in _decoded(path, container, stream, info):
            frames.append(frame)
    if not frames:
        raise DataError(f"{path}: the video has no frame")
    if len(frames) < info.frames:
        raise DataError(f"{path}: truncated, {len(frames)} frames where the header declares {info.frames}")
    return np.stack(frames)


def write_video(
    path: PathLike, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], frames_per_second: float
) -> None:
    """Writes grey pictures `(T, rows, columns)` as AVI of JPEG pictures at their best quality.

    What is read back differs by a few grey levels.

    Raises:
        ValueError: not grey pictures of 8 bits, or no positive rate.
        MissingExtraError: PyAV is not installed.
    """
    av, pictures = _av(path), np.asarray(frames)
    if pictures.ndim != 3 or pictures.dtype != np.uint8 or not pictures.size:
        raise ValueError(f"{path}: frames must be uint8 (T, rows, columns), got {pictures.dtype} {pictures.shape}")
    if not frames_per_second > 0:
        raise ValueError(f"{path}: frames_per_second must be positive, got {frames_per_second}")
    rate = Fraction(frames_per_second).limit_denominator(10000)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=rate, options={"qmin": "1", "qmax": "1"})
        stream.height, stream.width = pictures.shape[1:]
        stream.pix_fmt = "yuvj420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
            frame = frame.reformat(format="yuvj420p")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _av(path: PathLike) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(f"{Path(path).name}: reading a video", "av", "data") from error
    return av


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream."""
    if not path.is_file():
        raise DataError(f"{path}: " + ("expected a video file, this is a folder" if path.exists() else "no such file"))
    av = _av(path)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a video, or its header is damaged ({_reason(error)})") from error
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: no video stream")
        yield container, container.streams.video[0]


def _info(stream: Any) -> VideoInfo:
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate or 0
    return VideoInfo(int(stream.frames), int(context.width), int(context.height), float(rate))


def _decoded(path: Path, container: Any, stream: Any, info: VideoInfo) -> Iterator[NDArray[np.uint8]]:
    """Every picture; complains of the first that is damaged or of another size."""
    av, number = _av(path), 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise DataError(f"{path}: truncated or damaged in frame {number} of {info.frames}")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise DataError(f"{path}: frame {number} of {info.frames} is damaged")
                picture = frame.to_ndarray(format="gray")
                if picture.shape != (info.rows, info.columns):
                    raise DataError(
                        f"{path}: frame {number} has {picture.shape[1]} x {picture.shape[0]} pixels, expected "
                        f"{info.columns} x {info.rows} as the header says"
                    )
                yield picture
                number += 1
    except av.FFmpegError as error:
        raise DataError(
            f"{path}: truncated or damaged, cannot decode frame {number} of {info.frames} ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """The cause without the file name, which stands in front of the message already."""
    return str(getattr(error, "strerror", None) or error)[:200]
