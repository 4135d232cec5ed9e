"""A real apical four-chamber echocardiogram that comes inside the pydicom wheel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import ConfigError, DataError
from reg_bench.preprocessing import geometry, plane, preprocess, scale_intensity
from reg_bench.types import ImageSequence, RegistrationPair

_LENGTH = 30
# Inclusive rows 28..203 and columns 75..250: 176 x 176 pixels without the burnt-in text.
_ROWS, _COLUMNS = slice(28, 204), slice(75, 251)
# The header gives the spacing of the 640 x 480 original; the stored picture has half as many pixels.
_SPACING_MM = 1.021
_SECONDS_PER_FRAME = 1 / 30
# Grey levels (of 255) above which a pixel of the brightest picture belongs to the scanned sector.
_SECTOR_LEVEL = 8


class EchoReal(RegistrationDataModule):
    """A real echocardiogram of 30 frames without labels: moving frame 0, fixed every other frame.

    Luminance of the JPEG frames, rows 28 to 203 and columns 75 to 250 (both included), axes x, y, 1.021 mm
    pixels, scaled to 0..1 by the 99.5th percentile of all frames. The mask is the sector that is scanned
    (bright in any frame): similarity is measured there. Only a test split.

    Args:
        frames: how many fixed frames, evenly spaced over the sequence and ending with its last; all 29 if
            not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: `frames` outside 1..29.
    """

    name: ClassVar[str] = "echo-real"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2,)
    licence: ClassVar[str] = "MIT"
    folder: ClassVar[str] = ""

    def __init__(self, *, frames: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if frames is not None and not 1 <= frames < _LENGTH:
            raise ConfigError(f"{self.name}: frames must lie in 1..{_LENGTH - 1}, got {frames}")
        self.frames = frames

    def records(self, split: Split) -> Sequence[Record]:
        if split != "test":
            return []
        path, count = _example_path(), self.frames or _LENGTH - 1
        chosen = [round((_LENGTH - 1) * k / count) for k in range(1, count + 1)]
        return [{"case_id": f"echo/{t:03d}", "file": path, "frame": t} for t in chosen]

    def load(self, record: Record) -> RegistrationPair:
        return self._sequence(str(record["file"])).pair(int(record["frame"]))

    def sequence(self, record: Record | None = None) -> ImageSequence:
        """All 30 frames, whatever `frames` says; there is one sequence, so `record` may be left out."""
        return self._sequence(_example_path() if record is None else str(record["file"]))

    def _sequence(self, path: str) -> ImageSequence:
        frames = _luminance(path)
        scaled = preprocess({"image": frames}, [scale_intensity("image")])["image"]
        sector = torch.from_numpy(_sector(frames.max(axis=0)))
        spacing_mm, affine = geometry(plane(sector.shape, (_SPACING_MM, _SPACING_MM)))
        return ImageSequence(
            case_ids=("echo",),
            frames=scaled.permute(0, 2, 1, 3, 4).contiguous(),
            seconds_per_frame=_SECONDS_PER_FRAME,
            spacing_mm=spacing_mm,
            affine=affine,
            mask=sector.expand(1, _LENGTH, 1, *sector.shape).contiguous(),
        )


def _example_path() -> str:
    from pydicom.examples import get_path

    path = get_path("ybr_color")
    if not path.is_file():
        raise DataError(f"{path}: the echocardiogram is missing from the installed pydicom; reinstall pydicom")
    return str(path)


@functools.lru_cache(maxsize=1)
def _luminance(path: str) -> NDArray[np.float32]:
    """`(30, x, y)` luminance of the part that is kept, 0..255."""
    from pydicom.pixels import pixel_array

    # Undecoded colours are Y, Cb, Cr: the first is the luminance itself.
    stored = pixel_array(path, raw=True)
    if stored.shape != (_LENGTH, 240, 320, 3):
        raise DataError(f"{path}: expected {_LENGTH} frames of 240 x 320 in colour, got shape {stored.shape}")
    return np.ascontiguousarray(stored[:, _ROWS, _COLUMNS, 0].swapaxes(1, 2).astype(np.float32))


def _sector(brightest: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest connected bright region of `(x, y)`, smoothed and without holes."""
    bright = ndimage.binary_opening(ndimage.binary_fill_holes(brightest > _SECTOR_LEVEL), iterations=2)
    parts, count = ndimage.label(bright)
    if count == 0:
        raise DataError("the echocardiogram has no bright region")
    largest = 1 + int(np.argmax(ndimage.sum_labels(bright, parts, range(1, count + 1))))
    return np.asarray(ndimage.binary_fill_holes(parts == largest))
