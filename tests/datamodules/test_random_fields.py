"""Fields to train on: fresh in every step, the same for the same seed, and cut and seen as told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules.random_fields import RandomFields
from reg_bench.errors import ConfigError
from reg_bench.field import sample

SMALL: dict[str, Any] = {"shape": (40, 48), "std": (8.0, 12.0), "distance": (1.0, 3.0), "points": (30, 60)}


def data(**settings: Any) -> RandomFields:
    return RandomFields(**{**SMALL, "batch_size": 4, "steps": 3, **settings})


def test_a_batch_depends_on_seed_rank_and_step_alone() -> None:
    first = data().training_batch(5)
    assert torch.equal(first.values, data().training_batch(5).values)
    for other in (data().training_batch(6), data(seed=1).training_batch(5), data().training_batch(5, rank=1)):
        assert not torch.equal(first.truth, other.truth)
    # Loaders hand out the same batches, with workers or without.
    for workers in (0, 2):
        batches = list(data(num_workers=workers).train_dataloader())
        assert len(batches) == 3
        for step, batch in enumerate(batches):
            assert torch.equal(batch.truth, data().training_batch(step).truth)


def test_batches_are_as_told() -> None:
    batch = data().training_batch(0)
    assert batch.truth.shape == (4, 2, 40, 48)
    assert 30 <= batch.points.shape[1] <= 60
    torch.testing.assert_close(batch.values, sample(batch.truth, batch.points))
    assert (batch.confidence == 1).all()
    noisy = data(exact=0.0).training_batch(0)
    assert (noisy.confidence < 1).all()
    assert (noisy.values - sample(noisy.truth, noisy.points)).abs().max() > 0.5


def test_cuts_come_from_one_field_and_hold_their_share_of_the_points() -> None:
    batch = data(crop=(20, 24), cuts=2, points=(80, 80)).training_batch(1)
    assert batch.truth.shape == (4, 2, 20, 24)
    assert batch.points.shape[1] == 20
    assert batch.points[..., 0].max() <= 19
    # Cut-outs of one field overlap by chance; those of two fields never agree.
    whole = data().training_batch(1).truth
    assert not torch.equal(batch.truth[0], whole[0, :, :20, :24])


def test_held_out_fields_are_others_and_always_the_same() -> None:
    fields = data(validation_fields=3, validation_points=25)
    exact, tracker = (next(iter(loader)) for loader in fields.val_dataloader())
    assert torch.equal(exact.truth, tracker.truth)
    assert exact.points.shape == (3, 25, 2)
    assert (exact.confidence == 1).all()
    assert (tracker.confidence < 1).all()
    again = next(iter(fields.test_dataloader()[1]))
    assert torch.equal(again.values, tracker.values)
    for step in range(3):
        assert not torch.equal(fields.training_batch(step).truth[0], exact.truth[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": (3.0, 2.0)}, "std must rise from a positive number, got 3.0 to 2.0"),
        ({"points": (0, 4)}, "points must rise from a positive number"),
        ({"cuts": 3}, "batch_size must be a multiple of cuts"),
        ({"crop": (50, 10)}, r"crop must fit into \(40, 48\), got \(50, 10\)"),
        ({"exact": 2.0}, r"exact must be in 0\.\.1"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data(**settings)
