"""Clips of the sequences of another dataset, for training on several frames at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset

from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.errors import ConfigError, DataError
from reg_bench.sequence_batches import clip_of, collate_sequences
from reg_bench.survey import Survey
from reg_bench.training_order import LateLoader, TrainingCases, TrainingOrder, shuffled
from reg_bench.types import ImageSequence, RegistrationPair

# Settings of the dataset that say where it lies, not what it is.
_PLACES = ("root", "csv")


class Clips(RegistrationDataModule):
    """Sequences of another dataset, whole or in clips; its loaders deliver `ImageSequence`, a batch of clips at a time.

    An epoch of training goes through all training sequences in a new random order and takes `length` frames of each,
    from a frame on that is drawn anew; the first of them is the reference. All follows from (seed, epoch). Validation
    and test sequences are taken from their first frame on. As the data of a suite it is what it is made of.

    Batches of more than one clip need sequences of equal size. What only some have is left out.

    Args:
        sequences: `name` (see `reg-bench list datasets`) or `class_path`, and as wished `init_args`, of a dataset of
            sequences.
        length: frames of a clip; whole sequences if not given.
        limit: at most so many sequences of each split.
        root: for a dataset that has no `root` of its own: the folder that holds its folder.
        options: `batch_size`, `num_workers`, `seed` of `RegistrationDataModule`.

    Raises:
        ConfigError: no dataset of sequences, a `length` below 2, a `limit` below 1.
    """

    name: ClassVar[str] = "clips"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    source: ClassVar[str] = "that of its dataset: see `reg-bench data describe` of it"
    splits: ClassVar[str] = "those of its dataset"

    def __init__(
        self,
        sequences: dict[str, Any],
        *,
        length: int | None = None,
        limit: int | None = None,
        root: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if length is not None and length < 2:
            raise ConfigError(f"{self.name}: length must be at least 2 frames, got {length}")
        if limit is not None and limit < 1:
            raise ConfigError(f"{self.name}: limit must be at least 1, got {limit}")
        self.length, self.limit, self.root = length, limit, root
        self._inner = self._built(sequences)
        init_args = {k: v for k, v in dict(sequences.get("init_args") or {}).items() if k not in _PLACES}
        # Without the places, so that the same data elsewhere has the same checksum.
        self.sequences = {**sequences, "init_args": init_args}

    def _built(self, given: Mapping[str, Any]) -> RegistrationDataModule:
        from reg_bench.discovery import build_datamodule, nearest

        keys = ("name", "class_path", "init_args")
        unknown = [key for key in given if key not in keys]
        if unknown:
            raise ConfigError(f"{self.name}: sequences: unknown key {unknown[0]!r}{nearest(str(unknown[0]), keys)}")
        name = given.get("class_path") or given.get("name")
        if not isinstance(name, str):
            raise ConfigError(f"{self.name}: sequences: expected `name` or `class_path`, got {dict(given)!r}")
        try:
            inner = build_datamodule({"class_path": name, "init_args": given.get("init_args")}, self.root)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: sequences: {error}") from error
        if type(inner).sequence is RegistrationDataModule.sequence:
            raise ConfigError(f"{self.name}: sequences: {inner.name} holds pairs, not sequences")
        return inner

    def look_through(self) -> Survey:
        return self._inner.survey()

    def load(self, record: Record) -> RegistrationPair:
        """The pair of `record`, of its whole sequence."""
        return self._inner.load(record)

    def sequence(self, record: Record) -> ImageSequence:
        """The whole sequence of `record`."""
        return self._inner.sequence(record)

    def clips(self, split: Split) -> Dataset[ImageSequence]:
        """A clip of every sequence of `split`; those for training begin where torch's random state says."""
        self.case_ids(split)
        records = self.sequence_records(split)[: self.limit]
        return _ClipsOf(self._inner, records, self.length, drawn=split == "train")

    def train_dataloader(self) -> DataLoader[ImageSequence]:  # type: ignore[override]
        """Clips of the training sequences, each sequence once in an epoch, in an order of seed and epoch."""
        clips: Any = self.clips("train")
        order = shuffled(self.seed, len(clips), self.name)
        return LateLoader(
            TrainingCases(clips, None, self.seed),  # type: ignore[arg-type]
            batch_size=self.batch_size,
            sampler=TrainingOrder(order, len(clips), self.batch_size, lambda: self.trainer),
            num_workers=self.num_workers,
            collate_fn=collate_sequences,
            persistent_workers=self.num_workers > 0,
        )

    def _loader(self, split: Split) -> DataLoader[ImageSequence]:  # type: ignore[override]
        return DataLoader(
            self.clips(split),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate_sequences,
            persistent_workers=self.num_workers > 0,
        )


class _ClipsOf(Dataset[ImageSequence]):
    def __init__(
        self, data: RegistrationDataModule, records: Sequence[Record], length: int | None, drawn: bool
    ) -> None:
        self.data, self.records, self.length, self.drawn = data, list(records), length, drawn

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ImageSequence:
        sequence = self.data.sequence(self.records[index])
        if self.length is None:
            return sequence
        spare = sequence.length - self.length
        if spare < 0:
            raise DataError(
                f"clips: {', '.join(sequence.case_ids)} has {sequence.length} frames, expected at least {self.length}"
            )
        # Of a sequence in which another frame is the reference, no clip would have one that was given.
        first = int(torch.randint(spare + 1, ())) if self.drawn else min(sequence.reference, spare)
        return clip_of(sequence, first, self.length)
