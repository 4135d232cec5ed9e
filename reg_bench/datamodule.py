"""What a dataset is: the base of everything in `datamodules/`.

A dataset is one file with one final class that names itself, lists its cases cheaply (`records`, or `look_through`
for a folder of files) and turns a record into a `RegistrationPair` (`load`). MONAI caches, Lightning distributes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from monai.data import Dataset
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from reg_bench.caching import PairTransform, cached_dataset
from reg_bench.errors import ConfigError, DataError
from reg_bench.splits import SPLITS, Split
from reg_bench.survey import Record, Survey, subjects_of
from reg_bench.training_order import LateLoader, TrainingCases, TrainingOrder, shuffled
from reg_bench.types import ImageSequence, RegistrationPair, collate_pairs

if TYPE_CHECKING:
    from reg_bench.learn2reg_task import TaskFiles

# Arguments that decide how cases are delivered or where they are found, but not what they are.
_DELIVERY = frozenset({"self", "root", "batch_size", "num_workers", "cache", "cache_dir", "augmentation"})
# Arguments that name a place: the checksum is the same for the same data in another folder.
_LOCATION = frozenset({"csv"})
# Entries of a record that say with which others it belongs together, not what it is.
_GROUPING = frozenset({"subjects", "sequence"})


class RegistrationDataModule(LightningDataModule, ABC):
    """Cases of one dataset. Subclasses are final and implement `load` and either `records` or `look_through`.

    Class attributes (literals):
        name: what the command line calls it; unique among datasets.
        version: raised when the cases change; part of `checksum`.
        dimensions: spatial dimensions of its cases.
        licence: of the data.
        folder: where it lies below `REG_BENCH_DATA` when no `root` is given; empty for generated data.
        source: where to obtain the data, with the reference to cite.
        layout: the files that are expected below the root, a line each.
        splits: who is in train, val and test.

    `source`, `layout` and `splits` are what `reg-bench data describe` prints; the first two stand in the error for
    a folder that is not there.

    Args:
        batch_size: cases per batch; 1 wherever shapes differ and for benchmarking.
        num_workers: loading processes.
        cache: `memory` (MONAI `CacheDataset`), `disk` (MONAI `PersistentDataset` in `cache_dir`) or `none`.
        cache_dir: folder of the disk cache, which several processes and datasets may share.
        seed: of whatever is drawn at random.
        augmentation: applied to every pair that `train_dataloader` delivers, and to nothing else; see
            `reg_bench.augmentation.Augmentation`.

    A subclass keeps each argument of its constructor as an attribute of that name: from these the disk cache
    and the checksum tell configurations apart (`configuration`).
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    source: ClassVar[str] = ""
    layout: ClassVar[str] = ""
    splits: ClassVar[str] = ""

    def __init__(
        self,
        *,
        batch_size: int = 1,
        num_workers: int = 0,
        cache: Literal["none", "memory", "disk"] = "none",
        cache_dir: str | None = None,
        seed: int = 0,
        augmentation: PairTransform | None = None,
    ) -> None:
        super().__init__()
        if cache == "disk" and cache_dir is None:
            raise DataError(f"{self.name}: cache='disk' needs cache_dir")
        self.augmentation = augmentation
        self.batch_size, self.num_workers = batch_size, num_workers
        self.cache, self.cache_dir, self.seed = cache, cache_dir, seed

    def records(self, split: Split) -> Sequence[Record]:
        """One record per case, without reading images; each has at least a unique `case_id`.

        Of a dataset that implements `look_through`, what that found.

        Raises:
            DataError: files that are missing or do not fit, each named, before any long work begins.
        """
        if type(self).look_through is RegistrationDataModule.look_through:
            raise ConfigError(f"{self.name}: {type(self).__name__} must implement records or look_through")
        return self.survey().cases(self.name, split)

    def look_through(self) -> Survey:
        """Everything there is to know of the data without reading voxels: cases, counts, and all faults at once.

        Datasets of files implement this by a look through their folder; of the rest it tells what `records` says.

        Raises:
            DataError: the root folder does not exist.
        """
        survey = Survey(self.root_folder() if self.folder else None)
        for split in SPLITS:
            try:
                survey.records[split] = list(self.records(split))
            except DataError as error:
                survey.fault("", str(error))
        return survey

    def survey(self) -> Survey:
        """What `look_through` found, which looks only once."""
        return self._looked_through

    @functools.cached_property
    def _looked_through(self) -> Survey:
        survey = self.look_through()
        survey.about = self.about()
        return survey

    @classmethod
    def about(cls) -> tuple[str, ...]:
        """Where the data comes from and what its folder is expected to hold, line by line."""
        about = [f"where to obtain it: {' '.join(inspect.cleandoc(cls.source).split())}"] if cls.source else []
        if cls.layout:
            about += [
                "expected below the folder:" if cls.folder else "expected:",
                *inspect.cleandoc(cls.layout).splitlines(),
            ]
        return tuple(about)

    @abstractmethod
    def load(self, record: Record) -> RegistrationPair:
        """The case of `record` as a batch of one. Same record, same pair, in any process."""

    def challenge(self) -> TaskFiles | None:
        """The task of the Learn2Reg challenge that the cases are of; `None` for all other data."""
        return None

    def sequence(self, record: Record) -> ImageSequence:
        """The sequence that the case of `record` is a frame of; datasets of single pairs have none.

        Raises:
            DataError: this dataset has no sequences.
        """
        raise DataError(f"{self.name}: holds pairs, not sequences")

    def sequence_records(self, split: Split) -> list[Record]:
        """One record per sequence of `split`: the first of each value of their entry `sequence`."""
        first: dict[str, Record] = {}
        for record in self.records(split):
            first.setdefault(_sequence_id(record), record)
        return list(first.values())

    def sequence_ids(self, split: Split) -> list[str]:
        """Identifiers of the sequences of `split`, in order.

        Raises:
            DataError: this dataset has no sequences, an empty split, or an identifier that occurs twice.
        """
        if type(self).sequence is RegistrationDataModule.sequence:
            raise DataError(f"{self.name}: holds pairs, not sequences")
        self.case_ids(split)
        return [_sequence_id(record) for record in self.sequence_records(split)]

    def sequence_case(self, sequence_id: str, split: Split = "test") -> ImageSequence:
        """The sequence called `sequence_id`."""
        for record in self.sequence_records(split):
            if _sequence_id(record) == sequence_id:
                return self.sequence(record)
        raise DataError(f"{self.name}: split {split!r} has no sequence {sequence_id!r}")

    def subjects(self) -> dict[str, list[str]]:
        """Who is in each split, in order; a split that cannot be had is empty."""
        return {
            split: list(dict.fromkeys(s for record in records for s in subjects_of(record)))
            for split, records in self.survey().records.items()
        }

    def root_folder(self) -> Path:
        """The folder of this dataset: its `root`, else `folder` below `REG_BENCH_DATA`.

        Raises:
            DataError: it does not exist; says where the data comes from and what was expected.
        """
        try:
            return resolve_root(self.name, self.folder, getattr(self, "root", None))
        except DataError as error:
            raise DataError("\n  ".join([str(error), *self.about()])) from None

    def case_ids(self, split: Split) -> list[str]:
        """Identifiers of the cases of `split`, in order.

        Raises:
            DataError: an empty split or an identifier that occurs twice.
        """
        ids = [str(r["case_id"]) for r in self.records(split)]
        if not ids:
            raise DataError(f"{self.name}: split {split!r} is empty")
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise DataError(f"{self.name}: split {split!r} has duplicate case ids: {', '.join(twice[:5])}")
        return ids

    def case(self, case_id: str, split: Split = "test") -> RegistrationPair:
        """The case called `case_id`."""
        for record in self.records(split):
            if record["case_id"] == case_id:
                return self.load(record)
        raise DataError(f"{self.name}: split {split!r} has no case {case_id!r}")

    def dataset(self, split: Split, case_ids: Sequence[str] | None = None) -> Dataset:
        """The pairs of `split`, or only those named, cached as configured."""
        self.case_ids(split)
        records = list(self.records(split))
        if case_ids is not None:
            by_id = {str(r["case_id"]): r for r in records}
            unknown = [c for c in case_ids if c not in by_id]
            if unknown:
                raise DataError(f"{self.name}: split {split!r} has no case {unknown[0]!r}")
            records = [by_id[c] for c in case_ids]
        return self._cached(records)

    def configuration(self) -> dict[str, Any]:
        """The arguments of the constructor that decide what the cases are, by name, with their values.

        Raises:
            ConfigError: a subclass does not keep an argument as an attribute of its name.
        """
        values: dict[str, Any] = {}
        for cls in type(self).__mro__:
            if not issubclass(cls, RegistrationDataModule) or "__init__" not in vars(cls):
                continue
            for argument, parameter in inspect.signature(vars(cls)["__init__"]).parameters.items():
                if argument in _DELIVERY or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                    continue
                kept = argument if hasattr(self, argument) else f"_{argument}"
                if not hasattr(self, kept):
                    raise ConfigError(
                        f"{self.name}: {cls.__name__} must keep its argument {argument!r} as self.{argument}"
                    )
                values[argument] = getattr(self, kept)
        return values

    def _cached(self, records: Sequence[Record]) -> Dataset:
        return cached_dataset(
            records,
            self.load,
            cache=self.cache,
            cache_dir=self.cache_dir,
            configuration={"dataset": self.name, "version": self.version, **self.configuration()},
        )

    def checksum(self) -> str:
        """Identifies the data behind the results: name, version, configuration, records of the test split.

        Datasets of files add the size of each file that a record names (entries that are existing paths), or of
        each file in a folder that it names.
        """
        configuration = {k: v for k, v in self.configuration().items() if k not in _LOCATION}
        content: list[Any] = [self.name, self.version, configuration]
        for record in self.records("test"):
            plain = {k: v for k, v in record.items() if isinstance(v, str | int | float | bool | None)}
            entry = {k: v for k, v in plain.items() if k not in _GROUPING}
            content.append({k: _portable(v) for k, v in entry.items()})
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def _loader(self, split: Split) -> DataLoader[RegistrationPair]:
        """The cases of a split in order."""
        self.case_ids(split)
        return DataLoader(
            self._cached(list(self.records(split))),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate_pairs,
            persistent_workers=self.num_workers > 0,
        )

    def _training_loader(
        self, cases: Any, order: Callable[[int], Sequence[int]], length: int, batch_size: int | None = None
    ) -> DataLoader[RegistrationPair]:
        """Augmented cases in an order that is a function of the epoch; see `reg_bench.training_order`."""
        batch_size = batch_size or self.batch_size
        return LateLoader(
            TrainingCases(cases, self.augmentation, self.seed),
            batch_size=batch_size,
            sampler=TrainingOrder(order, length, batch_size, lambda: self.trainer),
            num_workers=self.num_workers,
            collate_fn=_collate_for_training,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[RegistrationPair]:
        """The training cases, augmented, each once in an epoch, in an order that follows from seed and epoch."""
        length = len(self.case_ids("train"))
        cases = self._cached(list(self.records("train")))
        return self._training_loader(cases, shuffled(self.seed, length, self.name), length)

    def val_dataloader(self) -> DataLoader[RegistrationPair]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[RegistrationPair]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[RegistrationPair]:
        return self._loader("test")


def _sequence_id(record: Record) -> str:
    return str(record.get("sequence", subjects_of(record)[0]))


def _collate_for_training(pairs: Sequence[RegistrationPair]) -> RegistrationPair:
    """A batch without the full resolution that only scoring needs."""
    return collate_pairs([replace(pair, scored=None) for pair in pairs])


def _portable(value: Any) -> Any:
    """A file as its name and size, so that the same data in another folder has the same checksum.

    A folder is the files in it.
    """
    if not isinstance(value, str) or os.sep not in value:
        return value
    path = Path(value)
    if path.is_file():
        return [path.name, path.stat().st_size]
    if path.is_absolute() and path.is_dir():
        return [path.name, sorted([p.name, p.stat().st_size] for p in path.iterdir() if p.is_file())]
    return value


def resolve_root(name: str, folder: str, root: str | os.PathLike[str] | None) -> Path:
    """The folder of dataset `name`: `root` (or `folder` below it) if given, else `folder` below `REG_BENCH_DATA`.

    Absolute, so that what a record names is the same file wherever a process works.

    Raises:
        DataError: neither exists; says which was looked for and how to name another.
    """
    if root is not None:
        path = Path(root)
        # The folder that holds several datasets serves as well as that of this one.
        path = path / folder if folder and (path / folder).is_dir() else path
        hint = "given as --data.root"
    elif os.environ.get("REG_BENCH_DATA"):
        path = Path(os.environ["REG_BENCH_DATA"]) / folder
        hint = f"{folder} below REG_BENCH_DATA"
    else:
        raise DataError(
            f"{name}: no data folder: give --data.root DIR, or set REG_BENCH_DATA to the folder that holds {folder!r}"
        )
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{name}: the folder {path} ({hint}) {what}")
    return Path(os.path.abspath(path))
