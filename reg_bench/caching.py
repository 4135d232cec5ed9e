"""Caching of `RegistrationPair`s with MONAI's datasets.

MONAI caches the part of a pipeline that consists of `Transform` objects, stores tensors and plain containers,
and reads them back with torch's `weights_only` loader. A pair is therefore cached as a dictionary and put
together again behind the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose, Transform

from reg_bench.errors import DataError
from reg_bench.file_state import file_state
from reg_bench.types import PointPairs, RegistrationPair

Record = Mapping[str, Any]
Load = Callable[[Record], RegistrationPair]


class PairTransform(ABC):
    """Whatever makes one pair of another, such as an augmentation; settings name it by its `class_path`.

    In a training the random states of Python, NumPy and torch are seeded anew for every pair, so what is drawn from
    them is the same in any process and after a restart.
    """

    def restart(self) -> None:  # noqa: B027 (nothing to do without a generator of one's own)
        """Called before every pair of a training: a generator of one's own begins anew, from torch's seed."""

    @abstractmethod
    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        """The changed pair; the given one stays as it is."""


# Raised when the layout of a cached case changes, so that old files are never read.
_LAYOUT = 1


def pack(pair: RegistrationPair) -> dict[str, Any]:
    """`pair` as a dictionary of tensors, tuples, text and numbers only; absent fields are left out."""
    packed: dict[str, Any] = {}
    for f in fields(pair):
        value = getattr(pair, f.name)
        if value is None:
            continue
        if f.name == "points":
            value = {name: {"fixed": p.fixed, "moving": p.moving} for name, p in value.items()}
        elif f.name == "label_names":
            value = dict(value)
        elif f.name == "scored":
            value = pack(value)
        packed[f.name] = value
    return packed


def unpack(packed: Mapping[str, Any]) -> RegistrationPair:
    """The pair that `pack` took apart."""
    values = dict(packed)
    if "points" in values:
        values["points"] = {
            name: PointPairs(tuple(p["fixed"]), tuple(p["moving"])) for name, p in values["points"].items()
        }
    for name in ("case_ids", "frames", "tasks"):
        if name in values:
            values[name] = tuple(values[name])
    if "scored" in values:
        values["scored"] = unpack(values["scored"])
    return RegistrationPair(**values)


class LoadCase(Transform):
    """From record to packed pair; a MONAI `Transform` because MONAI caches nothing else."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def __call__(self, record: Record) -> dict[str, Any]:
        return pack(self.load(record))


class Pipeline(Compose):
    """A MONAI `Compose` that lets errors through: MONAI's own replaces the message by "applying transform"."""

    def __call__(  # type: ignore[no-untyped-def]
        self, input_: Any, start: int = 0, end: int | None = None, threading: bool = False, lazy=None
    ) -> Any:
        for step in self.transforms[start:end]:
            input_ = step(input_)
        return input_


class DiskCache(PersistentDataset):
    """MONAI's `PersistentDataset` that several processes can fill and read at the same time.

    MONAI writes to the system's temporary folder and moves the file from there, which is a plain copy where
    the two lie on different disks: a second process can read half a file. Here the file is written beside
    its place and renamed, which is atomic; whatever cannot be read is computed again.
    """

    def _cachecheck(self, item_transformed: Any) -> Any:
        if self.cache_dir is None:
            raise DataError("a disk cache needs a folder")
        path = self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt"
        if path.is_file():
            try:
                return torch.load(path, weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                warnings.warn(f"{path}: the cached case is unreadable and is computed again ({error})", stacklevel=2)
        item = self._pre_transform(deepcopy(item_transformed))
        self._write(item, path)
        return item

    @staticmethod
    def _write(item: Any, path: Path) -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(item, file)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def cached_dataset(
    records: Sequence[Record],
    load: Load,
    *,
    cache: str = "none",
    cache_dir: str | os.PathLike[str] | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> Dataset:
    """A MONAI dataset of pairs.

    Args:
        records: one per case.
        load: record to pair; same record, same pair.
        cache: `none`; `memory`, each case kept when first used (so that a case that cannot be loaded fails
            alone); `disk`, in `cache_dir`.
        configuration: what, beside the record, decides the pair; part of the key of the disk cache.

    Raises:
        DataError: an unknown cache, or a disk cache without folder.
    """
    # Plain functions are no `Transform`s: MONAI runs them behind the cache, on a copy of what it holds.
    pipeline = Pipeline([LoadCase(load), unpack])
    if cache == "none":
        return Dataset(records, pipeline)
    if cache == "memory":
        return CacheDataset(records, pipeline, runtime_cache=True, progress=False)
    if cache != "disk":
        raise DataError(f"cache must be 'none', 'memory' or 'disk', got {cache!r}")
    if cache_dir is None:
        raise DataError("cache='disk' needs cache_dir")
    return DiskCache(records, pipeline, cache_dir=cache_dir, hash_func=RecordKey(configuration or {}))


class RecordKey:
    """Key of a record in the disk cache: its content, the configuration and the state of the files it names."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self.configuration = configuration

    def __call__(self, record: Record) -> bytes:
        content = [_LAYOUT, _jsonable(self.configuration), _jsonable(record)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest().encode()


def _jsonable(value: Any) -> Any:
    """`value` with every existing file replaced by its path, size and times of change."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, str | Path):
        return file_state(value) or str(value)
    return value if isinstance(value, int | float | bool | None) else repr(value)
