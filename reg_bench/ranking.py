"""The honest ranking of methods: pure functions of arrays `(methods, cases)`. Imports neither torch nor polars.

* A method is ranked per metric by its mean over the cases, failures in it as the worst value (`reg_bench.statistics`);
  several metrics are joined by the weighted mean of these ranks.
* How firm a rank is: subjects are drawn with replacement and everything is ranked again; the interval holds 95 % of the
  ranks of a method, `first` is how often it led, `stability` the mean Kendall correlation with the ranking itself.
* Who is better than whom: one-sided paired Wilcoxon signed-rank tests over subjects, Holm's correction over all ordered
  pairs of methods.
* The gate: a method has to be better than no motion at all by such a test, or it stands behind all that are.
* A method that failed on every case is last. Rows that are for comparison (no motion, the known motion) have no rank.

`reg_bench.ranking_learn2reg` ranks as the challenge does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reg_bench.ranking_tests import better_than
from reg_bench.statistics import Bools, Floats, subject_means

Counts = NDArray[np.int64]

DRAWS, CONFIDENCE, ALPHA = 1000, 0.95, 0.05
_SEED = 20_240_501


@dataclass(frozen=True)
class Column:
    """A metric of all methods.

    Attributes:
        values: `(M, N)`, failures filled in as the worst (`statistics.with_failures`); NaN where a method lacks a case.
        better: `higher` or `lower`.
        weight: share in the joint rank.
    """

    values: Floats
    better: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise ValueError(f"better must be 'higher' or 'lower' to rank by, got {self.better!r}")
        if not self.weight > 0:
            raise ValueError(f"a weight must be positive, got {self.weight}")


@dataclass(frozen=True)
class Ranking:
    """Ranks of `names`, all arrays in their order.

    Attributes:
        rank: place, 1 is best, equal ones share the best of theirs; 0 for rows that are only for comparison.
        score: weighted mean of the ranks per metric that `rank` orders; NaN where there is no rank.
        low, high: interval of the rank over the draws; 0 where there is no rank.
        first: share of the draws in which the method was first.
        stability: mean Kendall correlation (tau-b) of the draws with the ranking itself; NaN for a single method.
        passed: whether it is better than no motion; true for all where there is no such row.
        p: per metric `(M, M)`, corrected p of "row is better than column"; NaN on the diagonal.
        draws: how many; 0 where there are fewer than two subjects.
    """

    names: tuple[str, ...]
    rank: Counts
    score: Floats
    low: Counts
    high: Counts
    first: Floats
    stability: float
    passed: Bools
    p: Mapping[str, Floats] = field(default_factory=dict)
    draws: int = 0


def rank(
    names: Sequence[str],
    columns: Mapping[str, Column],
    subjects: Counts,
    *,
    floor: int | None = None,
    unranked: Sequence[int] = (),
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    alpha: float = ALPHA,
) -> Ranking:
    """Ranks methods.

    Args:
        names: of the `M` methods.
        columns: metric to its values; the first is the one that the gate looks at.
        subjects: `(N,)` of the cases, see `statistics.subjects_of`.
        floor: row of no motion, for the gate; it gets no rank.
        unranked: further rows without a rank.
        draws: bootstrap samples; their seed is fixed, so that a ranking repeats.
        confidence: of the intervals.
        alpha: level of the gate.

    Raises:
        ValueError: no column, or arrays that do not fit together.
    """
    count = len(names)
    if not columns:
        raise ValueError("ranking needs at least one metric")
    for metric, column in columns.items():
        if column.values.shape != (count, len(subjects)):
            raise ValueError(f"{metric}: values {column.values.shape}, expected {(count, len(subjects))}")
    per_subject = {m: subject_means(c.values, subjects) for m, c in columns.items()}
    p = {m: better_than(per_subject[m], c.better) for m, c in columns.items()}
    out = np.zeros(count, bool)
    out[[*unranked, *(() if floor is None else (floor,))]] = True
    passed = np.ones(count, bool)
    if floor is not None:
        first = next(iter(columns))
        with np.errstate(invalid="ignore"):
            passed = (p[first][:, floor] < alpha) | out
    losses = np.stack([_losses(c) for c in columns.values()])
    weights = np.array([c.weight for c in columns.values()])
    means = _means(losses, np.ones((1, len(subjects))))
    score, order = _joint(means, weights, passed, out)
    result = Ranking(
        names=tuple(names),
        rank=order[0],
        score=np.where(out, np.nan, score[0]),
        low=order[0],
        high=order[0],
        first=np.where(out, 0.0, (order[0] == 1).astype(float)),
        stability=np.nan,
        passed=passed,
        p=p,
    )
    used, index = np.unique(subjects, return_inverse=True)
    if len(used) < 2 or draws < 1 or out.all():
        return result
    times = _drawn(len(used), draws)
    redrawn = _joint(_means(losses, times, index), weights, passed, out)[1]
    tail = (1 - confidence) / 2
    low = np.quantile(redrawn, tail, axis=0, method="inverted_cdf").astype(np.int64)
    high = np.quantile(redrawn, 1 - tail, axis=0, method="inverted_cdf").astype(np.int64)
    led = np.where(out, 0.0, (redrawn == 1).mean(axis=0))
    agreement = _kendall(redrawn[:, ~out], order[0][~out])
    return Ranking(result.names, result.rank, result.score, low, high, led, agreement, passed, p, draws)


def _losses(column: Column) -> Floats:
    """Values of which smaller is better, equal ones equal to 12 digits."""
    return np.asarray(np.round(-column.values if column.better == "higher" else column.values, 12))


def _drawn(count: int, draws: int) -> Floats:
    """How often each subject is drawn, `(draws, subjects)`."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)


