"""Which case a training sees when: a function of seed and step alone.

Lightning's own samplers draw from the random state of the process, which no checkpoint holds, and another list in every
process. Here neither the number of processes nor that of workers changes what is seen, and a training that goes on from
a checkpoint, of whatever step, sees what it would have seen.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from reg_bench.protocol import case_seed, seed_everything
from reg_bench.types import RegistrationPair

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from reg_bench.caching import PairTransform


T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """One case of one epoch.

    Attributes:
        epoch: number.
        position: in the list of the epoch, over all processes.
        index: of the case in the dataset.
    """

    epoch: int
    position: int
    index: int


class TrainingOrder(DistributedSampler[Draw]):
    """Hands out the cases of an epoch, this process' share of them, from the step on that the training is at.

    Lightning leaves a `DistributedSampler` in its place and replaces any other by its own. Process r of n takes every
    n-th case, from the r-th on, so that n batches of b hold the cases of one of n b.

    Args:
        order: indices of the cases of an epoch, in order, the same in every process.
        length: how many that are.
        batch_size: per process.
        trainer: who trains; without one every call of `iter` is the next epoch.
    """

    def __init__(
        self,
        order: Callable[[int], Sequence[int]],
        length: int,
        batch_size: int,
        trainer: Callable[[], Trainer | None],
    ) -> None:
        super().__init__(range(length), num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
        self.order, self.length, self.batch_size, self._trainer = order, length, batch_size, trainer
        self._next = 0

    def __len__(self) -> int:
        """Cases of this process in an epoch."""
        return -(-self.length // self._place()[1])

    def __iter__(self) -> Iterator[Draw]:
        rank, processes = self._place()
        epoch, done = self._where()
        self._next = epoch + 1
        indices = list(self.order(epoch))
        # As every distributed sampler does: all processes take equally many, some cases come twice.
        indices += indices[: -len(indices) % processes]
        mine = range(rank, len(indices), processes)
        return iter([Draw(epoch, p, indices[p]) for p in mine[done * self.batch_size :]])

    def _place(self) -> tuple[int, int]:
        trainer = self._trainer()
        return (0, 1) if trainer is None else (int(trainer.global_rank), int(trainer.world_size))

    def _where(self) -> tuple[int, int]:
        """The epoch that is about to begin or to go on, and how many batches of it were seen."""
        trainer = self._trainer()
        if trainer is None or not trainer.training:
            return self._next, 0
        # Not the number of the epoch: a run that goes on asks for batches before it knows that number.
        seen = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        return divmod(seen, max(1, _limited(-(-len(self) // self.batch_size), trainer.limit_train_batches)))


def _limited(batches: int, limit: float | int | None) -> int:
    """How many batches of an epoch a trainer takes: a number of them, or a share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


class LateLoader(DataLoader[T]):
    """Asks for the first case when it is wanted, and not when the iteration is set up.

    Lightning sets it up to count the steps of a schedule, before it knows where a run that goes on has been.
    """

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: where a training is follows from its step. Tells Lightning that it may go on within an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do, see `state_dict`."""


class TrainingCases(Dataset[RegistrationPair]):
    """The cases as they are drawn: each is loaded and augmented with random states of its own.

    Args:
        cases: by index.
        augmentation: applied to each.
        seed: of all draws.
    """

    def __init__(self, cases: Any, augmentation: PairTransform | None, seed: int) -> None:
        self.cases, self.augmentation, self.seed = cases, augmentation, seed

    def __len__(self) -> int:
        return len(self.cases) if isinstance(self.cases, Sized) else 0

    def __getitem__(self, key: Draw | int) -> RegistrationPair:
        draw = Draw(0, key, key) if isinstance(key, int) else key
        with random_states(case_seed(self.seed, f"{draw.epoch}/{draw.position}")):
            pair: RegistrationPair = self.cases[draw.index]
            if self.augmentation is None:
                return pair
            self.augmentation.restart()
            return self.augmentation(pair)


@contextlib.contextmanager
def random_states(seed: int) -> Iterator[None]:
    """The states of Python, NumPy and torch (CPU) from `seed`, put back afterwards."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def shuffled(seed: int, length: int, *name: str) -> Callable[[int], list[int]]:
    """An order that is new in every epoch."""
    from reg_bench.synthesis import random_generator

    def order(epoch: int) -> list[int]:
        return [int(i) for i in random_generator("training order", *name, seed, epoch).permutation(length)]

    return order


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds whatever a training step draws, so that a run that goes on draws the same."""
    seed_everything(case_seed(seed, f"step/{rank}/{step}"))
