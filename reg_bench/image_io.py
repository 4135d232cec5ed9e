"""Images from and to files, with the geometry that their headers give.

Arrays are in index order x, y, z (NIfTI's; the transpose of SimpleITK's numpy arrays). A `Grid` is LPS in mm, as
ITK has it; affines are RAS, as NIfTI has them. Every error names the file and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from reg_bench import nifti
from reg_bench.errors import DataError
from reg_bench.grid import Grid, grids_equal

Kind = Literal["image", "labels", "mask"]
PathLike = str | Path

# Formats that have no spacing to speak of: what some of them store is dots per inch for printing.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class LoadedImage:
    """An image and its place in the world.

    Attributes:
        array: index order x, y, z; float32 for images, an integer type for labels, bool for masks.
        grid: where the voxels lie.
        path: the file that it came from.
        spacing_known: `False` for pictures such as PNG, whose grid has a nominal spacing of 1.
    """

    array: NDArray[Any]
    grid: Grid
    path: Path
    spacing_known: bool = True


def read_image(path: PathLike, *, kind: Kind = "image") -> LoadedImage:
    """A 2-D or 3-D image of one channel from NIfTI, MHA, NRRD, PNG and whatever else SimpleITK reads.

    Trailing axes of length 1 are dropped: a volume of one slice becomes a 2-D image. Colour pictures become their
    luminance (ITU-R BT.601), a transparency channel is ignored.

    Args:
        path: the file.
        kind: `image` gives float32; `labels` an integer type that torch knows, and requires whole numbers;
            `mask` gives bool, true wherever the file is not zero.

    Raises:
        DataError: the file is missing, unreadable or truncated; wrong dimensionality; NaN or infinite voxels; a
            constant image; zero spacing or a singular affine; fractional labels; labels or mask with nothing in.
    """
    path = Path(path)
    stored, grid = read_voxels(path)
    checks = {"image": _as_image, "labels": _as_labels, "mask": _as_mask}
    if kind not in checks:
        raise ValueError(f"read_image: kind must be one of {tuple(checks)}, got {kind!r}")
    array = checks[kind](path, np.asarray(stored))
    return LoadedImage(np.ascontiguousarray(array), grid, path, path.suffix.lower() not in PICTURE_SUFFIXES)


def read_voxels(path: Path) -> tuple[NDArray[Any], Grid]:
    """Voxels as stored, one channel, with their grid; 2-D or 3-D. What the voxels hold is not checked.

    Raises:
        DataError: as `read_image`, the contents of the voxels apart.
    """
    _check_file(path)
    array: NDArray[Any] | None = None
    if nifti.is_nifti(path):
        header, array = nifti.read_array(path)
        nifti.check_geometry(path, header)
        if header.intent == nifti.INTENT_VECTOR:
            raise DataError(f"{path}: a vector image of shape {header.shape} (intent 1007), expected one channel")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if array is None:
            image = reader.Execute()
            array = _one_channel(path, image)
        else:
            reader.ReadImageInformation()
            image = reader
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable or truncated image ({reason(error)})") from error
    grid = _grid_of(path, image)
    return array.reshape(grid.shape, order="F"), grid


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: " + ("expected an image file, this is a folder" if path.exists() else "no such file"))


def _grid_of(path: Path, image: Any) -> Grid:
    """The grid of a SimpleITK image, or of a reader that has read the header."""
    shape = tuple(int(n) for n in image.GetSize())
    dims = len(shape)
    while dims > 2 and shape[dims - 1] == 1:
        dims -= 1
    if dims not in (2, 3):
        raise DataError(f"{path}: {dims} axes, shape {shape}; expected a 2-D or 3-D image")
    try:
        return squeezed_grid(shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection(), dims)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_grid(path: PathLike) -> Grid:
    """The grid of the image that `read_image` would read, from its header alone; the voxels are not looked at.

    Truncated NIfTI files are recognised by their length.

    Raises:
        DataError: missing, not an image, truncated, wrong dimensionality, zero spacing, singular affine.
    """
    path = Path(path)
    _check_file(path)
    if nifti.is_nifti(path):
        header = nifti.read_header(path)
        nifti.check_geometry(path, header)
        nifti.check_length(path, header)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable or truncated image ({reason(error)})") from error
    return _grid_of(path, reader)


def reason(error: RuntimeError) -> str:
    """The last lines of an ITK message, which hold the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-2:])[-200:] or type(error).__name__


