"""Frames over time from DICOM: a multi-frame file, or the single frames of a folder, as grey `(T, x, y)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import DataError

_SUFFIXES = (".dcm", ".dicom", ".ima")
_CENTIMETRES = 3  # Physical Units X Direction of an ultrasound region
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as DICOM's YBR_FULL has it


@dataclass(frozen=True)
class DicomHeader:
    """What a file tells before its pixels are decoded.

    Attributes:
        frames: their number.
        shape: pixels along x and y (columns and rows).
        spacing_mm: along x and y, where the file tells.
        seconds_per_frame: where the file tells.
        position: of the first pixel in the patient, mm, where the file tells.
        trigger_s: time after the R wave, of a single frame of a cine.
        series: identifier of the series; empty where there is none.
    """

    frames: int
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    seconds_per_frame: float | None
    position: tuple[float, ...] | None
    trigger_s: float | None
    series: str


def is_dicom(path: Path) -> bool:
    """Whether the name or the first bytes say DICOM."""
    if path.name.lower().endswith(_SUFFIXES):
        return True
    if "." in path.name and not path.suffix[1:].isdigit():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom_header(path: Path) -> DicomHeader:
    """The header of a DICOM file with one or several frames.

    The time comes from FrameTime, FrameTimeVector, CineRate or RecommendedDisplayFrameRate, the spacing from
    PixelSpacing (that of enhanced files included) or from the one ultrasound region that is measured in centimetres.

    Raises:
        DataError: missing, not DICOM, without pixels, truncated, or frames at different places in the patient.
    """
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True)
        frames = int(data.get("NumberOfFrames") or 1)
        shape = (int(data.Columns), int(data.Rows))
        header = DicomHeader(
            frames=frames,
            shape=shape,
            spacing_mm=_spacing(path, data),
            seconds_per_frame=_seconds(data),
            position=_position(data),
            trigger_s=float(data.TriggerTime) / 1000 if data.get("TriggerTime") is not None else None,
            series=str(data.get("SeriesInstanceUID", "")),
        )
        _check_length(path, data, frames)
        places = {p for f in data.get("PerFrameFunctionalGroupsSequence", ()) if (p := _position(f)) is not None}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pydicom.errors.InvalidDicomError, AttributeError, EOFError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: unreadable or truncated DICOM, or one without pixels ({error})") from error
    if len(places) > 1:
        raise DataError(f"{path}: its frames lie at {len(places)} places in the patient; expected one place over time")
    return header


def _seconds(data: Any) -> float | None:
    vector = [float(v) for v in np.atleast_1d(data.get("FrameTimeVector") or [])]
    rates = [data.get("CineRate"), data.get("RecommendedDisplayFrameRate")]
    found = [float(data.get("FrameTime") or 0) / 1000]
    # The first entry of the vector is the time before the first frame.
    found += [sum(vector[1:]) / (len(vector) - 1) / 1000] if len(vector) > 1 else []
    found += [1 / float(rate) for rate in rates if rate]
    return next((s for s in found if np.isfinite(s) and s > 0), None)


def _spacing(path: Path, data: Any) -> tuple[float, float] | None:
    given = data.get("PixelSpacing") or _shared(data, "PixelMeasuresSequence", "PixelSpacing")
    if given:
        if not all(np.isfinite(float(s)) and float(s) > 0 for s in given):
            raise DataError(f"{path}: PixelSpacing {list(given)}, expected positive numbers")
        return float(given[1]), float(given[0])  # stored as rows, columns: y, x
    regions = {
        (abs(float(r.PhysicalDeltaX)) * 10, abs(float(r.PhysicalDeltaY)) * 10)
        for r in data.get("SequenceOfUltrasoundRegions", ())
        if r.get("PhysicalUnitsXDirection") == r.get("PhysicalUnitsYDirection") == _CENTIMETRES
    }
    only = next(iter(regions)) if len(regions) == 1 else None
    return only if only is not None and min(only) > 0 else None


def _shared(data: Any, sequence: str, keyword: str) -> Any:
    """An element of the functional groups of an enhanced file: shared by all frames, or of the first."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(data.get(groups) or ())[:1]:
            for item in group.get(sequence) or ():
                return item.get(keyword)
    return None


def _position(data: Any) -> tuple[float, ...] | None:
    """ImagePositionPatient of a file or of a frame of an enhanced one, to a hundredth of a millimetre."""
    given = data.get("ImagePositionPatient")
    for item in data.get("PlanePositionSequence") or ():
        given = given or item.get("ImagePositionPatient")
    return tuple(round(float(v), 2) for v in given) if given else None


def _check_length(path: Path, data: Any, frames: int) -> None:
    """That a file of uncompressed pixels can hold them."""
    if data.file_meta.get("TransferSyntaxUID") is None or data.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    if data.file_meta.TransferSyntaxUID.is_deflated or "422" in str(data.get("PhotometricInterpretation")):
        return
    samples = frames * int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel") or 1)
    expected, size = samples * int(data.BitsAllocated) // 8, path.stat().st_size
    if size < expected:
        raise DataError(f"{path}: truncated, {size} bytes; expected at least {expected} for its {frames} frames")


def read_dicom_frames(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Every frame of the files in their order, `(T, x, y)`; stored values rescaled, colour as luminance.

    Raises:
        DataError: a file that cannot be decoded, such as a truncated one.
    """
    return np.concatenate([_decoded(path) for path in paths])


def _decoded(path: Path) -> NDArray[np.float32]:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

    try:
        data = pydicom.dcmread(path)
        colours, count = str(data.PhotometricInterpretation), int(data.get("NumberOfFrames") or 1)
        # Y, Cb, Cr as stored: the first is the luminance itself. Anything else comes as grey or RGB.
        raw = colours in ("YBR_FULL", "YBR_FULL_422")
        pixels = pixel_array(data, raw=raw)
        if colours == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, data)
            pixels = pixels / (65535 / 255) if pixels.dtype == np.uint16 else pixels
        elif int(data.get("SamplesPerPixel") or 1) == 1:
            pixels = apply_rescale(pixels, data)
    except Exception as error:  # pydicom and its decoders raise whatever the damage led to
        text = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be decoded, truncated or damaged ({text})") from error
    pixels = pixels if count > 1 else pixels[None]
    if pixels.shape[0] != count:
        raise DataError(f"{path}: truncated, {pixels.shape[0]} frames; expected {count} as its header says")
    if pixels.ndim == 4:
        pixels = pixels[..., 0] if raw else pixels[..., :3] @ np.asarray(_LUMINANCE)
    return np.ascontiguousarray(pixels.swapaxes(1, 2), dtype=np.float32)
