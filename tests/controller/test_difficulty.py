"""Posteriors of difficulty, compared with Bayes' rule computed manually.

The prior here is uniform (`prior(0.5, 2)`), for which the probability of k right ones among n samples with given
answers is the integral of p^k (1 - p)^(n - k): 1/2 for one sample, 1/3 for two that agree, 1/6 for two that differ.
"""

from __future__ import annotations

import itertools
import math

import pytest
from scipy.stats import beta

from tts_tui.controller.difficulty import (
    EASY,
    GRID,
    HARD,
    AnswerLikelihood,
    DifficultyModel,
    Observation,
    prior,
    update,
)

UNIFORM = prior(0.5, 2.0)
PLAIN = AnswerLikelihood(
    slope=1.0, intercept=0.0, searched_slope=0.5, searched_intercept=-1.0, power=0.0, agreement=3.0
)


@pytest.mark.parametrize(("mean", "concentration"), [(0.5, 2.0), (0.3, 5.0), (0.8, 2.5), (0.1, 8.0)])
def test_before_any_sample_a_belief_is_a_beta_distribution(mean, concentration):
    belief = prior(mean, concentration)
    true = beta(mean * concentration, (1 - mean) * concentration)
    assert belief.pass1 == pytest.approx(mean, abs=0.01)
    easy, medium, hard = belief.levels
    assert easy == pytest.approx(true.sf(EASY), abs=0.04)
    assert hard == pytest.approx(true.cdf(HARD), abs=0.04)
    assert easy + medium + hard == pytest.approx(1)
    assert belief.quantile(0.9) == pytest.approx(true.ppf(0.9), abs=0.04)
    assert belief.right == ()


@pytest.mark.parametrize(("mean", "concentration"), [(0.05, 1.0), (0.8, 1.0), (0.1, 0.3)])
def test_a_belief_keeps_its_mean_where_most_problems_are_solved_always_or_never(mean, concentration):
    belief = prior(mean, concentration)
    true = beta(mean * concentration, (1 - mean) * concentration)
    assert belief.pass1 == pytest.approx(mean, abs=0.01)
    assert belief.levels[2] == pytest.approx(true.cdf(HARD), abs=0.02)


def test_no_samples_teach_nothing():
    assert update(UNIFORM, [], PLAIN).weights == pytest.approx(UNIFORM.weights)


def test_the_score_of_a_single_sample_is_how_sure_one_is_of_it():
    # at even odds, slope 1 and intercept 0: the odds are those of the score
    assert update(UNIFORM, [Observation(0, 0.8)], PLAIN).right == (pytest.approx(0.8, abs=0.002),)
    assert update(UNIFORM, [Observation(0, None)], PLAIN).right == (pytest.approx(0.5, abs=0.002),)
    shifted = AnswerLikelihood(slope=2.0, intercept=-1.0)
    odds = (0.8 / 0.2) ** 2 / math.e
    assert update(UNIFORM, [Observation(0, 0.8)], shifted).right == (pytest.approx(odds / (1 + odds), abs=0.002),)


def test_two_samples_that_agree_are_right_unless_both_made_the_same_mistake():
    # right: 1/3; both wrong and equal: 1/3 x 1/(1 + agreement)
    belief = update(UNIFORM, [Observation(0), Observation(0)], PLAIN)
    assert belief.right == (pytest.approx(4 / 5, abs=0.002),)
    # two of two right: the mean of pass@1 is 3/4; none of two: 1/4
    assert belief.pass1 == pytest.approx(4 / 5 * 3 / 4 + 1 / 5 * 1 / 4, abs=0.003)
    alike = update(UNIFORM, [Observation(0), Observation(0)], AnswerLikelihood(agreement=0.5))
    assert alike.right[0] < belief.right[0]


def test_of_two_samples_that_differ_each_may_be_right_or_none():
    # one right: 1/6 each; both wrong and different: 1/3 x 3/4
    belief = update(UNIFORM, [Observation(0), Observation(1)], PLAIN)
    assert belief.right == (pytest.approx(2 / 7, abs=0.002), pytest.approx(2 / 7, abs=0.002))


def test_a_sample_without_an_answer_is_a_wrong_one():
    belief = update(UNIFORM, [Observation(-1), Observation(-1)], PLAIN)
    assert belief.right == ()
    assert belief.pass1 == pytest.approx(1 / 4, abs=0.003)
    mixed = update(UNIFORM, [Observation(0), Observation(-1)], PLAIN)
    assert mixed.right[0] == pytest.approx((1 / 6) / (1 / 6 + 1 / 3), abs=0.002)


