"""Reads the files of a submission, from its zip or from the folder that was or is to be packed."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_bench import nifti
from reg_bench.errors import DataError

_TASK_FOLDER = re.compile(r"task_\d+", re.IGNORECASE)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Stored:
    """The array of a file.

    Attributes:
        array: as stored.
        key: its name in an npz file, empty for NIfTI.
        keys: all names in the npz file.
        intent: NIfTI intent code, 0 for npz.
    """

    array: NDArray[Any]
    key: str = ""
    keys: tuple[str, ...] = ()
    intent: int = 0


class Archive:
    """The files of a submission by the path that they have for the evaluation.

    Args:
        path: a zip or a folder.

    Attributes:
        top: folder in the zip that everything lies in, though it should lie at its top; empty as it should be.

    Raises:
        DataError: neither a zip that can be read nor a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zipped = not path.is_dir()
        if self.zipped and not path.is_file():
            raise DataError(f"{path}: no such file; expected the zip of a submission")
        try:
            self._sizes = self._listed()
        except _BROKEN as error:
            raise DataError(f"{path}: not a zip that can be read, or cut off ({error})") from error
        self.top = self._top()
        self._original = {name[len(self.top) :]: name for name in self._sizes}

    def _listed(self) -> dict[str, int]:
        if not self.zipped:
            files = sorted(p for p in self.path.rglob("*") if p.is_file())
            return {p.relative_to(self.path).as_posix(): p.stat().st_size for p in files}
        with zipfile.ZipFile(self.path) as archive:
            return {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}

    def _top(self) -> str:
        firsts = {name.split("/", 1)[0] for name in self._sizes if not name.startswith("__MACOSX/")}
        inside = all("/" in name for name in self._sizes)
        (only,) = firsts if len(firsts) == 1 else ("",)
        return f"{only}/" if only and inside and not _TASK_FOLDER.fullmatch(only) else ""

    @property
    def names(self) -> list[str]:
        """The paths of all files, `top` left out."""
        return list(self._original)

    def size(self, name: str) -> int:
        """Bytes of a file, unpacked from the zip."""
        return self._sizes[self._original[name]]

    @property
    def twice(self) -> list[str]:
        """Names that the zip holds more than once."""
        if not self.zipped:
            return []
        with zipfile.ZipFile(self.path) as archive:
            names = [info.filename for info in archive.infolist()]
        return sorted({name for name in names if names.count(name) > 1})

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: damaged in the zip.
        """
        original = self._original[name]
        try:
            if not self.zipped:
                return (self.path / original).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(original)
        except _BROKEN as error:
            raise DataError(f"{name}: damaged in the zip ({error})") from error

    @contextlib.contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """The file on disk, for as long as it is needed.

        Raises:
            DataError: damaged in the zip.
        """
        if not self.zipped:
            yield self.path / self._original[name]
            return
        with tempfile.TemporaryDirectory(prefix="submission-") as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(self.read(name))
            yield path

    def load(self, name: str) -> Stored:
        """The array in a file, an npz's first.

        Raises:
            DataError: damaged, no array, or a file of another kind.
        """
        if name.lower().endswith(".npz"):
            return _from_npz(name, self.read(name))
        with self.as_file(name) as path:
            try:
                header, array = nifti.read_array(path)
            except DataError as error:
                raise DataError(str(error).replace(str(path), name)) from error
            except (*_BROKEN, ValueError) as error:
                raise DataError(f"{name}: cannot be read ({error})") from error
        if array is None:
            raise DataError(f"{name}: voxels of a type that is not read, expected floating point")
        return Stored(np.asarray(array), intent=header.intent)


def _from_npz(name: str, content: bytes) -> Stored:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            keys = tuple(archive.files)
            if not keys:
                raise DataError(f"{name}: holds no array")
            return Stored(np.asarray(archive[keys[0]]), keys[0], keys)
    except DataError:
        raise
    except (*_BROKEN, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{name}: not an npz file that can be read, or damaged ({error})") from error
