"""Displacement fields from and to files of other tools.

Inside the package a field is `u`, in voxels of the fixed grid (see `reg_bench.types`). In files:

* `itk`: NIfTI of shape `(X, Y, Z, 1, 3)`, in 2-D `(X, Y, 1, 1, 2)`, intent 1007, LPS millimetres, on the fixed grid:
  what SimpleITK, ANTs and 3D Slicer write and read. MHA and NRRD vector images are read as well.
* `learn2reg`: the challenge since 2022, `(X, Y, Z, 3)` voxels, `.nii.gz` or `.npz`; the header says nothing.
* `learn2reg-2020`: `.npz` of float16 `(3, X', Y', Z')`, values in voxels of the full grid, stored at half resolution.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench import nifti
from reg_bench.displacement_2020 import as_float16, decode_2020, encode_2020, half_shape
from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal
from reg_bench.image_io import reason, squeezed_grid, to_sitk, write_sitk
from reg_bench.types import DisplacementField

Format = Literal["itk", "learn2reg", "learn2reg-2020"]
FORMATS: tuple[Format, ...] = ("itk", "learn2reg", "learn2reg-2020")

# From this length on, a true displacement that never exceeds one voxel or millimetre is rare.
_LARGE_AXIS = 32
_MOST_LEAVING = 0.25


class DisplacementWarning(UserWarning):
    """A field whose numbers are possible but look as if they had another unit or meaning."""


def write_displacement(
    path: str | Path, field: DisplacementField | Tensor | NDArray[Any], grid: Grid | None = None
) -> None:
    """Writes a field for other tools: a vector image in LPS millimetres on the fixed grid.

    As NIfTI it has shape `(X, Y, Z, 1, 3)` (2-D: `(X, Y, 1, 1, 2)`) and intent 1007. `SimpleITK` applies it with
    `DisplacementFieldTransform(ReadImage(path, sitkVectorFloat64))` to the original moving file.

    Args:
        path: `.nii.gz`, `.nii`, `.mha` or `.nrrd`.
        field: a batch of one, or `u` as `(1, D, *S)` or `(D, *S)` in voxels.
        grid: the fixed grid; by default the one of the field's affine.

    Raises:
        DataError: not one field, NaN or infinite values, or a grid that does not fit or is unknown.
    """
    u = _single(path, field)
    if grid is None:
        if not isinstance(field, DisplacementField) or field.affine is None:
            raise DataError(f"{path}: the fixed grid is unknown; give a grid or a field with its affine")
        grid = Grid.from_affine(field.affine[0].cpu().numpy(), u.shape[1:])
    if u.shape[1:] != grid.shape:
        raise DataError(f"{path}: the field has shape {u.shape[1:]}, expected the fixed grid's {grid.shape}")
    to_mm = grid.direction_matrix * np.asarray(grid.spacing_mm)
    millimetres = np.tensordot(u.astype(np.float64), to_mm, axes=(0, 1)).astype(np.float32)
    write_sitk(path, to_sitk(millimetres, grid, vector=True))


def _single(path: str | Path, field: DisplacementField | Tensor | NDArray[Any]) -> NDArray[Any]:
    """One field as a numpy array `(D, *S)`, finite."""
    raw = field.u if isinstance(field, DisplacementField) else field
    u = raw.detach().cpu().numpy() if isinstance(raw, Tensor) else np.asarray(raw)
    if u.ndim in (4, 5) and u.shape[0] == 1 and u.shape[1] == u.ndim - 2:
        u = u[0]
    if u.ndim not in (3, 4) or u.shape[0] != u.ndim - 1:
        raise DataError(f"{path}: expected one field (1, D, *spatial) or (D, *spatial), got shape {u.shape}")
    if not np.isfinite(u).all():
        raise DataError(f"{path}: the field holds {int((~np.isfinite(u)).sum())} NaN or infinite values")
    return u


def read_displacement(
    path: str | Path,
    *,
    format: Format = "itk",  # noqa: A002
    fixed_grid: Grid,
) -> Tensor:
    """A field from a file, in voxels of the fixed grid.

    Args:
        path: the file.
        format: `itk`, `learn2reg` or `learn2reg-2020`; see the head of this module.
        fixed_grid: the grid of the fixed image, on which the field must lie.

    Returns:
        `u (1, D, *S)` float32; float64 where a Learn2Reg file stores it so: the official evaluation keeps it, and
        near a tie of two voxels the last digits decide.

    Raises:
        DataError: missing or truncated file, another shape, axis order, intent, type or geometry than the format
            asks for, NaN or infinite values.

    Warns:
        DisplacementWarning: the values look like normalised coordinates, like positions instead of
            displacements, or lead out of the image nearly everywhere.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such displacement field")
    u: NDArray[Any]
    if format == "itk":
        u = _read_itk(path, fixed_grid)
    elif format == "learn2reg":
        u = _read_learn2reg(path, fixed_grid)
    elif format == "learn2reg-2020":
        u = _read_learn2reg_2020(path, fixed_grid)
    else:
        raise DataError(f"{path}: unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    kept = u.dtype if u.dtype == np.float64 and format == "learn2reg" else np.float32
    return torch.from_numpy(np.ascontiguousarray(u, dtype=kept))[None]


# ---------------------------------------------------------------------------------------------------- itk


def _read_itk(path: Path, grid: Grid) -> NDArray[np.float64]:
    array, own = _load_vectors(path, grid)
    if not grids_equal(own, grid):
        raise DataError(
            f"{path}: the field's grid differs from the fixed image's. Field: {own.describe()}; "
            f"fixed image: {grid.describe()}; expected a field on the grid of the fixed image"
        )
    to_voxels = np.linalg.inv(grid.direction_matrix * np.asarray(grid.spacing_mm))
    u: NDArray[np.float64] = np.tensordot(to_voxels, array.astype(np.float64), axes=(1, 0))
    _check_values(path, array, u, "mm")
    return u


def _load_vectors(path: Path, grid: Grid) -> tuple[NDArray[Any], Grid]:
    """The components `(D, *S)` of a vector image as stored, and its grid."""
    array: NDArray[Any] | None = None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if nifti.is_nifti(path):
            header, array = nifti.read_array(path)
            nifti.check_geometry(path, header)
            _check_itk_header(path, header, grid)
            reader.ReadImageInformation()
            image = reader
        else:
            image = reader.Execute()
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable or truncated displacement field ({reason(error)})") from error
    size = tuple(image.GetSize())
    if array is None:
        array = sitk.GetArrayFromImage(image)
        if array.ndim == len(size):
            raise DataError(
                f"{path}: a scalar image of shape {size}, expected {grid.dimension} components per voxel. "
                f"{_order(size, grid)}"
            )
        array = np.moveaxis(array.T, 0, -1)
    # NIfTI keeps the components on its fifth axis, behind the axes of length 1 that fill up to four.
    array = np.moveaxis(array.reshape(*size, -1, order="F"), -1, 0)
    _check_numbers(path, array)
    return _fit_dimension(path, image, array, grid)


def _check_itk_header(path: Path, header: nifti.NiftiHeader, grid: Grid) -> None:
    dims = grid.dimension
    expected = (*grid.shape, *(1,) * (4 - dims), dims)
    if header.intent != nifti.INTENT_VECTOR:
        hint = "it may be a Learn2Reg field: format learn2reg" if header.shape == (*grid.shape, dims) else ""
        hint = hint or _order(header.shape, grid)
        raise DataError(
            f"{path}: intent code {header.intent} and shape {header.shape}, expected intent 1007 (vector) and shape "
            f"{expected} in LPS mm. {hint}"
        )
    if len(header.shape) != 5:
        raise DataError(f"{path}: shape {header.shape}, expected {expected}. {_order(header.shape, grid)}")


def _fit_dimension(path: Path, image: Any, array: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], Grid]:
    """Components and grid of a vector image; for a 2-D grid, one slice of a 3-D field without motion across it."""
    dims = grid.dimension
    size = tuple(image.GetSize())
    if dims == 2 and array.shape[0] == 3 and not np.any(array[2]):
        array = array[:2]
    if dims == 2 and len(size) == 3 and size[2] == 1:
        array = array[..., 0]
    if array.shape[0] != dims or array.ndim != dims + 1:
        found = f"{array.shape[0]} components on shape {size}"
        raise DataError(f"{path}: {found}, expected {dims} on {grid.shape}. {_order(size, grid)}")
    own = squeezed_grid(size, image.GetSpacing(), image.GetOrigin(), image.GetDirection(), dims)
    return array, own