def test_what_a_search_chose_says_which_answer_is_right_and_not_how_often_samples_are():
    belief = update(UNIFORM, [Observation(0, None, sampled=False), Observation(0, None, sampled=False)], PLAIN)
    assert belief.pass1 == pytest.approx(0.5, abs=0.003)
    assert belief.right == (pytest.approx(4 / 5, abs=0.002),)


def test_a_search_is_trusted_by_its_own_slope():
    odds = math.sqrt(0.9 / 0.1) / math.e
    belief = update(UNIFORM, [Observation(0, 0.9, sampled=False)], PLAIN)
    assert belief.right == (pytest.approx(odds / (1 + odds), abs=0.003),)
    sample = update(UNIFORM, [Observation(0, 0.9), Observation(0, 0.9, sampled=False)], PLAIN)
    assert sample.right[0] > update(UNIFORM, [Observation(0, 0.9, sampled=False)] * 2, PLAIN).right[0]


def test_of_several_scores_of_an_answer_the_best_one_counts():
    one = update(UNIFORM, [Observation(0, 0.9), Observation(0, 0.2)], PLAIN)
    two = update(UNIFORM, [Observation(0, 0.9), Observation(0, 0.8)], PLAIN)
    assert one.right == pytest.approx(two.right)


def test_scores_at_the_ends_are_never_certainty():
    for score in (0.0, 1.0):
        sure = update(UNIFORM, [Observation(0, score)], PLAIN).right[0]
        assert 0 < min(sure, 1 - sure) < 0.01


def test_evidence_grows_with_the_samples_that_gave_an_answer():
    growing = AnswerLikelihood(power=1.0)
    assert growing.of(0.7, 3) == pytest.approx(3 * growing.of(0.7, 1))
    assert AnswerLikelihood(power=0.0).of(0.7, 3) == pytest.approx(AnswerLikelihood(power=0.0).of(0.7, 1))


def test_another_sample_that_agrees_makes_surer_and_one_that_differs_less_sure():
    two = update(UNIFORM, [Observation(0, 0.7), Observation(0, 0.7)], PLAIN).right[0]
    assert update(UNIFORM, [Observation(0, 0.7)] * 3, PLAIN).right[0] > two
    assert update(UNIFORM, [Observation(0, 0.7), Observation(0, 0.7), Observation(1, 0.7)], PLAIN).right[0] < two


def test_the_order_of_samples_does_not_matter():
    seen = [Observation(0, 0.7), Observation(1, 0.6), Observation(0, 0.2), Observation(-1, 0.1)]
    known = update(UNIFORM, seen, PLAIN)
    for order in itertools.permutations(seen):
        belief = update(UNIFORM, order, PLAIN)
        assert belief.right == pytest.approx(known.right)
        assert belief.pass1 == pytest.approx(known.pass1)


def test_samples_that_are_alike_count_for_less():
    half = update(UNIFORM, [Observation(-1)] * 4, AnswerLikelihood(count=0.5))
    assert half.pass1 == pytest.approx(update(UNIFORM, [Observation(-1)] * 2, PLAIN).pass1)


def test_a_hundred_samples_still_give_probabilities():
    belief = update(prior(0.002, 12.0), [Observation(place, 0.999) for place in range(100)], PLAIN)
    assert belief.joint.sum() == pytest.approx(1)
    assert all(0 <= share <= 1 for share in belief.right)
    assert GRID[0] <= belief.pass1 <= GRID[-1]


def test_an_outlook_is_a_logistic_regression_on_standardized_features():
    outlook = DifficultyModel(("size", "terms"), (2.0, 10.0), (1.0, 5.0), (0.5, -1.0), 0.2, 4.0)
    assert outlook.mean([3.0, 5.0]) == pytest.approx(1 / (1 + math.exp(-(0.2 + 0.5 * 1 + 1.0 * 1))))
    assert outlook.prior([3.0, 5.0]).pass1 == pytest.approx(outlook.mean([3.0, 5.0]), abs=0.01)


def test_an_outlook_is_blind_far_from_what_it_was_fitted_on_and_never_certain():
    outlook = DifficultyModel(("size",), (0.0,), (1.0,), (1.0,), 0.0, 4.0)
    assert outlook.mean([1e9]) == outlook.mean([3.0]) < 0.96
    steep = DifficultyModel(("size",), (0.0,), (1.0,), (100.0,), 0.0, 4.0)
    assert (steep.mean([-3.0]), steep.mean([3.0])) == (0.002, 0.998)


def test_an_outlook_takes_as_many_values_as_it_has_features():
    with pytest.raises(ValueError, match="zip"):
        DifficultyModel(("size",), (0.0,), (1.0,), (1.0,), 0.0, 4.0).mean([1.0, 2.0])
