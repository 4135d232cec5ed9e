"""Sequences in batches, and clips of sequences to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from reg_bench.types import ImageSequence


def collate_sequences(sequences: Sequence[ImageSequence]) -> ImageSequence:
    """Joins sequences of equal length and shape into one batch.

    What only some of them have is left out, as are labels of unequal frames; `label_names` are those of the first. The
    time between frames is the mean, where they differ.

    Raises:
        ValueError: no sequences, or unequal shapes or references.
    """
    if not sequences:
        raise ValueError("collate_sequences: an empty list of sequences")
    if len(sequences) == 1:
        return sequences[0]
    first, ids = sequences[0], ", ".join(c for s in sequences for c in s.case_ids)
    shapes = {tuple(s.frames.shape[1:]) for s in sequences}
    references = {s.reference for s in sequences}
    if len(shapes) > 1:
        raise ValueError(f"cannot batch {ids}: frames of shapes {sorted(shapes)}")
    if len(references) > 1:
        raise ValueError(f"cannot batch {ids}: reference frames {sorted(references)}")
    unequal = len({s.labelled_frames for s in sequences}) > 1
    changes: dict[str, Any] = {"labels": None, "labelled_frames": None} if unequal else {}
    for f in fields(ImageSequence):
        values: list[Any] = [getattr(s, f.name) for s in sequences]
        if f.name in changes or not any(isinstance(v, Tensor) for v in values):
            continue
        absent = any(v is None for v in values)
        changes[f.name] = None if absent else torch.cat([v for v in values if v is not None])
        if absent and f.name == "labels":
            changes["labelled_frames"] = None
    return replace(
        first,
        case_ids=tuple(c for s in sequences for c in s.case_ids),
        seconds_per_frame=sum(s.seconds_per_frame for s in sequences) / len(sequences),
        points=_joined_points([s.points or {} for s in sequences]),
        **changes,
    )


def _joined_points(sets: Sequence[Mapping[str, tuple[Tensor, ...]]]) -> dict[str, tuple[Tensor, ...]] | None:
    names = [name for name in sets[0] if all(name in other for other in sets)]
    return {name: tuple(t for points in sets for t in points[name]) for name in names} or None


def clip_of(sequence: ImageSequence, first: int, length: int) -> ImageSequence:
    """`length` frames of `sequence` from frame `first` on, which becomes the reference.

    The true displacement is left out but where the clip begins with the reference of the sequence: it leads to another
    frame.

    Raises:
        ValueError: frames that there are not.
    """
    end = first + length
    if not 0 <= first < end <= sequence.length:
        name = ", ".join(sequence.case_ids)
        raise ValueError(f"{name}: no frames {first} to {end - 1} in a sequence of {sequence.length}")
    marked = [t for t in sequence.labelled_frames or () if first <= t < end]
    changes: dict[str, Any] = {"labels": None, "labelled_frames": None}
    if marked and sequence.labels is not None:
        rows = [(sequence.labelled_frames or ()).index(t) for t in marked]
        changes = {"labels": sequence.labels[:, rows], "labelled_frames": tuple(t - first for t in marked)}
    truth = sequence.true_displacement if first == sequence.reference else None
    return replace(
        sequence,
        frames=sequence.frames[:, first:end],
        reference=0,
        mask=None if sequence.mask is None else sequence.mask[:, first:end],
        points={k: tuple(p[first:end] for p in v) for k, v in (sequence.points or {}).items()} or None,
        true_displacement=None if truth is None else truth[:, first:end],
        **changes,
    )