def _order(shape: tuple[int, ...], grid: Grid) -> str:
    """What the shape of a file says about the order of its axes; empty if nothing."""
    axes = tuple(n for n in shape if n != 1)
    spatial = tuple(n for n in grid.shape if n != 1)
    if axes == (grid.dimension, *spatial):
        return f"The components come first, {shape}; they must come last"
    if sorted(axes) == sorted((*spatial, grid.dimension)) or sorted(axes) == sorted(spatial):
        return f"The axes {shape} seem to be in another order than the fixed image's {grid.shape}"
    return ""


# ---------------------------------------------------------------------------------------------- learn2reg


def _read_learn2reg(path: Path, grid: Grid) -> NDArray[np.floating]:
    dims = grid.dimension
    expected = (*grid.shape, dims)
    if path.suffix.lower() == ".npz":
        array = _load_npz(path)
    elif nifti.is_nifti(path):
        header, stored = nifti.read_array(path)
        if stored is None:
            raise DataError(f"{path}: voxels of an unknown type, expected floating point of shape {expected}")
        if header.intent == nifti.INTENT_VECTOR and header.shape != expected:
            raise DataError(
                f"{path}: shape {header.shape} with intent 1007 is the format itk (mm), expected {expected} in voxels"
            )
        array = stored
    else:
        raise DataError(f"{path}: expected .nii.gz or .npz for the format learn2reg")
    if array.shape != expected:
        raise DataError(
            f"{path}: shape {array.shape}, expected {expected}: (X, Y, Z, 3) on the fixed grid. "
            f"{_order(array.shape, grid)}"
        )
    _check_numbers(path, array)
    # As the official evaluation: npz as float32, NIfTI as it is stored.
    double = array.dtype == np.float64 and path.suffix.lower() != ".npz"
    u: NDArray[np.floating] = np.moveaxis(array, -1, 0).astype(np.float64 if double else np.float32)
    _check_values(path, u, u, "voxels")
    return u


