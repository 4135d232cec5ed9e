"""Statistics of a leaderboard: pure functions of arrays `(methods, cases)`. Imports neither torch nor polars.

The rules that every table obeys:

* A null value is never dropped. Where a case has a metric at all, a method that failed on it, or whose value
  is null, gets the worst: 0 for Dice, for every other metric the worst value that any method has on that case.
* A metric that no method could compute on a case (no labels, say) is absent there for every method.
* Cases of one subject are not independent: intervals and tests resample and pair subjects, not cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]

#: What a method did on a case.
MISSING, OK, FAILED, SKIPPED = 0, 1, 2, 3

#: Scores whose worst value is known beforehand; all other metrics take it from the case.
WORST_SCORE = {"dice": 0.0}

#: Share of the cases that `DSC30` and `TRE30` look at, as a fraction of whole numbers to round exactly.
HARDEST_PERCENT = 30

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Statistics of one metric of one method over `n` cases, `substituted` of them by the worst value.

    `sd` is the sample standard deviation over cases (None below two cases); `hardest` is the mean over the
    hardest 30 % of the cases.
    """

    n: int
    substituted: int
    mean: float | None
    sd: float | None
    median: float | None
    hardest: float | None = None


def subjects_of(cases: Sequence[str]) -> NDArray[np.int64]:
    """The subject of every case as a number; case identifiers are `subject`, `subject/frame` and the like."""
    names = np.array([case.split("/", 1)[0] for case in cases], dtype=str)
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def existing_cases(values: Floats, status: Codes, labels_counted: Floats | None = None) -> Bools:
    """The cases `(N,)` on which a metric exists, from `values` and `status`, both `(M, N)`, NaN for null.

    It exists where any method has a value. It also exists where all values are null although labels were
    counted (an infinite Hausdorff distance), and where no method finished: a lone method cannot lose its hard
    cases by failing on them.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape[1], dtype=bool)
    exists = finite.any(axis=0)
    nobody_finished = ~(status == OK).any(axis=0) & (status == FAILED).any(axis=0)
    if labels_counted is not None:
        exists = exists | (np.nan_to_num(labels_counted).max(axis=0) > 0)
    return np.asarray(exists | nobody_finished)


def worst_values(values: Floats, metric: str, better: str) -> Floats:
    """What a failure costs on each case `(N,)`: see the rules above. NaN values are ignored.

    Where no method has a value on a case, the worst of any method on any case stands in.
    """
    if metric in WORST_SCORE:
        return np.full(values.shape[1], WORST_SCORE[metric])
    sign = -1.0 if better == "higher" else 1.0
    losses = np.where(np.isfinite(values), sign * values, -np.inf)
    per_case = losses.max(axis=0, initial=-np.inf)
    return np.asarray(sign * np.where(np.isfinite(per_case), per_case, per_case.max(initial=-np.inf)))


def with_failures(values: Floats, status: Codes, exists: Bools, metric: str, better: str) -> tuple[Floats, Bools]:
    """`values` with the worst value wherever a method owes one, and where that happened `(M, N)`.

    NaN remains where the metric does not exist, and where the method was not run or opted out.
    """
    owed = exists[None] & ((status == OK) | (status == FAILED))
    substituted = owed & ~np.isfinite(values)
    if better == "neutral":
        return np.where(owed, values, np.nan), np.zeros_like(substituted)
    filled = np.where(substituted, worst_values(values, metric, better)[None], values)
    return np.where(owed, filled, np.nan), substituted


def hardest_cases(difficulty: Floats, better: str) -> NDArray[np.int64]:
    """Indices of the hardest 30 % of the cases, at least one; ties go to the first in order.

    `difficulty` `(N,)` is the metric before registration, NaN where it does not exist.
    """
    present = np.flatnonzero(np.isfinite(difficulty))
    if not len(present):
        return present.astype(np.int64)
    keys = difficulty[present] if better == "higher" else -difficulty[present]
    # Half away from zero in whole numbers: round() would send 0.5 to the even neighbour.
    count = max(1, (HARDEST_PERCENT * len(present) + 50) // 100)
    return np.sort(present[np.argsort(keys, kind="stable")[:count]]).astype(np.int64)


def summarise(filled: Floats, substituted: Bools, hardest: NDArray[np.int64] | None = None) -> Summary:
    """Statistics of one method, `filled` and `substituted` both `(N,)`."""
    present = filled[np.isfinite(filled)]
    n = len(present)
    if n == 0:
        return Summary(0, 0, None, None, None)
    tail = filled[hardest] if hardest is not None and len(hardest) else np.empty(0)
    # A method that lacks some of the hardest cases has no robust score: it would be that of easier ones.
    robust = float(tail.mean()) if len(tail) and np.isfinite(tail).all() else None
    return Summary(
        n=n,
        substituted=int(substituted.sum()),
        mean=float(present.mean()),
        sd=float(present.std(ddof=1)) if n > 1 else None,
        median=float(np.median(present)),
        hardest=robust,
    )


def bootstrap_intervals(
    filled: Floats, subjects: NDArray[np.int64], *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> list[tuple[float, float] | None]:
    """Percentile interval of the mean for every method (Efron), subjects drawn with replacement.

    `filled` is `(M, N)`, `subjects` `(N,)` from `subjects_of`. All methods see the same draws, whose seed is
    fixed, so that rebuilding a table repeats it. None where fewer than two subjects have a value.
    """
    present = np.isfinite(filled)
    used, index = np.unique(subjects[present.any(axis=0)], return_inverse=True)
    columns = np.flatnonzero(present.any(axis=0))
    count = len(used)
    sums, weights = np.zeros((count, len(filled))), np.zeros((count, len(filled)))
    np.add.at(sums, index, np.where(present, filled, 0.0)[:, columns].T)
    np.add.at(weights, index, present[:, columns].T.astype(float))
    if count < 2:
        return [None] * len(filled)
    rng = np.random.default_rng(20_240_501)
    means = np.empty((resamples, len(filled)))
    step = max(1, 2_000_000 // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(count, size=(rows, count), dtype=np.int32)
        draws += np.arange(0, rows * count, count, dtype=np.int32)[:, None]
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + rows] = (times @ sums) / (times @ weights)
    tail = (1 - confidence) / 2
    enough = (weights > 0).sum(axis=0) >= 2
    bounds = [np.nanquantile(means[:, m], (tail, 1 - tail)) if enough[m] else None for m in range(len(filled))]
    return [None if b is None else (float(b[0]), float(b[1])) for b in bounds]


def subject_means(filled: Floats, subjects: NDArray[np.int64]) -> Floats:
    """Mean of every method over the cases of each subject, `(M, S)`; NaN where it lacks a case of the subject
    that others have."""
    columns = np.isfinite(filled).any(axis=0)
    used, index = np.unique(subjects[columns], return_inverse=True)
    sums = np.zeros((len(used), len(filled)))
    np.add.at(sums, index, filled[:, columns].T)
    return np.asarray((sums / np.maximum(np.bincount(index, minlength=len(used)), 1)[:, None]).T)


def wilcoxon_p(a: Floats, b: Floats) -> float | None:
    """Two-sided p of the paired Wilcoxon signed-rank test of `a` against `b`, one value per subject.

    None below two pairs; 1 where all pairs are equal (to 12 digits: noise of summation is no difference).
    """
    difference = np.round(a - b, 12)
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return None
    if not difference.any():
        return 1.0
    from scipy.stats import wilcoxon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(wilcoxon(difference).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family of tests; None stays None and does not count."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    running = 0.0
    for place, (p, i) in enumerate(order):
        running = max(running, min(1.0, (len(order) - place) * p))
        corrected[i] = running
    return corrected
