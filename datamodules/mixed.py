"""Several datasets as one, for training on several tasks at once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from reg_bench.caching import PairTransform
from reg_bench.datamodule import RegistrationDataModule
from reg_bench.errors import ConfigError, DataError
from reg_bench.splits import SPLITS, Split
from reg_bench.survey import Record, Survey, subjects_of
from reg_bench.synthesis import random_generator
from reg_bench.types import ImageSequence, RegistrationPair, collate_pairs

_KEYS = ("name", "class_path", "init_args", "weight", "task")
# Settings of a member that say where its data lies, not what its cases are.
_PLACES = ("root", "csv")


class Mixed(RegistrationDataModule):
    """Several datasets mixed: training cases with given weights, validation and test cases one task after the other.

    An epoch of training has `epoch_cases` cases. Task i gets the share weight_i / sum of weights of them, rounded by
    largest remainders, the same in every epoch. Each task goes through its own cases in a random order, and starts a
    new random order only when all were seen: over the epochs every case of a task comes equally often. The cases of
    the tasks are shuffled together. All follows from (seed, epoch); every process of a distributed training draws
    the same list and takes its share of it.

    Cases are called `task:case` and tell their task in `RegistrationPair.tasks`. Batches hold several cases only if
    the first cases of all tasks agree in shape, in what they have and in the names of the labels; otherwise every
    case comes alone, whatever `batch_size` says.

    Args:
        datasets: each a mapping with `name` (see `reg-bench list datasets`) or `class_path` (package.module.Class),
            and as wished `init_args`, `weight` (1 if not given; 0: validation and test only) and `task` (the name of
            the dataset if not given). Options of loading and caching are those of the mixture; an `augmentation`
            among the `init_args` is applied to the training cases of that task.
        root: for members that have no `root` of their own: the folder that holds their folders.
        epoch_cases: cases per epoch; as many as the tasks with a weight have together if not given.
        options: `batch_size`, `num_workers`, `cache`, `cache_dir`, `seed`, `augmentation` of
            `RegistrationDataModule`.

    Raises:
        ConfigError: no datasets, a task twice, a negative weight, a key or dataset that does not exist.
    """

    name: ClassVar[str] = "mixed"
    version: ClassVar[str] = "1"
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    licence: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    source: ClassVar[str] = "that of the datasets that are mixed: see `reg-bench data describe` of each"
    splits: ClassVar[str] = (
        "those of the datasets that are mixed; a file in train of one and in val or test of another is a fault"
    )

    def __init__(
        self,
        datasets: list[dict[str, Any]],
        *,
        root: str | os.PathLike[str] | None = None,
        epoch_cases: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.epoch_cases = root, epoch_cases
        if not datasets:
            raise ConfigError(f"{self.name}: datasets is empty")
        if epoch_cases is not None and epoch_cases < 1:
            raise ConfigError(f"{self.name}: epoch_cases must be at least 1, got {epoch_cases}")
        self._members: dict[str, RegistrationDataModule] = {}
        self._weights: dict[str, float] = {}
        for number, entry in enumerate(datasets):
            self._add(f"{self.name}: datasets[{number}]", dict(entry))
        if not sum(self._weights.values()) > 0:
            raise ConfigError(f"{self.name}: every weight is 0; expected one above 0 at least")
        own = {task: m.augmentation for task, m in self._members.items() if m.augmentation is not None}
        if own:
            self.augmentation = _ByTask(own, self.augmentation)
        # Without the places, so that the same data elsewhere has the same checksum.
        self.datasets = [{**e, "init_args": _placeless(e.get("init_args"))} for e in datasets]

    def _add(self, where: str, entry: dict[str, Any]) -> None:
        from reg_bench.discovery import build_datamodule, nearest

        unknown = [key for key in entry if key not in _KEYS]
        if unknown:
            raise ConfigError(f"{where}: unknown key {unknown[0]!r}{nearest(str(unknown[0]), _KEYS)}")
        given = entry.get("class_path") or entry.get("name")
        if not isinstance(given, str):
            raise ConfigError(f"{where}: expected the name of a dataset as `name`, or a `class_path`, got {entry!r}")
        weight = entry.get("weight", 1.0)
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(f"{where}: weight must be a number from 0 up, got {weight!r}")
        try:
            member = build_datamodule({"class_path": given, "init_args": entry.get("init_args")}, self.root)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        task = str(entry.get("task") or entry.get("name") or member.name)
        if ":" in task or task in self._members:
            what = "holds a colon" if ":" in task else "occurs twice; give each a `task` of its own"
            raise ConfigError(f"{where}: the task {task!r} {what}")
        self._members[task], self._weights[task] = member, float(weight)

    def look_through(self) -> Survey:
        survey = Survey()
        for task, member in self._members.items():
            try:
                theirs = member.survey()
            except DataError as error:
                survey.fault(task, str(error))
                continue
            for finding in theirs.findings:
                note = survey.fault if finding.severity == "fault" else survey.note
                note(f"{task}: {finding.file}" if finding.file else task, finding.message)
            for what, number in theirs.counts.items():
                survey.count(f"{task}: {what}", number)
            survey.contents.update(theirs.contents)
            if not theirs.faults:
                data = member.checksum()
                for split in SPLITS:
                    survey.records[split] += [self._record(task, data, r) for r in theirs.records[split]]
                if self._weights[task] and not theirs.records["train"] and any(theirs.records.values()):
                    survey.note(task, "no training cases: give it the weight 0 to train on the others")
        self._check_leaks(survey)
        return survey

    @staticmethod
    def _record(task: str, data: str, record: Record) -> Record:
        own: dict[str, Any] = {
            "case_id": f"{task}:{record['case_id']}",
            "subjects": [f"{task}:{s}" for s in subjects_of(record)],
            "task": task,
            "data": data,
            "record": dict(record),
        }
        return {**own, "sequence": f"{task}:{record['sequence']}"} if "sequence" in record else own

    def _check_leaks(self, survey: Survey) -> None:
        """That no file is for training in one task and for validation or test in another."""
        trained: dict[str, str] = {}
        for record in survey.records["train"]:
            trained.update(dict.fromkeys(_files(record), str(record["task"])))
        told = set()
        for split in ("val", "test"):
            for record in survey.records[split]:
                for path in _files(record):
                    key = (trained.get(path, record["task"]), record["task"], split)
                    if key[0] != key[1] and key not in told:
                        told.add(key)
                        survey.fault(path, f"is in train of task {key[0]!r} and in {split} of task {key[1]!r}")

    def load(self, record: Record) -> RegistrationPair:
        task = str(record["task"])
        return _named(self._members[task].load(record["record"]), task)

    def sequence(self, record: Record) -> ImageSequence:
        """The sequence of the member that the case belongs to."""
        task = str(record["task"])
        sequence = self._members[task].sequence(record["record"])
        return replace(sequence, case_ids=tuple(f"{task}:{c}" for c in sequence.case_ids))

    def _loader(self, split: Split) -> DataLoader[RegistrationPair]:
        loader = super()._loader(split)
        if self.batch_size == 1 or self._common(split):
            return loader
        return DataLoader(
            loader.dataset,
            num_workers=self.num_workers,
            collate_fn=loader.collate_fn,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[RegistrationPair]:
        """The cases of an epoch, drawn anew for each."""
        self.case_ids("train")
        draw = self._draw()
        size = self.batch_size if self.batch_size == 1 or self._common("train") else 1
        return self._training_loader(self._cached(list(self.records("train"))), draw, sum(draw.counts), size)

    def _draw(self) -> _Draw:
        tasks: dict[str, list[int]] = {task: [] for task, weight in self._weights.items() if weight > 0}
        for index, record in enumerate(self.records("train")):
            if record["task"] in tasks:
                tasks[record["task"]].append(index)
        empty = [task for task, indices in tasks.items() if not indices]
        if empty:
            raise DataError(f"{self.name}: task {empty[0]!r} has a weight but no training cases; give it the weight 0")
        total = self.epoch_cases or sum(len(indices) for indices in tasks.values())
        counts = shares(total, [self._weights[task] for task in tasks])
        return _Draw(self.seed, list(tasks), list(tasks.values()), counts)

    def _common(self, split: Split) -> bool:
        """Whether the first cases of all tasks fit into one batch."""
        first: dict[str, Record] = {}
        for record in self.records(split):
            first.setdefault(str(record["task"]), record)
        pairs = [replace(self.load(record), scored=None) for record in first.values()]
        try:
            collate_pairs(pairs)
        except ValueError:
            return False
        return all(pair.label_names == pairs[0].label_names for pair in pairs)


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """`total` divided in proportion to `weights`, whole numbers by largest remainders (the first of equals)."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [math.floor(value) for value in exact]
    order = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


