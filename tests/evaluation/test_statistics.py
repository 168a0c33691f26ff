"""Statistics against values worked out by hand or by enumeration."""

from __future__ import annotations

from itertools import combinations

import pytest

from tts_tui.evaluation import statistics
from tts_tui.evaluation.prm.voting_report import auc
from tts_tui.evaluation.statistics import (
    area,
    best_threshold,
    bootstrap,
    calibration,
    differ,
    first_errors,
    holm,
    paired,
    pass_at_k,
    resampled,
    within,
)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(k):
    samples = [True, False, False, True, False]
    subsets = list(combinations(samples, k))
    assert pass_at_k(5, 2, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@3 needs at least 3 samples, not 2"):
        pass_at_k(2, 1, 3)


def test_two_plans_are_compared_by_the_problems_that_one_of_them_alone_has_right():
    first = [True] * 5 + [True] + [False] * 4
    second = [False] * 5 + [True] + [False] * 3 + [True]
    found = paired(first, second)
    assert (found.problems, found.only_first, found.only_second) == (10, 5, 1)
    assert found.difference == pytest.approx(0.4)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)
    assert found.low < 0.4 < found.high
    assert found == paired(first, second)


def test_plans_that_never_differ_have_no_difference():
    found = paired([True, False, True], [True, False, True])
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = [0.0, 1.0] * 200
    low, high = bootstrap(values)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)
    assert bootstrap([0.3]) == (-1.0, 1.0)


def test_problems_that_say_nothing_leave_a_measure_without_an_interval():
    assert resampled([1, 2, 3], lambda _: None) == (-1.0, 1.0)
    assert resampled([2, 2, 2], lambda some: sum(some) / len(some)) == (2.0, 2.0)


def test_several_tests_are_corrected_by_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_ways_that_differ_are_told_from_ways_that_do_not():
    assert differ([[True, False, False]] * 12) < 0.001
    alike = [[place == number % 3 for place in range(3)] for number in range(12)]
    assert differ(alike) == 1.0
    assert differ([[True, True], [False, False]]) == 1.0


def test_an_area_counts_ties_half_and_is_that_of_all_pairs():
    right, wrong = [0.9, 0.5, 0.5, 0.1], [0.5, 0.4]
    assert area(right, wrong) == pytest.approx((4 + 2 * 0.5) / 8)
    assert area(right, wrong) == pytest.approx(auc(right, wrong))
    assert area([], wrong) is area(right, []) is None


def test_calibration_has_bins_of_as_many_each_and_never_parts_equal_scores():
    pairs = [(0.2, False)] * 4 + [(0.6, True)] * 3 + [(0.6, False)] + [(1.0, True)] * 2
    found = calibration(pairs, bins=5)
    assert [size for _, _, size in found.bins] == [4, 4, 2]
    assert found.ece == pytest.approx((4 * 0.2 + 4 * 0.15 + 0) / 10)
    assert calibration([]).ece == 0.0


def test_a_correlation_within_groups_knows_nothing_of_their_means():
    groups = [[(1.0, 0.1), (2.0, 0.3)], [(101.0, 0.9), (102.0, 1.1)]]
    assert within(groups) == pytest.approx(1.0)
    assert within([[(1.0, 0.9), (2.0, 0.1)], [(50.0, 7.0)]]) == pytest.approx(-1.0)
    assert within([[(1.0, 0.5)]]) is None
    assert within([[(1.0, 0.5), (1.0, 0.7)]]) is None


def test_first_errors_are_counted_as_processbench_does():
    solutions = [
        ([0.9, 0.2, 0.1], 1),  # found
        ([0.4, 0.2], 1),  # a step too early
        ([0.9, 0.8], -1),  # rightly left alone
        ([0.9, 0.3], -1),  # over-criticism
        ([0.9, 0.9], -1),
        ([0.9, 0.9], 0),  # neglected
    ]
    found = first_errors(solutions, 0.5)
    assert (found.wrong, found.right) == (3, 3)
    assert (found.on_wrong, found.on_right) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found.f1 == pytest.approx(2 * (1 / 3) * (2 / 3) / (1 / 3 + 2 / 3))


def test_the_threshold_is_the_one_that_finds_most():
    solutions = [([0.9, 0.6], 1), ([0.9, 0.65], 1), ([0.8, 0.7], -1), ([0.95, 0.75], -1)]
    cut = best_threshold(solutions)
    assert 0.65 < cut < 0.7
    assert first_errors(solutions, cut).f1 == 1.0
    assert best_threshold([]) == 0.5


def test_no_first_error_is_found_where_there_is_nothing():
    assert first_errors([], 0.5) == statistics.Errors(0.5, 0.0, 0.0, 0.0, 0, 0)
