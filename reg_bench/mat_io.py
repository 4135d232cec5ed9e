"""Variables of MATLAB files: version 7 and older through SciPy, version 7.3 (HDF5) through h5py.

Both give the same arrays, axes in MATLAB's order: HDF5 holds them reversed, and cell arrays as references.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import io as scipy_io
from scipy.io.matlab import MatReadError

from reg_bench.errors import DataError, MissingExtraError
from reg_bench.file_state import kept_while_unchanged

Index = tuple[int | slice, ...]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What SciPy and h5py raise for a file that is damaged or of another kind.
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, zlib.error, struct.error, MatReadError)
_MI_MATRIX, _MI_COMPRESSED = 14, 15


def mat_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every variable, without reading their values.

    Raises:
        DataError: missing, not a MATLAB file, or shorter than its parts say.
        MissingExtraError: version 7.3 without h5py.
    """
    if _is_hdf5(path):
        h5py = _h5py(path)
        with _opened(h5py, path) as file:
            return {
                name: tuple(int(n) for n in reversed(item.shape))
                for name, item in file.items()
                if isinstance(item, h5py.Dataset)
            }
    _check_length(path)
    try:
        return {name: tuple(int(n) for n in shape) for name, shape, _ in scipy_io.whosmat(str(path))}
    except (*_UNREADABLE, NotImplementedError) as error:
        raise _unreadable(path, error) from error


def read_mat_array(path: Path, name: str, index: Index = ()) -> NDArray[Any]:
    """The part `index` of a numeric variable, in MATLAB's order of axes; of version 7.3 only that part is read.

    Raises:
        DataError: unreadable, no such variable, or not numeric.
        MissingExtraError: version 7.3 without h5py.
    """
    if _is_hdf5(path):
        with _opened(_h5py(path), path) as file:
            item = _variable(path, file, name)
            whole = index + (slice(None),) * (len(item.shape) - len(index))
            try:
                array = np.asarray(item[tuple(reversed(whole))]).T
            except _UNREADABLE as error:
                raise _unreadable(path, error) from error
    else:
        array = _kept_v5(str(path), name)[index]
    if array.dtype.kind not in "iufb":
        raise DataError(f"{path}: {name} holds {array.dtype} values, expected numbers")
    return array


def read_mat_cells(path: Path, name: str) -> NDArray[np.object_]:
    """A cell array of numeric arrays as an object array of the same shape; empty cells are arrays of size 0.

    Raises:
        DataError: unreadable, no such variable, or not a cell array.
        MissingExtraError: version 7.3 without h5py.
    """
    if not _is_hdf5(path):
        cells = _read_v5(str(path), name)
        if cells.dtype != object:
            raise DataError(f"{path}: {name} is no cell array but holds {cells.dtype} values")
        return cells
    h5py = _h5py(path)
    with _opened(h5py, path) as file:
        item = _variable(path, file, name)
        if h5py.check_ref_dtype(item.dtype) is not h5py.Reference:
            raise DataError(f"{path}: {name} is no cell array but holds {item.dtype} values")
        try:
            references = item[()].T
            cells = np.empty(references.shape, dtype=object)
            for place, reference in np.ndenumerate(references):
                cell = file[reference]
                cells[place] = np.zeros((0, 0)) if cell.attrs.get("MATLAB_empty", 0) else np.asarray(cell[()]).T
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
    return cells


def _is_hdf5(path: Path) -> bool:
    """Whether this is a file of version 7.3: HDF5 behind 512 bytes of MATLAB's header, or without them."""
    try:
        with path.open("rb") as file:
            start = file.read(520)
    except OSError as error:
        raise DataError(f"{path}: " + ("cannot be read" if path.exists() else "no such file")) from error
    # A file cut off inside the header is of 7.3 all the same.
    return _HDF5_SIGNATURE in (start[:8], start[512:520]) or start.startswith(b"MATLAB 7.3")


def _h5py(path: Path) -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f"{path.name}: reading a MATLAB 7.3 file", "h5py", "data") from error
    return h5py


def _opened(h5py: ModuleType, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise _unreadable(path, error) from error


def _variable(path: Path, variables: Mapping[str, Any], name: str) -> Any:
    if name not in variables:
        there = ", ".join(sorted(n for n in variables if not n.startswith(("_", "#")))) or "none"
        raise DataError(f"{path}: no variable {name!r}; it holds {there}")
    return variables[name]


def _read_v5(path: str, name: str) -> NDArray[Any]:
    """A whole variable."""
    try:
        variables = scipy_io.loadmat(path, variable_names=[name])
    except (*_UNREADABLE, NotImplementedError) as error:
        raise _unreadable(Path(path), error) from error
    if name not in variables:
        variables = dict.fromkeys(n for n, _, _ in scipy_io.whosmat(path))
    return np.asarray(_variable(Path(path), variables, name))


# The last array is kept, because every part of it needs the whole file.
_kept_v5 = kept_while_unchanged(1)(_read_v5)


def _check_length(path: Path) -> None:
    """That a file of version 5 to 7 holds the bytes that its parts announce; other files are left to SciPy."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
        if order is None:
            if size < 128:
                raise DataError(f"{path}: unreadable or truncated MATLAB file of {size} bytes")
            return
        position = 128
        while position < size:
            file.seek(position)
            tag = file.read(8)
            kind, length = struct.unpack(f"{order}2I", tag) if len(tag) == 8 else (_MI_MATRIX, 0)
            if kind not in (_MI_MATRIX, _MI_COMPRESSED):
                return
            position += 8 + length
        if position > size:
            raise DataError(f"{path}: truncated MATLAB file, {size} bytes; expected {position}")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: unreadable or truncated MATLAB file ({type(error).__name__}: {error})")