class _Draw:
    """Which cases an epoch has, in order: a pure function of its number.

    Args:
        seed: of everything drawn.
        tasks: names.
        members: indices of the cases of each task.
        counts: cases of each task per epoch.
    """

    def __init__(
        self, seed: int, tasks: Sequence[str], members: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> None:
        self.seed, self.tasks, self.members, self.counts = seed, tasks, members, counts

    def __call__(self, epoch: int) -> list[int]:
        drawn = []
        for task, members, count in zip(self.tasks, self.members, self.counts, strict=True):
            size = len(members)
            start = epoch * count
            passes = range(start // size, -(-(start + count) // size))
            order = [members[i] for p in passes for i in self._order("pass", task, p, size)]
            drawn += order[start % size : start % size + count]
        return [drawn[i] for i in self._order("epoch", "", epoch, len(drawn))]

    def _order(self, what: str, task: str, number: int, size: int) -> list[int]:
        return [int(i) for i in random_generator("mixed", what, task, self.seed, number).permutation(size)]


class _ByTask(PairTransform):
    """The augmentation of the task that a pair belongs to, then that of all."""

    def __init__(self, own: Mapping[str, PairTransform], common: PairTransform | None) -> None:
        self.own, self.common = own, common

    def restart(self) -> None:
        for transform in (*self.own.values(), self.common):
            if transform is not None:
                transform.restart()

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        for transform in (self.own.get(str((pair.tasks or ("",))[0])), self.common):
            pair = pair if transform is None else transform(pair)
        return pair


def _named(pair: RegistrationPair, task: str) -> RegistrationPair:
    ids = tuple(f"{task}:{c}" for c in pair.case_ids)
    scored = None if pair.scored is None else _named(pair.scored, task)
    return replace(pair, case_ids=ids, tasks=(task,) * len(ids), scored=scored)


def _placeless(init_args: Any) -> dict[str, Any]:
    return {k: v for k, v in dict(init_args or {}).items() if k not in _PLACES}


def _files(record: Record) -> list[str]:
    return [v for v in record["record"].values() if isinstance(v, str) and os.sep in v]
