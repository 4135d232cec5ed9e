"""Ranks as the Learn2Reg challenge does (LEARN2REG.md section 7 of the notes; A. Hering et al., IEEE TMI 42(3), 2023).

Per metric every method is a flat vector of instances: Dice and HD95 over (case, label), TRE over (case, point), SDlogJ
and time over cases. Every pair is tested; a method's losses are the methods that beat it; methods sorted by losses are
spread evenly from 0.1 to 1; the score of a task is the geometric mean of these over its metrics.

What the organisers' code does differently from their words, or from what one would expect, is a field of `Quirks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reg_bench.ranking_tests import rank_sum, signed_rank_p
from reg_bench.statistics import Bools, Floats, holm

LOWEST = 0.1


@dataclass(frozen=True)
class Quirks:
    """How the challenge ranks; the defaults are its code.

    Attributes:
        test: `rank-sum`: unpaired and two-sided, with the sign of the statistic (code); `signed-rank`: paired and
            one-sided (the readme says "Wilcoxon signed rank test").
        alpha: level of the tests.
        correction: `none` (code) or `holm` over all pairs of a metric.
        count: order by `losses`, how many beat a method (code), or by `wins`, how many it beats (readme).
        initial: the row of no motion, "Initial", whose field is perfectly smooth and costs nothing, gets the stand-ins
            of SDlogJ and time (`penalised`, code), or what was `measured`.
        missing: what stands for a value that does not exist or is infinite, per kind of metric: a missing label is a
            Dice of 0 and an HD95 of 10 voxels, a missing point a TRE of 0.
        hardest: `hard`: DSC30 and TRE30 over the hardest instances; `easy`: over the easiest, as one notebook does.
        share: of the instances in DSC30 and TRE30.
    """

    test: Literal["rank-sum", "signed-rank"] = "rank-sum"
    alpha: float = 0.05
    correction: Literal["none", "holm"] = "none"
    count: Literal["losses", "wins"] = "losses"
    initial: Literal["penalised", "measured"] = "penalised"
    missing: Mapping[str, float] = field(
        default_factory=lambda: {"dice": 0.0, "hd95": 10.0, "tre": 0.0, "sdlogj": 5.0, "time": 5000.0}
    )
    hardest: Literal["hard", "easy"] = "hard"
    share: float = 0.3


CHALLENGE = Quirks()


@dataclass(frozen=True)
class Instances:
    """A metric of all methods over instances.

    Attributes:
        kind: `dice`, `hd95`, `tre`, `sdlogj` or `time`; says what is better and what stands for a missing value.
        values: `(M, N)`.
        power: how often the metric counts in the geometric mean: TRE of the lungs counts twice.
    """

    kind: str
    values: Floats
    power: float = 1.0


@dataclass(frozen=True)
class TaskRanking:
    """Scores of the methods of one task.

    Attributes:
        beats: per metric `(M, M)`: row is significantly better than column.
        scores: per metric `(M,)` rank scores from 0.1 to 1.
        score: `(M,)` their geometric mean.
        rank: `(M,)` place by `score`, 1 is best; equal scores share the best of their places.
    """

    beats: Mapping[str, Bools]
    scores: Mapping[str, Floats]
    score: Floats
    rank: NDArray[np.int64]


def filled(values: Floats, kind: str, quirks: Quirks = CHALLENGE) -> Floats:
    """`values` with the challenge's stand-in for what does not exist or is infinite.

    Raises:
        ValueError: an unknown kind of metric.
    """
    if kind not in quirks.missing:
        raise ValueError(f"unknown kind of metric {kind!r}, expected one of {', '.join(quirks.missing)}")
    return np.where(np.isfinite(values), values, quirks.missing[kind])


def significance(values: Floats, kind: str, quirks: Quirks = CHALLENGE) -> Bools:
    """`(M, M)`: row is significantly better than column, of `(M, N)` values."""
    goodness = filled(values, kind, quirks) * (1.0 if kind == "dice" else -1.0)
    count = len(goodness)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    p = np.ones((count, count))
    for i, j in pairs:
        if quirks.test == "rank-sum":
            statistic, both = rank_sum(goodness[i], goodness[j])
            p[(i, j) if statistic > 0 else (j, i)] = both
        else:
            for a, b in ((i, j), (j, i)):
                one = signed_rank_p(goodness[a] - goodness[b])
                p[a, b] = 1.0 if one is None else one
    if quirks.correction == "holm":
        where = [(i, j) for i in range(count) for j in range(count) if i != j]
        if quirks.test == "rank-sum":
            # One two-sided test for each pair: it stands where its sign points.
            where = [(i, j) if p[i, j] < p[j, i] else (j, i) for i, j in pairs]
        for at, value in zip(where, holm([float(p[at]) for at in where]), strict=True):
            p[at] = 1.0 if value is None else value
    beats: Bools = p < quirks.alpha
    np.fill_diagonal(beats, False)
    return beats


def rank_scores(beats: Bools, quirks: Quirks = CHALLENGE) -> Floats:
    """Scores from 0.1 (worst) to 1 (best), evenly spread over the methods; equal ones get the mean of their places."""
    count = len(beats)
    losses = beats.sum(axis=0) if quirks.count == "losses" else -beats.sum(axis=1)
    if count == 1:
        return np.ones(1)
    places = np.linspace(LOWEST, 1.0, count)
    # Of the methods sorted from the most losses to the fewest, place k has the k-th score.
    below = (losses[None] > losses[:, None]).sum(axis=1)
    equal = (losses[None] == losses[:, None]).sum(axis=1)
    return np.array([places[b : b + e].mean() for b, e in zip(below, equal, strict=True)])


def geometric_mean(scores: Sequence[Floats], powers: Sequence[float], root: float | None = None) -> Floats:
    """Weighted geometric mean of rank scores `(M,)`.

    Args:
        powers: of the scores.
        root: that is taken of the product, by default the sum of the powers. The ranking of the lungs without runtime
            multiplies TRE twice and TRE30, and yet takes the fifth root.
    """
    weights = np.asarray(powers, float) / (np.sum(powers) if root is None else root)
    return np.asarray(np.exp(np.tensordot(weights, np.log(np.stack(scores)), axes=1)))


def rank_task(metrics: Mapping[str, Instances], quirks: Quirks = CHALLENGE, root: float | None = None) -> TaskRanking:
    """The challenge's ranking of one task.

    Args:
        metrics: name to values. Of Dice tasks: DSC, DSC30, HD95, SDlogJ, time; of the lungs: TRE with power 2, TRE30,
            SDlogJ, time. DSC30 and TRE30 are the instances of `hardest_instances`.
        root: see `geometric_mean`.

    Raises:
        ValueError: no metric, or different numbers of methods.
    """
    if len({len(m.values) for m in metrics.values()}) != 1:
        raise ValueError("expected at least one metric, all of the same methods")
    beats = {name: significance(m.values, m.kind, quirks) for name, m in metrics.items()}
    scores = {name: rank_scores(b, quirks) for name, b in beats.items()}
    score = geometric_mean(list(scores.values()), [m.power for m in metrics.values()], root)
    rounded = np.round(score, 12)
    rank = 1 + (rounded[None] > rounded[:, None]).sum(axis=1)
    return TaskRanking(beats, scores, score, rank)


def hardest_instances(initial: Floats, kind: str, quirks: Quirks = CHALLENGE) -> NDArray[np.int64]:
    """Which instances DSC30 and TRE30 look at, the same for all methods, in their order.

    Args:
        initial: `(N,)` of the unregistered images; what is missing counts as in `filled`: missing labels have
            a Dice of 0 and so are the hardest.
        kind: `dice` or `tre`.
    """
    values = filled(initial, kind, quirks)
    difficulty = -values if kind == "dice" else values
    if quirks.hardest == "easy":
        difficulty = -difficulty
    # Python's round, as there: half to even.
    count = round(quirks.share * len(values))
    return np.sort(np.argsort(-difficulty, kind="stable")[:count]).astype(np.int64)


def hardest_points(initial: Floats, quirks: Quirks = CHALLENGE) -> NDArray[np.int64]:
    """TRE30 as ranked: in each case the 30 % of its points that were hardest; indices into flat `(cases, points)`."""
    per_case = [hardest_instances(row, "tre", quirks) + i * initial.shape[1] for i, row in enumerate(initial)]
    return np.concatenate(per_case) if per_case else np.empty(0, np.int64)


def overall(task_scores: Mapping[str, Floats]) -> Floats:
    """Geometric mean of the scores `(M,)` of several tasks; a task that was not entered (NaN) counts 0.1."""
    scores = [np.where(np.isfinite(s), s, LOWEST) for s in task_scores.values()]
    return geometric_mean(scores, [1.0] * len(scores))
