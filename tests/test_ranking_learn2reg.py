"""The challenge's ranking against examples computed by hand, each quirk on and off."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reg_bench.ranking_learn2reg import (
    Instances,
    Quirks,
    filled,
    geometric_mean,
    hardest_instances,
    hardest_points,
    overall,
    rank_scores,
    rank_task,
    significance,
)


def beats(*pairs: tuple[int, int], count: int) -> np.ndarray:
    table = np.zeros((count, count), bool)
    for better, worse in pairs:
        table[better, worse] = True
    return table


def test_rank_scores_by_hand() -> None:
    """0 beats all, 1 and 2 beat 3: losses 0, 1, 1, 3 of places 0.1, 0.4, 0.7, 1; the equal ones get the middle."""
    table = beats((0, 1), (0, 2), (0, 3), (1, 3), (2, 3), count=4)
    assert rank_scores(table) == pytest.approx([1, 0.55, 0.55, 0.1])
    # Nobody beats anybody: all get the mean of all places.
    assert rank_scores(beats(count=4)) == pytest.approx([0.55] * 4)
    assert rank_scores(beats(count=1)).tolist() == [1.0]


def test_losses_are_not_wins() -> None:
    """0 beats 2, 1 beats nobody and is beaten by nobody: by losses 0 and 1 are equal, by wins 0 alone leads."""
    table = beats((0, 2), count=3)
    assert rank_scores(table) == pytest.approx([0.775, 0.775, 0.1])
    assert rank_scores(table, Quirks(count="wins")) == pytest.approx([1, 0.325, 0.325])


def test_unpaired_and_paired_tests_differ() -> None:
    """A tiny gain in every case of very different cases: seen by pairs, drowned without them."""
    hard = np.linspace(0.1, 0.9, 20)
    values = np.stack([hard + 0.01, hard])
    assert not significance(values, "dice").any()
    assert significance(values, "dice", Quirks(test="signed-rank")).tolist() == [[False, True], [False, False]]
    assert significance(-values, "tre", Quirks(test="signed-rank")).tolist() == [[False, True], [False, False]]


def test_significance_is_that_of_ranksums() -> None:
    generator = np.random.default_rng(1)
    values = generator.random((4, 30)) + np.array([[0.3], [0.2], [0.1], [0.0]])
    table = significance(values, "hd95")
    for i in range(4):
        for j in range(4):
            found = stats.ranksums(-values[i], -values[j])
            assert table[i, j] == (i != j and found.pvalue < 0.05 and found.statistic > 0)
    stricter = significance(values, "hd95", Quirks(correction="holm"))
    assert not (stricter & ~table).any()


def test_holm_over_the_pairs_by_hand() -> None:
    """One of four methods is better by 3.5 (p = 0.021) or by 6.25 (p = 0.0011); six pairs: times 6."""
    same = np.arange(1.0, 9.0)
    p = {gain: stats.ranksums(same + gain, same).pvalue for gain in (3.5, 6.25)}
    assert p[3.5] < 0.05 < 6 * p[3.5]
    assert 6 * p[6.25] < 0.05
    for gain, corrected in ((3.5, 0), (6.25, 3)):
        values = np.stack([same + gain, same, same, same])
        assert significance(values, "dice").sum() == 3
        assert significance(values, "dice", Quirks(correction="holm")).sum() == corrected


def test_what_stands_for_missing_values() -> None:
    values = np.array([[np.nan, np.inf, 0.3]])
    assert filled(values, "dice").tolist() == [[0, 0, 0.3]]
    assert filled(values, "hd95").tolist() == [[10, 10, 0.3]]
    assert filled(values, "tre").tolist() == [[0, 0, 0.3]]
    assert filled(values, "sdlogj").tolist() == [[5, 5, 0.3]]
    assert filled(values, "time", Quirks(missing={"time": 3500.0})).tolist() == [[3500, 3500, 0.3]]
    with pytest.raises(ValueError, match="unknown kind of metric 'ncc'"):
        filled(values, "ncc")


def test_geometric_mean_by_hand() -> None:
    """Scores 1, 1/4 and 1/8 with powers 2, 1, 1: (1/32) ** (1/4); the lungs without runtime take the fifth root."""
    scores = [np.array([1.0]), np.array([0.25]), np.array([0.125])]
    assert geometric_mean(scores, [2, 1, 1]) == pytest.approx([(1 / 32) ** 0.25])
    assert geometric_mean(scores, [2, 1, 1], root=5) == pytest.approx([(1 / 32) ** 0.2])


def test_hardest_instances_by_hand() -> None:
    """Ten of which three: the lowest Dice without registration, missing labels first; in order of place."""
    initial = np.array([0.9, 0.2, 0.5, np.nan, 0.8, 0.1, 0.6, 0.7, 0.3, 0.4])
    assert hardest_instances(initial, "dice").tolist() == [1, 3, 5]
    assert hardest_instances(initial, "dice", Quirks(hardest="easy")).tolist() == [0, 4, 7]
    assert hardest_instances(np.arange(10.0), "tre").tolist() == [7, 8, 9]
    # round(0.3 * 5) is 2: half to even.
    assert hardest_instances(np.arange(5.0), "tre").tolist() == [3, 4]
    assert hardest_points(np.array([np.arange(10.0), np.arange(10.0)[::-1]])).tolist() == [7, 8, 9, 10, 11, 12]


def test_a_task_by_hand() -> None:
    """Three methods of which 0 is best in TRE (counted twice) and worst in time: places from 0.1 over 0.55 to 1."""
    steps = np.arange(12.0)
    tre = np.stack([steps, steps + 100, steps + 200])
    time = np.stack([steps + 200, steps + 100, steps])
    found = rank_task({"TRE": Instances("tre", tre, power=2), "time": Instances("time", time)})
    assert found.scores["TRE"] == pytest.approx([1, 0.55, 0.1])
    assert found.scores["time"] == pytest.approx([0.1, 0.55, 1])
    assert found.score == pytest.approx([0.1 ** (1 / 3), 0.55, 0.01 ** (1 / 3)])
    assert found.rank.tolist() == [2, 1, 3]
    assert found.beats["TRE"].tolist() == [[False, True, True], [False, False, True], [False] * 3]
    assert overall({"a": found.score, "b": np.array([np.nan, 1, 1])}) == pytest.approx(
        np.sqrt(found.score * [0.1, 1, 1])
    )
    with pytest.raises(ValueError, match="same methods"):
        rank_task({"TRE": Instances("tre", tre), "time": Instances("time", time[:2])})
