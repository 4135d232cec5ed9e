"""Volumes over time from one file: 4-D NIfTI, and whatever else SimpleITK reads with four axes.

Arrays are in index order x, y, z, t; the grid is that of one frame. The same strictness as `image_io`: a truncated
file is an error, not padded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from reg_bench import nifti
from reg_bench.errors import DataError
from reg_bench.grid import Grid
from reg_bench.image_io import reason, squeezed_grid

PathLike = str | Path


def read_4d(path: PathLike) -> tuple[NDArray[np.float32], Grid, float | None]:
    """A series of volumes: array `(x, y, z, t)`, the grid of a frame, seconds from frame to frame.

    A frame of one slice keeps its third axis of length 1. The time is `None` where the header states none, or no
    unit for it; formats other than NIfTI state no unit.

    Raises:
        DataError: the file is missing, unreadable or truncated; not four axes; more than one channel; NaN or
            infinite voxels; zero spacing or a singular affine.
    """
    path = Path(path)
    grid, frames, seconds = read_4d_header(path)
    array = nifti.read_array(path)[1] if nifti.is_nifti(path) else None
    if array is None:
        try:
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
        except RuntimeError as error:
            raise DataError(f"{path}: unreadable or truncated image ({reason(error)})") from error
    # Values beyond float32 become infinite and are reported as such.
    with np.errstate(over="ignore"):
        series = np.ascontiguousarray(array.reshape((*grid.shape, frames), order="F"), dtype=np.float32)
    bad = series.size - int(np.isfinite(series).sum())
    if bad:
        raise DataError(f"{path}: {bad} of {series.size} voxels are NaN or infinite; expected finite intensities")
    return series, grid, seconds


def read_4d_header(path: PathLike) -> tuple[Grid, int, float | None]:
    """Grid of a frame, number of frames and seconds per frame of the file that `read_4d` would read.

    Truncated NIfTI files are recognised by their length; no voxel is looked at.

    Raises:
        DataError: as `read_4d`, voxels apart.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: " + ("expected an image file, this is a folder" if path.exists() else "no such file"))
    seconds, shape = None, None
    if nifti.is_nifti(path):
        header = nifti.read_header(path)
        nifti.check_geometry(path, header)
        nifti.check_length(path, header)
        if header.intent == nifti.INTENT_VECTOR:
            raise DataError(f"{path}: a vector image of shape {header.shape} (intent 1007), expected one channel")
        seconds, shape = header.seconds_per_frame, header.shape
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable or truncated image ({reason(error)})") from error
    if reader.GetNumberOfComponents() != 1:
        raise DataError(f"{path}: {reader.GetNumberOfComponents()} channels, expected one")
    return *_frame_grid(path, reader, shape), seconds


def _frame_grid(path: Path, reader: Any, stored: tuple[int, ...] | None) -> tuple[Grid, int]:
    """The grid of the first three axes and the length of the fourth; `stored` is the shape that the file declares."""
    shape = stored or tuple(int(n) for n in reader.GetSize())
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 4:
        raise DataError(f"{path}: {len(shape)} axes, shape {shape}; expected 4 (x, y, z, time)")
    axes = len(reader.GetSize())
    if axes < 3:
        raise DataError(f"{path}: the header describes {axes} axes in space; expected 3")
    try:
        grid = squeezed_grid(
            (*shape[:3], *(1,) * (axes - 3)), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), 3
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return grid, shape[3]
