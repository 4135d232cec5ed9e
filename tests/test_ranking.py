"""The honest ranking against examples computed by hand and against SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from reg_bench.ranking import Column, rank
from reg_bench.ranking_tests import better_than, pareto_front, rank_sum, signed_rank_p

ALONE = np.arange(6)


def column(rows: list[list[float]], better: str = "higher", weight: float = 1.0) -> Column:
    return Column(np.array(rows, float), better, weight)


def test_signed_rank_by_hand() -> None:
    """Differences 1, 2, 3, 4, -5: W+ = 10 of 15; of 32 sign patterns 10 have a sum of at least 10."""
    exact = sum(sum(r for r, s in zip(range(1, 6), signs, strict=True) if s) >= 10 for signs in _signs(5)) / 32
    assert exact == 10 / 32
    assert signed_rank_p(np.array([1, 2, 3, 4, -5.0])) == pytest.approx(exact)
    assert signed_rank_p(np.array([1, 2, 3, 0.0, np.nan])) == pytest.approx(1 / 8)
    assert signed_rank_p(np.array([0.0, 0.0])) == 1.0
    assert signed_rank_p(np.array([1.0])) is None


def test_signed_rank_is_that_of_scipy() -> None:
    """Exact without ties; the normal approximation for many pairs; with ties by counting all signs."""
    generator = np.random.default_rng(5)
    for count in (5, 20, 50):
        difference = generator.standard_normal(count) + 0.2
        expected = stats.wilcoxon(difference, alternative="greater", method="exact").pvalue
        assert signed_rank_p(difference) == pytest.approx(expected, rel=1e-9)
    for count in (60, 400):
        difference = np.round(generator.standard_normal(count) + 0.1, 1)
        kept = difference[difference != 0]
        expected = stats.wilcoxon(kept, alternative="greater", method="asymptotic").pvalue
        assert signed_rank_p(difference) == pytest.approx(expected, rel=1e-9)
    ties = np.array([1, 1, -1, 2, 2, -3, 4, 4.0])
    ranks = stats.rankdata(np.abs(ties))
    observed = ranks[ties > 0].sum()
    count = sum(float(np.dot(ranks, signs)) >= observed - 1e-9 for signs in _signs(len(ties)))
    assert signed_rank_p(ties) == pytest.approx(count / 2 ** len(ties))


def _signs(count: int) -> list[tuple[int, ...]]:
    return list(itertools.product((0, 1), repeat=count))


def test_better_than_corrects_over_all_ordered_pairs() -> None:
    """Six subjects, a above b above c everywhere: each of three tests has p = 1/64, the other three p = 1."""
    rows = np.array([[9, 8, 7.5, 9, 8.2, 7.1], [6, 6.5, 5, 7, 6.1, 5.2], [1, 2, 2.5, 1.1, 0.2, 3]])
    p = better_than(rows, "higher")
    # Holm: 1/64 times 6; 5 and 4 times are less, and the corrected values do not fall.
    assert p[0, 1] == p[0, 2] == p[1, 2] == pytest.approx(6 / 64)
    assert p[1, 0] == p[2, 0] == p[2, 1] == 1.0
    assert np.isnan(np.diag(p)).all()
    np.testing.assert_array_equal(better_than(-rows, "lower"), p)


def test_rank_sum_is_that_of_scipy() -> None:
    a, b = np.array([1, 2, 3, 4.0]), np.array([3, 5, 6.0])
    assert rank_sum(a, b) == pytest.approx(tuple(stats.ranksums(a, b)))
    assert all(np.isnan(rank_sum(a, np.empty(0))))


def test_ranks_by_hand() -> None:
    """By Dice a, b, c; by folds c, b, a. Alone Dice decides, together all are equal, weights move it."""
    dice = [[0.9, 0.8, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.9]]
    folds = [[3, 3, 3], [2, 2, 2], [1, 1, 1]]
    names, subjects = ("a", "b", "c"), np.arange(3)
    assert rank(names, {"dice": column(dice)}, subjects).rank.tolist() == [1, 2, 3]
    both = rank(names, {"dice": column(dice), "folds": column(folds, "lower")}, subjects)
    assert both.score.tolist() == [2, 2, 2]
    assert both.rank.tolist() == [1, 1, 1]
    weighted = rank(names, {"dice": column(dice, weight=2), "folds": column(folds, "lower", 1)}, subjects)
    assert weighted.score == pytest.approx([(2 * 1 + 3) / 3, 2, (2 * 3 + 1) / 3])
    assert weighted.rank.tolist() == [1, 2, 3]


def test_equal_methods_share_the_best_of_their_places() -> None:
    found = rank(("a", "b", "c", "d"), {"m": column([[1, 2], [2, 1], [0, 0], [5, 5]])}, np.arange(2))
    assert found.rank.tolist() == [2, 2, 4, 1]
    assert found.score.tolist() == [2.5, 2.5, 4, 1]


def test_the_gate() -> None:
    """b has the better mean of the two, from one case; only a is better than no motion by a test."""
    subjects = np.arange(8)
    floor = np.full(8, 0.5)
    a = floor + np.linspace(0.01, 0.02, 8)
    b = np.array([1.0, 0.49, 0.48, 0.47, 0.46, 0.45, 0.44, 0.43])
    names, rows = ("identity", "a", "b", "truth"), [floor, a, b, np.full(8, 1.0)]
    columns = {"dice": Column(np.stack(rows), "higher")}
    assert b.mean() > a.mean()
    without = rank(names, columns, subjects, unranked=(0, 3))
    assert without.rank.tolist() == [0, 2, 1, 0]
    gated = rank(names, columns, subjects, floor=0, unranked=(3,))
    assert gated.passed.tolist() == [True, True, False, True]
    assert gated.rank.tolist() == [0, 1, 2, 0]
    assert gated.first.tolist() == [0, 1, 0, 0]
    assert np.isnan(gated.score[[0, 3]]).all()


def test_who_failed_everywhere_is_last() -> None:
    values = np.array([[0.2, 0.1], [np.nan, np.nan], [0.9, 0.8]])
    for better, expected in (("higher", [2, 3, 1]), ("lower", [1, 3, 2])):
        assert rank(("a", "failed", "c"), {"m": Column(values, better)}, np.arange(2)).rank.tolist() == expected


def test_intervals_of_ranks() -> None:
    """Far apart: every draw agrees. Nearly equal: each leads in about half of the draws and the interval is 1 to 2."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((3, 40))
    clear = rank(("a", "b", "c"), {"m": Column(noise + np.array([[20], [10], [0]]), "higher")}, np.arange(40))
    assert clear.low.tolist() == clear.high.tolist() == [1, 2, 3]
    assert clear.stability == pytest.approx(1)
    assert clear.first.tolist() == [1, 0, 0]
    assert clear.draws == 1000
    noise[1] = noise[0] + generator.standard_normal(40) * 0.1
    noise[1] += noise[0].mean() - noise[1].mean() - 1e-9
    close = rank(("a", "b", "c"), {"m": Column(noise + np.array([[9], [9], [0]]), "higher")}, np.arange(40))
    assert close.rank.tolist() == [1, 2, 3]
    assert (close.low[:2].tolist(), close.high[:2].tolist()) == ([1, 1], [2, 2])
    assert 0.4 < close.first[0] < 0.6
    # Half of the draws exchange one of three pairs.
    assert close.stability == pytest.approx(1 - 2 / 3 * (1 - close.first[0]), abs=1e-9)


