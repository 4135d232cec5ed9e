"""The statistics of a leaderboard against SciPy, hand-made cases and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reg_bench import statistics as st

NAN = np.nan


def test_a_failed_case_counts_as_the_worst_of_the_metric() -> None:
    status = np.array([[1, 1, 1], [1, 2, 1]], dtype=np.int8)
    dice = np.array([[0.9, 0.8, 0.7], [0.95, NAN, 0.9]])
    filled, substituted = st.with_failures(dice, status, st.existing_cases(dice, status), "dice", "higher")
    assert filled[1].tolist() == [0.95, 0.0, 0.9]
    assert substituted.tolist() == [[False] * 3, [False, True, False]]
    tre = np.array([[2.0, 7.0, 1.0], [1.0, NAN, 1.0]])
    filled, _ = st.with_failures(tre, status, st.existing_cases(tre, status), "tre_landmarks", "lower")
    assert filled[1].tolist() == [1.0, 7.0, 1.0]
    ncc = np.array([[0.5, -0.2, 0.9], [0.8, NAN, 0.9]])
    filled, _ = st.with_failures(ncc, status, st.existing_cases(ncc, status), "ncc", "higher")
    assert filled[1].tolist() == [0.8, -0.2, 0.9]


def test_a_null_value_of_a_finished_case_counts_as_the_worst() -> None:
    status = np.ones((3, 2), dtype=np.int8)
    hd95 = np.array([[3.0, 4.0], [2.0, NAN], [5.0, 9.0]])
    filled, substituted = st.with_failures(hd95, status, st.existing_cases(hd95, status), "hd95", "lower")
    assert filled[1].tolist() == [2.0, 9.0]
    assert substituted.sum() == 1


def test_a_metric_that_no_method_has_on_a_case_is_absent_for_all() -> None:
    status = np.array([[1, 1], [1, 2]], dtype=np.int8)
    dice = np.array([[0.9, NAN], [0.8, NAN]])
    exists = st.existing_cases(dice, status)
    assert exists.tolist() == [True, False]
    filled, substituted = st.with_failures(dice, status, exists, "dice", "higher")
    assert np.isnan(filled[:, 1]).all()
    assert not substituted.any()
    # The same nulls with labels counted: infinite distances, not missing labels.
    assert st.existing_cases(dice, status, np.array([[2.0, 2.0], [2.0, NAN]])).all()


def test_a_lone_method_does_not_lose_its_hard_cases_by_failing() -> None:
    status = np.array([[1, 2, 1]], dtype=np.int8)
    dice = np.array([[0.9, NAN, 0.7]])
    filled, _ = st.with_failures(dice, status, st.existing_cases(dice, status), "dice", "higher")
    assert filled[0].tolist() == [0.9, 0.0, 0.7]
    filled, _ = st.with_failures(dice, status, st.existing_cases(dice, status), "sdlogj", "lower")
    assert filled[0].tolist() == [0.9, 0.9, 0.7]


def test_skipped_and_missing_cases_stay_absent() -> None:
    status = np.array([[1, 1, 1], [1, 3, 0]], dtype=np.int8)
    values = np.array([[0.9, 0.8, 0.7], [0.5, NAN, NAN]])
    filled, substituted = st.with_failures(values, status, st.existing_cases(values, status), "dice", "higher")
    assert np.isnan(filled[1, 1:]).all()
    assert not substituted.any()


@pytest.mark.parametrize(("n", "count"), [(1, 1), (3, 1), (5, 2), (10, 3), (15, 5), (40, 12)])
def test_hardest_cases_are_thirty_percent_rounded_half_up(n: int, count: int) -> None:
    difficulty = np.linspace(0, 1, n)
    assert st.hardest_cases(difficulty, "higher").tolist() == list(range(count))
    assert st.hardest_cases(difficulty, "lower").tolist() == list(range(n - count, n))


def test_hardest_cases_ignore_absent_values_and_break_ties_by_order() -> None:
    assert st.hardest_cases(np.array([NAN, 0.5, 0.5, 0.5, 0.9]), "higher").tolist() == [1]
    assert st.hardest_cases(np.full(4, NAN), "higher").tolist() == []


def test_summary_has_sample_deviation_and_no_robust_score_without_all_hard_cases() -> None:
    values = np.array([1.0, 2.0, 6.0])
    none = np.zeros(3, dtype=bool)
    summary = st.summarise(values, none, np.array([0, 2]))
    assert (summary.n, summary.mean, summary.median, summary.hardest) == (3, 3.0, 2.0, 3.5)
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert st.summarise(np.array([1.0, NAN, 2.0]), none, np.array([0, 1])).hardest is None
    assert st.summarise(np.array([NAN]), none[:1]).mean is None
    assert st.summarise(np.array([2.0]), none[:1]).sd is None


def test_subjects_are_what_stands_before_the_first_slash() -> None:
    index = st.subjects_of(["b/001", "a/001", "b/002", "c", "a/1/2"])
    assert index.tolist() == [1, 0, 1, 2, 0]


def test_bootstrap_agrees_with_scipy_when_every_case_is_a_subject() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=40)
    (interval,) = st.bootstrap_intervals(values[None], np.arange(40))
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
    assert interval is not None
    # Two Monte Carlo estimates of one interval: apart by their noise, far below its width.
    assert interval == pytest.approx(expected.confidence_interval, abs=0.05)


def test_bootstrap_resamples_subjects_and_not_cases() -> None:
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(8), 50)
    values = rng.normal(size=8)[subject] + 0.01 * rng.normal(size=400)
    ((low, high),) = [i for i in st.bootstrap_intervals(values[None], subject) if i]
    of_means = values.reshape(8, 50).mean(axis=1)
    assert (high - low) == pytest.approx(2 * 1.96 * of_means.std() / np.sqrt(8), rel=0.15)


def test_bootstrap_weighs_subjects_by_their_cases_and_needs_two() -> None:
    subject = np.array([0, 0, 0, 1])
    ((low, high),) = [i for i in st.bootstrap_intervals(np.array([[1.0, 1.0, 1.0, 0.0]]), subject) if i]
    assert (low, high) == (0.0, 1.0)
    assert st.bootstrap_intervals(np.ones((2, 3)), np.zeros(3, dtype=int)) == [None, None]
    one_has_a_single_subject = np.array([[1.0, 2.0], [1.0, NAN]])
    assert st.bootstrap_intervals(one_has_a_single_subject, np.arange(2))[1] is None


def test_bootstrap_repeats_itself() -> None:
    values = np.random.default_rng(3).normal(size=(2, 30))
    assert st.bootstrap_intervals(values, np.arange(30)) == st.bootstrap_intervals(values, np.arange(30))


def test_subject_means_average_frames_first() -> None:
    filled = np.array([[1.0, 3.0, 10.0, NAN], [1.0, NAN, 2.0, NAN]])
    means = st.subject_means(filled, np.array([0, 0, 1, 2]))
    assert means[0].tolist() == [2.0, 10.0]
    assert np.isnan(means[1, 0])
    assert means[1, 1] == 2.0


def test_wilcoxon_is_that_of_scipy_and_handles_equality() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=20), rng.normal(0.5, size=20)
    assert st.wilcoxon_p(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert st.wilcoxon_p(a, a + 1e-15) == 1.0
    assert st.wilcoxon_p(a[:1], b[:1]) is None


def test_holm_on_the_textbook_example() -> None:
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert st.holm([]) == []
