"""Tests of all methods against all others: pure functions of `(methods, values)`."""

from __future__ import annotations

import math

import numpy as np

from reg_bench.statistics import Bools, Floats, holm

#: Up to this many pairs the distribution of the signed ranks is counted.
_EXACT = 50


def signed_rank_p(difference: Floats) -> float | None:
    """One-sided p of the Wilcoxon signed-rank test that the differences are above 0; `None` below two pairs.

    Pairs without difference (to 12 digits) are left out; 1 where none is left. Exact up to 50 pairs, ties included:
    the number of sign patterns is counted for every sum of ranks. Above, the normal approximation with the correction
    for ties.
    """
    difference = np.round(difference[np.isfinite(difference)], 12)
    if len(difference) < 2:
        return None
    difference = difference[difference != 0]
    count = len(difference)
    if not count:
        return 1.0
    _, inverse, sizes = np.unique(np.abs(difference), return_inverse=True, return_counts=True)
    # Twice the mean rank of equal differences: whole numbers.
    ranks = (2 * np.cumsum(sizes) - sizes + 1)[inverse]
    positive = int(ranks[difference > 0].sum())
    if count <= _EXACT:
        patterns = np.zeros(int(ranks.sum()) + 1)
        patterns[0] = 1.0
        for r in ranks:
            patterns[r:] += patterns[:-r].copy()
        return float(patterns[positive:].sum() / 2.0**count)
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - float((sizes.astype(float) ** 3 - sizes).sum()) / 48
    return 0.5 * math.erfc((positive / 2 - mean) / math.sqrt(2 * variance))


def rank_sum(a: Floats, b: Floats) -> tuple[float, float]:
    """Statistic and two-sided p of the unpaired Wilcoxon rank-sum test; a positive statistic: `a` is larger.

    That of `scipy.stats.ranksums`, the normal approximation without correction for ties. NaN for empty samples.
    """
    from scipy.stats import ranksums

    if not len(a) or not len(b):
        return float("nan"), float("nan")
    found = ranksums(a, b)
    return float(found.statistic), float(found.pvalue)


def better_than(means: Floats, better: str) -> Floats:
    """Corrected p of "row is better than column" `(M, M)`: one-sided signed-rank tests, Holm over all ordered pairs.

    Args:
        means: `(M, S)`, a value per subject; NaN where a method lacks one.
        better: `higher` or `lower`.

    Returns:
        NaN on the diagonal and where fewer than two subjects are shared.
    """
    count = len(means)
    sign = 1.0 if better == "higher" else -1.0
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    with np.errstate(invalid="ignore"):
        raw = [signed_rank_p(sign * (means[i] - means[j])) for i, j in pairs]
    p = np.full((count, count), np.nan)
    for (i, j), value in zip(pairs, holm(raw), strict=True):
        p[i, j] = np.nan if value is None else value
    return p


def pareto_front(losses: Floats) -> Bools:
    """The points `(M,)` that no other point dominates: at least as good in everything and better in something.

    Args:
        losses: `(M, K)`, smaller is better in each of the K; a point with NaN is never on the front and dominates none.
    """
    known: Bools = np.asarray(np.isfinite(losses).all(axis=1))
    safe = np.where(known[:, None], losses, np.inf)
    no_worse: Bools = np.asarray((safe[:, None] <= safe[None]).all(axis=2))
    somewhere_better: Bools = np.asarray((safe[:, None] < safe[None]).any(axis=2))
    dominated = (no_worse & somewhere_better & known[:, None]).any(axis=0)
    return np.asarray(known & ~dominated)