def test_subjects_are_drawn_and_not_their_cases() -> None:
    """Forty cases of two people: b is better in one of them. Draws of cases would never exchange the two."""
    a, b = np.full(40, 0.5), np.full(40, 0.4)
    b[30:] = 0.7
    subjects = np.array([0] * 30 + [1] * 10)
    found = rank(("a", "b"), {"m": Column(np.stack([a, b]), "higher")}, subjects)
    assert found.rank.tolist() == [1, 2]
    # Only the second person, in a quarter of the draws.
    assert found.first[1] == pytest.approx(0.25, abs=0.05)
    single = rank(("a", "b"), {"m": Column(np.stack([a, b]), "higher")}, np.zeros(40, int))
    assert single.draws == 0
    assert single.low.tolist() == single.rank.tolist()


def test_a_ranking_repeats() -> None:
    values = np.random.default_rng(3).random((5, 30))
    first, again = (rank("abcde", {"m": Column(values, "lower")}, np.arange(30)) for _ in range(2))
    assert first.first.tolist() == again.first.tolist()
    reversed_rows = rank("edcba", {"m": Column(values[::-1], "lower")}, np.arange(30))
    assert reversed_rows.rank[::-1].tolist() == first.rank.tolist()
    assert reversed_rows.first[::-1].tolist() == first.first.tolist()


def test_bad_columns() -> None:
    with pytest.raises(ValueError, match="must be 'higher' or 'lower'"):
        column([[1]], "neutral")
    with pytest.raises(ValueError, match="weight must be positive"):
        column([[1]], weight=0)
    with pytest.raises(ValueError, match=r"m: values \(2, 1\), expected \(2, 6\)"):
        rank(("a", "b"), {"m": column([[1], [2]])}, ALONE)
    with pytest.raises(ValueError, match="at least one metric"):
        rank(("a", "b"), {}, ALONE)


def test_pareto_front() -> None:
    """Error against time: c is beaten by b in both, d equals b; what is unknown stands aside."""
    losses = np.array([[1, 9], [2, 2], [3, 3], [2, 2], [9, 1], [np.nan, 0]])
    assert pareto_front(losses).tolist() == [True, True, False, True, True, False]
    three = np.column_stack([losses[:5], [5, 5, 0, 4, 5]])
    assert pareto_front(three).tolist() == [True, False, True, True, True]