def _one_channel(path: Path, image: sitk.Image) -> NDArray[Any]:
    """The array of an image in index order; colour as luminance."""
    # GetArrayFromImage copies: a view would outlive the image that owns the memory.
    array = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if channels == 1:
        return array.T
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    if not picture or channels not in (2, 3, 4):
        raise DataError(f"{path}: {channels} channels, expected one")
    if channels == 2:  # grey and transparency
        return array[..., 0].T
    red, green, blue = (array[..., c] for c in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red.T
    return (0.299 * red + 0.587 * green + 0.114 * blue).T


def squeezed_grid(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
    dims: int,
) -> Grid:
    """The grid of the first `dims` axes.

    A slice that lies obliquely in space gets coordinates in its own plane, so that slices of one orientation keep
    their places relative to each other.
    """
    matrix = np.asarray(direction, dtype=np.float64).reshape(len(shape), len(shape))
    inner, place = matrix[:dims, :dims], np.asarray(origin, dtype=np.float64)[:dims]
    if len(shape) > dims and not np.allclose(inner @ inner.T, np.eye(dims), atol=1e-4):
        inner, place = np.eye(dims), (matrix.T @ np.asarray(origin))[:dims]
    return Grid(
        shape[:dims],
        tuple(float(s) for s in spacing[:dims]),
        tuple(float(o) for o in place),
        tuple(float(d) for d in inner.ravel()),
    )


def _check_finite(path: Path, array: NDArray[Any]) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise DataError(f"{path}: {bad} of {array.size} voxels are NaN or infinite; expected finite intensities")


def _as_image(path: Path, array: NDArray[Any]) -> NDArray[np.float32]:
    # Values beyond float32 become infinite and are reported as such by the check.
    with np.errstate(over="ignore"):
        image = array.astype(np.float32, order="C")
    _check_finite(path, image)
    if image.size and image.min() == image.max():
        raise DataError(f"{path}: a constant image, every voxel is {image.flat[0]:g}; there is nothing to register")
    return image


def _as_labels(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    _check_finite(path, array)
    if np.issubdtype(array.dtype, np.floating):
        whole = np.rint(array)
        if not np.array_equal(whole, array):
            example = array[whole != array].flat[0]
            raise DataError(f"{path}: labels must be whole numbers, found {example:g}; was the map interpolated?")
        array = whole.astype(np.int64)
    elif array.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be whole numbers, got voxels of type {array.dtype}")
    if not array.any():
        raise DataError(f"{path}: holds no label, every voxel is 0 (background)")
    # torch has no arithmetic on wide unsigned integers; int64 maps of small labels would only cost memory.
    if (array.dtype.kind == "u" and array.dtype.itemsize > 1) or array.dtype.itemsize == 8:
        wide = array.min() < np.iinfo(np.int32).min or array.max() > np.iinfo(np.int32).max
        array = array.astype(np.int64 if wide else np.int32)
    return array.astype(array.dtype.newbyteorder("="))


def _as_mask(path: Path, array: NDArray[Any]) -> NDArray[np.bool_]:
    _check_finite(path, array)
    mask = array != 0
    if not mask.any():
        raise DataError(f"{path}: an empty mask, every voxel is 0")
    return mask


def to_sitk(array: NDArray[Any], grid: Grid, *, vector: bool = False) -> sitk.Image:
    """A SimpleITK image of an array in index order; with `vector` the last axis holds the components."""
    data = np.moveaxis(array, -1, 0).T if vector else array.T
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif data.dtype == np.float16:
        data = data.astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data), isVector=vector)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def write_image(path: PathLike, array: Any, grid: Grid) -> None:
    """Writes an image; the format follows from the name.

    Args:
        path: `.nii`, `.nii.gz`, `.mha`, `.nrrd`; `.png` for 2-D uint8 and uint16.
        array: numpy array or tensor in index order, of the shape of the grid, perhaps with leading axes of
            length 1 (batch and channel). bool becomes uint8.
        grid: its place in the world.

    Raises:
        DataError: shape and grid do not fit, or the format cannot hold the array.
    """
    values = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    while values.ndim > grid.dimension and values.shape[0] == 1:
        values = values[0]
    if values.shape != grid.shape:
        raise DataError(f"{path}: the array has shape {values.shape}, expected {grid.shape} as its grid")
    write_sitk(path, to_sitk(values, grid))


def write_sitk(path: PathLike, image: sitk.Image) -> None:
    """Writes a SimpleITK image, compressed; folders are made.

    Raises:
        DataError: the file cannot be written or the format cannot hold the image.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written as {image.GetPixelIDTypeAsString()} ({reason(error)})") from error


_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline}


def resample_to(image: LoadedImage, grid: Grid, mode: str = "linear") -> LoadedImage:
    """An image on another grid, in physical space: the headers say where the voxels lie.

    Voxels of `grid` outside the image get the image's minimum in the modes `linear` and `cubic` (B-spline), and 0
    in the mode `nearest` of labels and masks. Equal grids give the image back unchanged.

    Raises:
        DataError: the images differ in dimension.
    """
    if mode not in _INTERPOLATORS:
        raise ValueError(f"resample_to: mode must be one of {tuple(_INTERPOLATORS)}, got {mode!r}")
    if grid.dimension != image.grid.dimension:
        raise DataError(f"{image.path}: a {image.grid.dimension}-D image, expected {grid.dimension}-D")
    if grids_equal(image.grid, grid):
        return LoadedImage(image.array, grid, image.path, image.spacing_known)
    source = to_sitk(image.array, image.grid)
    background = 0.0 if mode == "nearest" else float(image.array.min())
    target = (grid.shape, sitk.Transform(), _INTERPOLATORS[mode], grid.origin, grid.spacing_mm, grid.direction)
    moved = sitk.Resample(source, *target, background)
    array = np.ascontiguousarray(sitk.GetArrayFromImage(moved).T).astype(image.array.dtype, copy=False)
    return LoadedImage(array, grid, image.path, image.spacing_known)