def _read_learn2reg_2020(path: Path, grid: Grid) -> NDArray[np.float32]:
    dims = grid.dimension
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: expected .npz for the format learn2reg-2020")
    array = _load_npz(path)
    if array.dtype != np.float16:
        raise DataError(f"{path}: voxels of type {array.dtype}, expected float16 (format learn2reg-2020)")
    half = half_shape(grid.shape)
    shapes = ((dims, *half), (dims, *grid.shape))
    if array.shape not in shapes:
        hint = "The components come last; they must come first" if array.shape[-1:] == (dims,) else ""
        raise DataError(f"{path}: shape {array.shape}, expected {shapes[0]} (half) or {shapes[1]} (full). {hint}")
    _check_numbers(path, array)
    u = decode_2020(array, grid.shape)
    _check_values(path, u, u, "voxels")
    return u


def _load_npz(path: Path) -> NDArray[Any]:
    """The only array of an npz file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise DataError(f"{path}: holds the arrays {archive.files}, expected one (arr_0)")
            return np.asarray(archive[archive.files[0]])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: unreadable or truncated npz file ({error})") from error


def _check_numbers(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        raise DataError(f"{path}: values of type {array.dtype}, expected floating point displacements")
    finite = np.isfinite(array)
    if not finite.all():
        raise DataError(f"{path}: the field holds {int((~finite).sum())} NaN or infinite values")


def write_learn2reg(path: str | Path, field: DisplacementField | Tensor | NDArray[Any]) -> None:
    """Writes a field as the challenge takes it since 2022: `(X, Y, Z, 3)`, voxels, on the fixed grid.

    Args:
        path: `.nii.gz` (float32) or `.npz` (float16 under the key `arr_0`, as the challenge intends).
        field: a batch of one, or `u` as `(1, D, *S)` or `(D, *S)` in voxels.

    Raises:
        DataError: not one field, NaN or infinite values, values beyond float16, or another suffix.
    """
    path = Path(path)
    array = np.moveaxis(_single(path, field), 0, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npz":
        np.savez_compressed(path, arr_0=as_float16(array, str(path)))
    elif nifti.is_nifti(path):
        write_sitk(path, sitk.GetImageFromArray(np.ascontiguousarray(array.T.astype(np.float32)), isVector=False))
    else:
        raise DataError(f"{path}: expected a name ending in .nii.gz or .npz")


def write_learn2reg_2020(
    path: str | Path, field: DisplacementField | Tensor | NDArray[Any], *, half: bool = True
) -> None:
    """Writes a field as the challenge took it in 2020: float16 `(3, X', Y', Z')` in an npz file.

    Args:
        path: `.npz`.
        field: a batch of one, or `u` as `(1, D, *S)` or `(D, *S)` in voxels of the full grid.
        half: at half resolution, by a spline of order 2 (tasks 1 to 3); the hippocampus task took the full one.

    Raises:
        DataError: as `write_learn2reg`.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: expected a name ending in .npz")
    stored = encode_2020(_single(path, field), half=half, name=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, arr_0=stored)


