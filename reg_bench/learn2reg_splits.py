"""Training, validation and test of a Learn2Reg task: the pairs of the challenge, and subjects held out with a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from reg_bench.learn2reg_task import Pair, Scan, TaskFiles, has_truth
from reg_bench.splits import Split
from reg_bench.survey import Survey
from reg_bench.synthesis import random_generator

TestPairs = Literal["auto", "registration_test", "registration_val", "holdout"]


def split_pairs(
    task: TaskFiles,
    survey: Survey,
    *,
    seed: int,
    test: TestPairs,
    holdout: float,
    train_pairs: int,
    val_pairs: int,
) -> dict[Split, list[Pair]]:
    """Training, validation and test, no subject in two of them.

    Args:
        test: which pairs are `test`; `auto`: those of `registration_test` if labels or points say how good a
            registration of them is, else those of `registration_val` likewise, else subjects held out.
        holdout: share of the remaining subjects that is held out where no pairs are given.
        train_pairs, val_pairs: how many pairs of different people are drawn at most.
    """
    chosen = _test_source(task, test, survey)
    official = {"registration_test": task.test_pairs, "registration_val": task.val_pairs, "holdout": []}
    pairs: dict[Split, list[Pair]] = {"train": [], "val": [], "test": list(official[chosen])}
    if chosen != "registration_val" and any(map(has_truth, task.val_pairs)):
        pairs["val"] = list(task.val_pairs)
    reserved = _subjects(task.val_pairs) | _subjects(pairs["test"])
    free = [scan for scan in task.scans.values() if scan.subject not in reserved]
    for split in ("test", "val"):
        if not pairs[split]:
            held = _held_out(task, free, holdout, split, seed)
            free = [scan for scan in free if scan.subject not in held]
            pairs[split] = _pairs_among(task, held.values(), split, seed, val_pairs)
            if not pairs[split]:
                survey.note("", f"too few subjects for a split {split!r}: it is empty")
    pairs["train"] = _pairs_among(task, _by_subject(free).values(), "train", seed, train_pairs)
    return pairs


def _test_source(task: TaskFiles, test: TestPairs, survey: Survey) -> str:
    if test != "auto":
        wanted = {"registration_test": task.test_pairs, "registration_val": task.val_pairs, "holdout": [None]}
        if not wanted[test]:
            survey.fault("", f"test is {test!r}, but no such pairs are given, or their images are not here")
        return test
    for name, given in (("registration_test", task.test_pairs), ("registration_val", task.val_pairs)):
        truth = sum(map(has_truth, given))
        if truth:
            if truth < len(given):
                survey.note("", f"{len(given) - truth} of {len(given)} pairs of {name} have neither labels nor points")
            return name
        if given:
            survey.note("", f"the {len(given)} pairs of {name} have neither labels nor points here and are not used")
    return "holdout"


def _subjects(pairs: Iterable[Pair]) -> set[str]:
    return {scan.subject for pair in pairs for scan in pair}


def _by_subject(scans: Iterable[Scan]) -> dict[str, list[Scan]]:
    found: dict[str, list[Scan]] = {}
    for scan in scans:
        found.setdefault(scan.subject, []).append(scan)
    return found


def _held_out(task: TaskFiles, scans: Sequence[Scan], share: float, split: str, seed: int) -> dict[str, list[Scan]]:
    """A share of the subjects, drawn from those who can be scored and make the pairs of the task.

    One pair at least, as long as one is left for training.
    """
    paired = task.preset.pairings != "unpaired"
    subjects = _by_subject(scans)
    useful = [s for s, own in sorted(subjects.items()) if not paired or _own_pairs(task, own)]
    with_truth = [s for s in useful if _can_score(task, subjects[s], paired)]
    least = 1 if paired else 2
    candidates = with_truth if len(with_truth) >= least else useful
    number = min(len(candidates), max(least, round(share * len(useful))))
    if len(useful) - number < least:
        return {}
    drawn = random_generator("learn2reg", task.preset.name, split, seed).choice(
        len(candidates), size=number, replace=False
    )
    return {candidates[i]: subjects[candidates[i]] for i in sorted(int(i) for i in drawn)}


def _can_score(task: TaskFiles, own: Sequence[Scan], paired: bool) -> bool:
    if paired:
        return any(map(has_truth, _own_pairs(task, own)))
    return any("label" in scan.files for scan in own)


def _own_pairs(task: TaskFiles, own: Sequence[Scan]) -> list[Pair]:
    """Pairs of one subject's images: those given for training, else made by the direction of the task."""
    ids = {scan.id for scan in own}
    given = [pair for pair in task.training_pairs if pair[0].id in ids and pair[1].id in ids]
    if given or task.training_pairs:
        return given
    by_modality = {scan.modality: scan for scan in own}
    preset = task.preset
    if preset.fixed == preset.moving or not {preset.fixed, preset.moving} <= set(by_modality):
        return []
    return [(by_modality[preset.fixed], by_modality[preset.moving])]


def _pairs_among(task: TaskFiles, groups: Iterable[Sequence[Scan]], split: str, seed: int, number: int) -> list[Pair]:
    """The pairs of these subjects: their own, and for `unpaired` and in training for `hybrid` drawn ones."""
    groups = list(groups)
    own = [pair for group in groups for pair in _own_pairs(task, group)]
    pairings = task.preset.pairings
    if pairings == "paired" or (pairings == "hybrid" and split != "train" and own):
        return own
    if pairings == "unpaired":
        own = []
    scans = [scan for group in groups for scan in group]
    fixed = [scan for scan in scans if scan.modality == task.preset.fixed]
    moving = [scan for scan in scans if scan.modality == task.preset.moving]
    codes = {s: i for i, s in enumerate({scan.subject: None for scan in scans})}
    a, b = (np.array([codes[scan.subject] for scan in side], dtype=np.int64) for side in (fixed, moving))
    possible = np.flatnonzero(a[:, None] != b[None, :])
    generator = random_generator("learn2reg", task.preset.name, split, "pairs", seed)
    if not len(possible):
        return own
    drawn = generator.choice(possible, size=min(number, len(possible)), replace=False)
    return own + [(fixed[int(k) // len(moving)], moving[int(k) % len(moving)]) for k in drawn]
