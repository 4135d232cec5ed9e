"""Shapes to train on: fresh pairs by number, the same in any number of processes, apart from those held out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules.random_shapes import RandomShapes
from reg_bench.discovery import build_datamodule
from reg_bench.errors import ConfigError
from reg_bench.synthesis_shapes import ShapesConfig


def data(**options: Any) -> RandomShapes:
    return RandomShapes(shapes=ShapesConfig(size=(16, 20)), **{"cases": 2, "epoch_pairs": 4, **options})


class Process:
    """What a loader asks of the trainer of one process of two that has not begun."""

    world_size, training = 2, False

    def __init__(self, rank: int) -> None:
        self.global_rank = rank


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_are_counted_on_from_epoch_to_epoch(workers: int) -> None:
    loader = data(num_workers=workers, batch_size=2).train_dataloader()
    assert len(loader) == 2
    epochs = [list(loader) for _ in range(2)]
    assert [p.case_ids for e in epochs for p in e] == [
        ("train000", "train001"),
        ("train002", "train003"),
        ("train004", "train005"),
        ("train006", "train007"),
    ]
    images = torch.cat([p.moving for e in epochs for p in e])
    assert len({float(image.sum()) for image in images}) == 8
    assert torch.equal(images[5:6], data().load({"case_id": "x", "number": 5}).moving)
    assert not torch.equal(images[5:6], data(seed=1).load({"case_id": "x", "number": 5}).moving)


def test_two_processes_draw_what_one_draws_in_twice_as_large_batches() -> None:
    parts = []
    for rank in range(2):
        half = data()
        half.trainer = Process(rank)  # type: ignore[assignment]
        parts.append([p.case_ids[0] for p in half.train_dataloader()])
    assert parts == [["train000", "train002"], ["train001", "train003"]]


def test_held_out_pairs_are_others_and_always_the_same() -> None:
    one = data()
    val, test = (list(loader) for loader in (one.val_dataloader(), one.test_dataloader()))
    assert [p.case_ids[0] for p in val] == ["val000", "val001"]
    assert torch.equal(val[1].fixed, data().case("val001", "val").fixed)
    sums = {float(p.moving.sum()) for p in [*val, *test, *one.train_dataloader()]}
    assert len(sums) == 8
    assert val[0].true_displacement is not None
    assert val[0].fixed_labels is not None


def test_settings_name_what_is_drawn() -> None:
    given = {"class_path": "random-shapes", "init_args": {"shapes": {"size": [12, 12, 12], "shapes": [2, 3]}}}
    built = build_datamodule(given)
    assert isinstance(built, RandomShapes)
    assert built.case("test000").fixed.shape == (1, 1, 12, 12, 12)
    assert built.checksum() != data().checksum()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ({}, {"cases": 0}, "cases and epoch_pairs must be at least 1, got 0 and 4"),
        ({"size": (4, 40)}, {}, r"lengths of at least 8, got \[4, 40\]"),
        ({"shapes": (5, 4)}, {}, r"shapes must rise from 1 to at most 250, got \[5, 4\]"),
    ],
)
def test_wrong_settings_are_named(shapes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandomShapes(shapes=ShapesConfig(**shapes), **{"epoch_pairs": 4, **options})
