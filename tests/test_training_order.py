"""What a training sees follows from seed and step: not from processes, workers, or where it was interrupted."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from reg_bench.augmentation import Augmentation
from reg_bench.caching import PairTransform
from reg_bench.datamodule import Record, RegistrationDataModule, Split
from reg_bench.training_order import Draw, TrainingOrder, random_states, shuffled
from reg_bench.types import RegistrationPair


class Numbered(RegistrationDataModule):
    """Pairs that are told apart by their brightness."""

    name = "numbered"

    def __init__(self, cases: int = 7, **options: Any) -> None:
        super().__init__(**options)
        self.cases = cases

    def records(self, split: Split) -> list[Record]:
        return [{"case_id": f"{split}{i}", "number": i} for i in range(self.cases)]

    def load(self, record: Record) -> RegistrationPair:
        image = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8) + record["number"]
        return RegistrationPair((record["case_id"],), image, image.clone())


class Noise(PairTransform):
    """Draws from all three random states, as a plug-in might."""

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return RegistrationPair(pair.case_ids, pair.fixed + noise, pair.moving)


class Both(PairTransform):
    """Noise of a plug-in and an augmentation of ours."""

    def __init__(self) -> None:
        self.first, self.second = Noise(), Augmentation(probability=1.0)

    def __call__(self, pair: RegistrationPair) -> RegistrationPair:
        return self.second(self.first(pair))

    def restart(self) -> None:
        self.second.restart()


Seen = list[tuple[str, float]]


def seen_in(loader: Any) -> Seen:
    return [(case, float(image.sum())) for b in loader for case, image in zip(b.case_ids, b.fixed, strict=True)]


def test_every_case_comes_once_in_an_order_that_is_new_in_each_epoch() -> None:
    loader = Numbered(batch_size=2).train_dataloader()
    epochs = [[case for case, _ in seen_in(loader)] for _ in range(3)]
    assert all(sorted(cases) == [f"train{i}" for i in range(7)] for cases in epochs)
    assert len({tuple(cases) for cases in epochs}) == 3
    again, other = (Numbered(batch_size=2, seed=seed).train_dataloader() for seed in (0, 1))
    assert [[case for case, _ in seen_in(again)] for _ in range(3)] == epochs
    assert [case for case, _ in seen_in(other)] != epochs[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_follow_from_seed_and_place_and_leave_the_random_states_alone(workers: int) -> None:
    expected = [seen_in(loader) for loader in [Numbered(augmentation=Both()).train_dataloader()] for _ in range(2)]
    assert expected[0] != expected[1]
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    before = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    loader = Numbered(augmentation=Both(), num_workers=workers).train_dataloader()
    if workers == 0:
        loader.dataset[Draw(0, 0, 0)]
        assert (random.random(), np.random.rand(), torch.rand(1)) == before
    assert [seen_in(loader), seen_in(loader)] == expected
    other = Numbered(augmentation=Both(), seed=1)
    assert {v for _, v in seen_in(other.train_dataloader())}.isdisjoint(v for _, v in expected[0])


def test_random_states_come_back_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with pytest.raises(KeyError), random_states(3):
        raise KeyError
    assert torch.equal(torch.rand(2), expected)


class Process:
    """What an order asks of the trainer of one process."""

    limit_train_batches = None

    def __init__(self, rank: int, processes: int, ready: int = 0, limit: float | None = None) -> None:
        self.global_rank, self.world_size, self.training = rank, processes, True
        self.limit_train_batches = limit
        self.fit_loop = self
        self.epoch_loop = self.batch_progress = self.total = self
        self.ready = ready


def order(rank: int, processes: int, batch_size: int, **place: Any) -> list[Draw]:
    process = Process(rank, processes, **place)
    return list(TrainingOrder(shuffled(3, 10), 10, batch_size, lambda: process))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("batch", [0, 1])
def test_batches_of_two_processes_hold_what_one_has_in_twice_as_large_ones(batch: int) -> None:
    whole = order(0, 1, 4)[4 * batch : 4 * batch + 4]
    halves = [d for rank in (0, 1) for d in order(rank, 2, 2)[2 * batch : 2 * batch + 2]]
    assert sorted(halves, key=lambda d: d.position) == whole


def test_an_order_goes_on_where_the_training_is() -> None:
    epochs = [order(0, 1, 3, ready=4 * e) for e in range(3)]
    assert [d.index for d in epochs[1]] == shuffled(3, 10)(1)
    assert {d.epoch for d in epochs[2]} == {2}
    assert order(0, 1, 3, ready=6) == epochs[1][6:]
    # Of five batches for each process an epoch takes two: the third batch begins the next epoch.
    limited = order(0, 1, 2, ready=3, limit=2)
    assert {d.epoch for d in limited} == {1}
    assert [d.position for d in limited] == list(range(2, 10))
    assert order(0, 1, 2, ready=4, limit=0.4)[0] == Draw(2, 0, shuffled(3, 10)(2)[0])


def test_uneven_lists_are_filled_up() -> None:
    parts = [order(rank, 3, 1) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert [d.position for d in parts[1]] == [1, 4, 7, 10]
    assert parts[1][-1].index == parts[0][0].index


class Witness(LightningModule):
    """Trains nothing, and remembers what it was given, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, Seen] = {}

    def training_step(self, batch: RegistrationPair, batch_idx: int) -> torch.Tensor:
        self.seen[self.trainer.fit_loop.total_batch_idx] = seen_in([batch])
        return self.weight * 0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Interrupted(Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.after:
            raise KeyboardInterrupt


def fit(folder: Path, *callbacks: Callback, checkpoint: Path | None = None, **options: Any) -> Witness:
    witness = Witness()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=3, default_root_dir=folder, callbacks=list(callbacks), **quiet, **options)
    data = Numbered(batch_size=2, augmentation=Both())
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(witness, data, ckpt_path=checkpoint, weights_only=False)
    return witness


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("every", "killed", "left"), [(3, 5, 3), (4, 6, 4), (1, 5, 4), (8, 9, 8)])
def test_a_training_goes_on_with_what_it_would_have_seen(every: int, killed: int, left: int, tmp_path: Path) -> None:
    """Checkpoints in the middle of an epoch of four batches, and at its end."""
    whole = fit(tmp_path / "whole")
    assert len(whole.seen) == 12
    save = ModelCheckpoint(tmp_path, "some", every_n_train_steps=every, enable_version_counter=False)
    first = fit(tmp_path, save, Interrupted(killed))
    assert set(first.seen) == set(range(killed))
    second = fit(tmp_path / "second", checkpoint=tmp_path / "some.ckpt")
    assert set(second.seen) == set(range(left, 12))
    assert first.seen | second.seen == whole.seen
