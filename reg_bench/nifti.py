"""NIfTI-1 headers and voxels, read strictly.

SimpleITK pads a truncated NIfTI file with whatever was in memory, and replaces a spacing of zero by one, both
without a word. This reader says so instead, and gives the array as it lies in the file, for formats such as
Learn2Reg's whose header carries no geometry.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_bench.errors import DataError

INTENT_VECTOR = 1007
_SUFFIXES = (".nii", ".nii.gz")
# Codes of the NIfTI-1 standard; complex, RGB and 128-bit types are left to SimpleITK.
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
# NIFTI_UNITS_SEC, _MSEC and _USEC.
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}


def is_nifti(path: Path) -> bool:
    """Whether the name ends in `.nii` or `.nii.gz`."""
    return path.name.lower().endswith(_SUFFIXES)


@dataclass(frozen=True)
class NiftiHeader:
    """What this package needs of a NIfTI-1 header.

    Attributes:
        shape: of the array, axes in file order.
        dtype: of the stored voxels, or `None` for a type that is left to SimpleITK.
        offset: bytes before the first voxel.
        slope, intercept: scaling of the stored values; a slope of 0 means none.
        intent: intent code; 1007 is a vector.
        spacing_mm: pixdim of the axes as stored.
        sform: the upper three rows of the affine (RAS), or `None` where the file declares none.
        seconds_per_frame: pixdim of the fourth axis, or `None` where the header gives no time or no unit for it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    offset: int
    slope: float
    intercept: float
    intent: int
    spacing_mm: tuple[float, ...]
    sform: NDArray[np.float64] | None
    seconds_per_frame: float | None = None


def _read_bytes(path: Path, count: int = -1) -> bytes:
    """The first `count` bytes (all by default), unpacked.

    Raises:
        DataError: the file cannot be unpacked to its end.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            return bytes(stream.read(count))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: unreadable or truncated image, expected a complete gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def parse_header(path: Path, raw: bytes) -> NiftiHeader:
    """The header at the beginning of `raw`.

    Raises:
        DataError: not NIfTI-1, or a header that contradicts itself.
    """
    order = next((o for o in "<>" if len(raw) >= 348 and struct.unpack(o + "i", raw[:4])[0] == 348), None)
    if order is None or raw[344:347] not in (b"n+1", b"ni1"):
        raise DataError(f"{path}: unreadable or truncated image, expected a NIfTI-1 header of 348 bytes")
    dims = struct.unpack(order + "8h", raw[40:56])
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise DataError(f"{path}: the header holds the impossible dimensions {dims}")
    code = struct.unpack(order + "h", raw[70:72])[0]
    pixdim = struct.unpack(order + "8f", raw[76:108])
    offset, slope, intercept = struct.unpack(order + "3f", raw[108:120])
    sform_code = struct.unpack(order + "h", raw[254:256])[0]
    rows = np.frombuffer(raw, order + "f4", 12, 280).reshape(3, 4).astype(np.float64)
    # Bits 3 to 5 of xyzt_units.
    seconds = float(pixdim[4]) * _SECONDS.get(raw[123] & 0x38, 0.0)
    return NiftiHeader(
        shape=tuple(dims[1 : dims[0] + 1]),
        dtype=np.dtype(order + _DTYPES[code]) if code in _DTYPES else None,
        offset=int(offset),
        slope=slope if np.isfinite(slope) else 0.0,
        intercept=intercept if np.isfinite(intercept) else 0.0,
        intent=struct.unpack(order + "h", raw[68:70])[0],
        spacing_mm=tuple(float(s) for s in pixdim[1 : dims[0] + 1]),
        sform=rows if sform_code > 0 else None,
        seconds_per_frame=seconds if dims[0] >= 4 and np.isfinite(seconds) and seconds > 0 else None,
    )


def read_header(path: Path) -> NiftiHeader:
    """The header of a `.nii` or `.nii.gz` file, whose voxels are not read."""
    return parse_header(path, _read_bytes(path, 348))


def check_geometry(path: Path, header: NiftiHeader) -> None:
    """That spacing and affine of the first three axes can be used.

    Raises:
        DataError: a spacing of zero or not finite, or a singular affine.
    """
    spacing = header.spacing_mm[: min(3, len(header.shape))]
    if not all(np.isfinite(s) and s != 0 for s in spacing):
        raise DataError(f"{path}: zero spacing or one that is not a number in the header: {spacing} mm")
    if header.sform is None:
        return
    matrix = header.sform[:, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(matrix).all() or (lengths == 0).any() or abs(np.linalg.det(matrix / lengths)) < 1e-3:
        raise DataError(f"{path}: singular affine in the header: {matrix.tolist()}; expected three independent axes")


def check_length(path: Path, header: NiftiHeader) -> None:
    """That the file holds the voxels that its header promises, without unpacking a file that does.

    Raises:
        DataError: the file is too short.
    """
    if header.dtype is None:
        return
    expected = header.offset + int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        size = file.seek(0, 2)
        if packed:
            # gzip ends with the unpacked length modulo 2^32; it is unpacked only where that looks wrong.
            file.seek(-4, 2)
            size = struct.unpack("<I", file.read(4))[0]
    if packed and size != expected % 2**32:
        size = len(_read_bytes(path))
    if not packed or size != expected % 2**32:
        _check_size(path, header, size, expected)


def _check_size(path: Path, header: NiftiHeader, size: int, expected: int) -> None:
    if size < expected:
        raise DataError(
            f"{path}: truncated image, {size} bytes; expected {expected} for {header.shape} of {header.dtype}"
        )


def read_array(path: Path) -> tuple[NiftiHeader, NDArray[Any] | None]:
    """Header and voxels, in index order (x, y, z, ...), scaled where the header says so.

    The array is a read-only view in Fortran order, or `None` for a voxel type that is left to SimpleITK.

    Raises:
        DataError: missing, not NIfTI-1, or fewer voxels than the header promises.
    """
    raw = _read_bytes(path)
    header = parse_header(path, raw)
    if header.dtype is None or raw[344:347] == b"ni1":
        return header, None
    count = int(np.prod(header.shape, dtype=np.int64))
    expected = header.offset + count * header.dtype.itemsize
    _check_size(path, header, len(raw), expected)
    array = np.frombuffer(raw, header.dtype, count, header.offset).reshape(header.shape, order="F")
    if header.slope != 0 and (header.slope, header.intercept) != (1.0, 0.0):
        array = array * np.float64(header.slope) + header.intercept
    return header, array