# -------------------------------------------------------------------------------------------- plausibility


def _check_values(path: Path, stored: NDArray[Any], u: NDArray[Any], unit: str) -> None:
    """Warns of values that look like another quantity than displacements in `unit`.

    `stored` are the values of the file, `u` the same in voxels, both `(D, *S)`.
    """
    largest = float(np.abs(stored).max(initial=0.0))
    shape = u.shape[1:]
    if largest == 0:
        return
    doubt = ""
    if min(shape) >= _LARGE_AXIS:
        if _is_ramp(u, [n - 1.0 for n in shape]) or (largest <= 1.5 and _is_ramp(stored, [2.0] * len(shape))):
            doubt = "the values grow steadily along the axes as positions or a normalised sampling grid do"
        elif largest <= 1:
            doubt = (
                f"no value exceeds {largest:.3g} on a grid of {shape}: these may be normalised coordinates (-1 to 1)"
            )
    limit = np.asarray(shape).reshape(-1, *(1,) * len(shape))
    leaving = float((np.abs(u) >= limit).any(axis=0).mean())
    if leaving > _MOST_LEAVING:
        doubt = f"{leaving:.0%} of the displacements are longer than the image: wrong unit or order of axes?"
    if doubt:
        message = f"{path}: {doubt}; expected displacements in {unit}, zero where nothing moves"
        warnings.warn(message, DisplacementWarning, stacklevel=4)


def _is_ramp(values: NDArray[Any], rises: list[float]) -> bool:
    """Whether every component is nearly a straight line along its own axis that rises by `rises` in all."""
    for axis, (component, rise) in enumerate(zip(values, rises, strict=True)):
        others = tuple(a for a in range(component.ndim) if a != axis)
        profile = component.mean(axis=others)
        slope = np.polyfit(np.arange(len(profile)), profile, 1)[0]
        scatter = float(np.std(component - np.expand_dims(profile, others)))
        if abs(slope * (len(profile) - 1) - rise) > 0.25 * rise or scatter > 0.25 * rise:
            return False
    return True