def _means(losses: Floats, times: Floats, index: NDArray[np.intp] | None = None) -> Floats:
    """Mean losses `(K, draws, M)` with every case counted as often as its subject was drawn.

    NaN where a method has a value on no case that was drawn.
    """
    present = np.isfinite(losses)
    sums, counts = np.where(present, losses, 0.0), present.astype(float)
    if index is not None:
        joined = np.zeros((times.shape[1], len(index)))
        joined[index, np.arange(len(index))] = 1.0
        sums, counts = sums @ joined.T, counts @ joined.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.swapaxes((sums @ times.T) / (counts @ times.T), 1, 2))


def _joint(means: Floats, weights: Floats, passed: Bools, out: Bools) -> tuple[Floats, Counts]:
    """Score and rank `(draws, M)` of the methods that have one; what did not pass the gate stands behind the others."""
    losses = np.where(np.isfinite(means), np.round(means, 12), np.inf)
    losses[..., out] = np.inf
    places = np.stack([_places(metric) for metric in losses])
    score = np.tensordot(weights / weights.sum(), places, axes=1)
    behind = score + np.where(passed, 0.0, float(len(out)))
    behind[:, out] = np.inf
    order = _places(behind, share="best").astype(np.int64)
    order[:, out] = 0
    return score, order


def _places(losses: Floats, share: str = "mean") -> Floats:
    """Places `(draws, M)` from 1; equal losses share the mean or the best of their places."""
    smaller = (losses[:, None, :] < losses[:, :, None]).sum(axis=2)
    if share == "best":
        return np.asarray(1.0 + smaller)
    equal = (losses[:, None, :] == losses[:, :, None]).sum(axis=2)
    return np.asarray(1.0 + smaller + (equal - 1) / 2)


def _kendall(draws: Counts, order: Counts) -> float:
    """Mean tau-b of the rankings `draws (B, M)` with `order (M,)`; those without any order are left out."""
    first, second = np.triu_indices(len(order), 1)
    if not len(first):
        return float("nan")
    own = np.sign(order[first] - order[second]).astype(float)
    other = np.sign(draws[:, first] - draws[:, second]).astype(float)
    norm = np.sqrt((own != 0).sum() * (other != 0).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = (other @ own) / norm
    return float(np.nanmean(tau)) if np.isfinite(tau).any() else float("nan")
