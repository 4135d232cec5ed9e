"""The ultrasound phantom as a dataset, and clips of sequences in batches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from datamodules.clips import Clips
from datamodules.phantom_echo import PhantomEcho
from reg_bench.errors import ConfigError, DataError
from reg_bench.sequence_batches import clip_of, collate_sequences

SMALL = {"sequences": 5, "frames": 1, "size": (48, 48), "length": 6}


def clips(**options) -> Clips:
    data = Clips({"name": "phantom-echo", "init_args": SMALL}, **{"length": 4, "batch_size": 2, **options})
    data.trainer = None
    return data


def test_no_heart_is_in_two_splits_and_a_pair_is_a_view_of_its_sequence() -> None:
    data = PhantomEcho(**{**SMALL, "frames": None})
    seeds = [{r["seed"] for r in data.records(split)} for split in ("train", "val", "test")]
    assert [len(s) for s in seeds] == [5, 5, 5]
    assert len(set.union(*seeds)) == 15
    record = data.records("val")[3]
    sequence, pair = data.sequence(record), data.load(record)
    assert torch.equal(pair.fixed, sequence.frames[:, record["frame"]])
    assert torch.equal(pair.moving, sequence.frames[:, 0])
    assert pair.label_names == {1: "cavity", 2: "wall"}
    assert len(PhantomEcho(sequences=5000, frames=1).records("train")) == 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": (0.5, 1.5)}, "strength"),
        ({"strength": (0.9, 0.5)}, "strength"),
        ({"size": (16, 112)}, "size"),
        ({"length": 1, "frames": 1}, "frames"),
        ({"noise": -1.0}, "noise"),
        ({"sequences": 0}, "sequences"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PhantomEcho(**options)


def test_an_epoch_has_every_sequence_once_and_the_next_begins_elsewhere() -> None:
    data = clips()
    loader = data.train_dataloader()
    epochs = [list(loader), list(loader)]
    for batches in epochs:
        assert [b.frames.shape for b in batches] == [(2, 4, 1, 48, 48)] * 2 + [(1, 4, 1, 48, 48)]
        assert sorted(c for b in batches for c in b.case_ids) == [f"train{i:03d}" for i in range(5)]
    assert [b.case_ids for b in epochs[0]] != [b.case_ids for b in epochs[1]]
    again = list(clips().train_dataloader())
    for one, other in zip(epochs[0], again, strict=True):
        assert one.case_ids == other.case_ids
        assert torch.equal(one.frames, other.frames)
    whole = PhantomEcho(**SMALL)
    starts = set()
    for batch in epochs[0] + epochs[1]:
        for i, name in enumerate(batch.case_ids):
            frames = whole.sequence_case(name, "train").frames[0]
            found = [t for t in range(3) if torch.equal(frames[t : t + 4], batch.frames[i])]
            assert len(found) == 1
            starts.add(found[0])
    assert len(starts) > 1


def test_validation_takes_the_beginnings_in_order() -> None:
    batches = list(clips(limit=3).val_dataloader())
    assert [c for b in batches for c in b.case_ids] == ["val000", "val001", "val002"]
    whole = PhantomEcho(**SMALL).sequence_case("val001", "val")
    assert torch.equal(batches[0].frames[1], whole.frames[0, :4])
    assert torch.equal(batches[0].true_displacement[1], whole.true_displacement[0, :4])


def test_two_processes_share_the_epoch_of_one() -> None:
    def of(rank: int, processes: int, batch: int) -> list[tuple[str, ...]]:
        data = clips(batch_size=batch)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=processes, training=False)
        return [b.case_ids for b in data.train_dataloader()]

    alone, halves = of(0, 1, 2), [of(rank, 2, 1) for rank in (0, 1)]
    for batch, first, second in zip(alone[:2], *halves, strict=False):
        assert batch == (*first, *second)


def test_clips_of_what_has_no_sequences_and_other_mistakes() -> None:
    for sequences, message in (
        ({"name": "random-shapes"}, "holds pairs"),
        ({"name": "phantom-ecco"}, "phantom-echo"),
        ({"init_args": {}}, "expected `name`"),
        ({"name": "phantom-echo", "weight": 1}, "unknown key 'weight'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Clips(sequences)
    for options in ({"length": 1}, {"limit": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            clips(**options)
    with pytest.raises(DataError, match="has 6 frames, expected at least 7"):
        next(iter(clips(length=7).val_dataloader()))


def test_batches_keep_what_all_have() -> None:
    data = PhantomEcho(**SMALL)
    one, other = (data.sequence_case(f"test00{i}") for i in (0, 1))
    batch = collate_sequences([one, other])
    assert batch.case_ids == ("test000", "test001")
    for name in ("frames", "labels", "mask", "true_displacement", "spacing_mm", "affine"):
        assert torch.equal(getattr(batch, name), torch.cat([getattr(one, name), getattr(other, name)]))
    poorer = collate_sequences([one, replace(other, true_displacement=None, spacing_mm=None, seconds_per_frame=0.04)])
    assert poorer.true_displacement is None
    assert poorer.spacing_mm is None
    assert poorer.labels is not None
    assert poorer.seconds_per_frame == pytest.approx(0.03)
    unlabelled = replace(other, labels=other.labels[:, :2], labelled_frames=(0, 1))
    assert collate_sequences([one, unlabelled]).labels is None
    with pytest.raises(ValueError, match="cannot batch test000, test001: frames of shapes"):
        collate_sequences([one, clip_of(other, 0, 5)])
    with pytest.raises(ValueError, match="empty"):
        collate_sequences([])


def test_a_clip_has_its_own_reference() -> None:
    sequence = PhantomEcho(**SMALL).sequence_case("test000")
    sequence = replace(sequence, points={"marks": (torch.rand(6, 3, 2),)})
    clip = clip_of(sequence, 2, 3)
    assert torch.equal(clip.frames, sequence.frames[:, 2:5])
    assert clip.reference == 0
    assert clip.labelled_frames == (0, 1, 2)
    assert torch.equal(clip.labels, sequence.labels[:, 2:5])
    assert torch.equal(clip.points["marks"][0], sequence.points["marks"][0][2:5])
    assert clip.true_displacement is None
    assert torch.equal(clip_of(sequence, 0, 3).true_displacement, sequence.true_displacement[:, :3])
    partly = replace(sequence, labels=sequence.labels[:, [0, 4]], labelled_frames=(0, 4))
    assert clip_of(partly, 3, 3).labelled_frames == (1,)
    assert clip_of(partly, 1, 2).labels is None
    with pytest.raises(ValueError, match="frames 4 to 6"):
        clip_of(sequence, 4, 3)
