"""Fits on problems whose truth is known."""

from __future__ import annotations

import math
import random
from collections import Counter
from statistics import fmean

import numpy as np
import pytest

from tests.training.controller.made_cases import AGREEMENT, pooled, uniform
from tts_tui.controller.calibration import Curve
from tts_tui.controller.controller import cloglog
from tts_tui.controller.difficulty import AnswerLikelihood, prior, update
from tts_tui.training.controller.cases import Case
from tts_tui.training.controller.curve_fit import curves, ridge
from tts_tui.training.controller.difficulty_fit import (
    beginnings,
    evidence,
    folds,
    mean_sample,
    outlook,
    predictive,
    reach,
    reader,
)

UNIFORM = prior(0.5, 2.0)
CENTRE = (0.5, -0.5, 1.0)
USUAL = (
    Curve(strategy="best-of-n", alone=(0.0,) * 5, win=(-1.0, *(0.0,) * 5), lose=(-2.0, *(0.0,) * 5)),
    Curve(strategy="dvts", alone=(0.0,) * 5, win=(-1.0, *(0.0,) * 5), lose=(-2.0, *(0.0,) * 5)),
    Curve(strategy="beam", alone=(0.0,) * 5, win=(-1.0, *(0.0,) * 5), lose=(-2.0, *(0.0,) * 5)),
)


# -- folds and beginnings ----------------------------------------------------------------------------------------------


def test_every_family_is_spread_over_all_folds():
    rng = random.Random(0)
    cases = [pooled(number, rng, 0.5, count=2, family="abc"[number % 3]) for number in range(60)]
    placed = folds(cases, 5)
    assert Counter(placed) == dict.fromkeys(range(5), 12)
    for family in "abc":
        own = Counter(at for case, at in zip(cases, placed, strict=True) if case.family == family)
        assert set(own.values()) == {4}


def test_folds_depend_on_problems_and_not_on_their_order():
    cases = uniform(20, count=2)
    placed = dict(zip((case.id for case in cases), folds(cases, 4), strict=True))
    again = dict(zip((case.id for case in cases[::-1]), folds(cases[::-1], 4), strict=True))
    assert placed == again
    assert folds(cases, 4) != folds(cases, 4, seed=1)


def test_a_beginning_is_judged_by_samples_that_it_does_not_show():
    cases = uniform(10, count=6, parts=2)
    found = list(beginnings(cases, "last", "prm-max", sizes=(1, 4, 6), redraws=3))
    assert len(found) == 10 * 2 * 3  # size 6 would leave nothing over
    for one in found:
        shown = [drawn for drawn in one.hand.drawn if drawn.sampled]
        assert len(shown) + one.rest == 6
        assert sum(drawn.right for drawn in shown) + one.right == cases[one.at].right
    assert {any(not drawn.sampled for drawn in one.hand.drawn) for one in found} == {True, False}
    alone = beginnings(cases, "last", "prm-max", sizes=(4,), searches=False)
    assert all(drawn.sampled for one in alone for drawn in one.hand.drawn)


def test_further_right_samples_follow_the_belief():
    assert predictive(UNIFORM, 4) == pytest.approx([1 / 5] * 5, abs=0.003)  # of a uniform belief all are alike
    hard = predictive(prior(0.02, 200.0), 10)
    assert hard.sum() == pytest.approx(1)
    assert hard @ np.arange(11) == pytest.approx(0.2, abs=0.02)


def test_the_mean_cost_counts_each_problem_once():
    rng = random.Random(0)
    short, long = pooled(0, rng, 0.5, count=4), pooled(1, rng, 0.5, count=12)
    assert mean_sample([short, long]) == 100.0


# -- before any sample -------------------------------------------------------------------------------------------------


def by_feature(count: int, weight: float, noise: int = 3, seed: int = 0) -> list[Case]:
    """Problems whose log-odds of pass@1 are `weight` times their first feature; the others say nothing."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        values = tuple(rng.gauss(0, 1) for _ in range(1 + noise))
        pass1 = 1 / (1 + math.exp(-weight * values[0]))
        found.append(pooled(number, rng, pass1, values=values, family=f"family {number % 5}"))
    return found


@pytest.mark.slow
def test_an_outlook_learns_which_feature_makes_problems_hard():
    cases = by_feature(200, -1.5)
    found, crossed, _ = outlook(cases, "abcd")
    assert found.names == tuple("abcd")
    assert found.mean([-1.0, 0.0, 0.0, 0.0]) > 0.65
    assert found.mean([1.0, 0.0, 0.0, 0.0]) < 0.35
    for other in range(1, 4):
        moved = [found.mean([0.0] * other + [by] + [0.0] * (3 - other)) for by in (-1.0, 1.0)]
        assert abs(moved[0] - moved[1]) < 0.2
    true = [1 / (1 + math.exp(1.5 * case.values[0])) for case in cases]
    assert fmean(abs(belief.pass1 - own) for belief, own in zip(crossed, true, strict=True)) < 0.1


@pytest.mark.slow
def test_what_was_seen_of_a_prompt_counts_for_prompts_that_are_like_it():
    rng = random.Random(2)
    cases = [  # hard in the middle: nothing that a regression on the feature can know
        pooled(n, rng, 0.05 if n % 3 == 1 else 0.9, values=(float(n % 3),), family=str(n)) for n in range(90)
    ]
    found, crossed, _ = outlook(cases, "a")
    assert found.mean([1.0]) < 0.25
    assert min(found.mean([0.0]), found.mean([2.0])) > 0.7
    assert all((belief.pass1 < 0.5) == (n % 3 == 1) for n, belief in enumerate(crossed))


def test_a_reader_finds_the_directions_in_which_states_differ():
    rng = np.random.default_rng(0)
    hidden, axes = rng.normal(size=(60, 2)) * [3.0, 1.0], np.linalg.qr(rng.normal(size=(12, 2)))[0]
    states = 5.0 + hidden @ axes.T
    cases = [Case(str(at), "", (), (), {}, tuple(map(float, state))) for at, state in enumerate(states)]
    found = reader(cases, 2)
    assert found is not None and found.names == ("state 1", "state 2")
    told = np.array([found.values(case.state) for case in cases])
    for at in range(2):
        assert abs(np.corrcoef(told[:, at], hidden[:, at])[0, 1]) > 0.98
    assert told.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-3)


def test_there_is_no_reader_without_states_or_with_too_few():
    bare, few = Case("1", "", (), (), {}), Case("2", "", (), (), {}, (1.0, 2.0))
    assert reader([bare], 2) is None
    assert reader([bare, few, few], 2) is None
    assert reader([few] * 9, 0) is None


def test_where_features_say_nothing_the_outlook_is_the_base_rate():
    rng = random.Random(3)
    cases = [pooled(n, rng, rng.betavariate(0.6, 1.4), values=(rng.gauss(0, 1), rng.gauss(0, 1))) for n in range(200)]
    found, crossed, _ = outlook(cases, "ab")
    base = fmean(case.right / 16 for case in cases)
    assert fmean(belief.pass1 for belief in crossed) == pytest.approx(base, abs=0.05)
    assert all(belief.pass1 == pytest.approx(base, abs=0.2) for belief in crossed)
    assert 1.0 < sum(found.counts([0.0, 0.0])) < 6.0  # a Beta(0.6, 1.4) is as sure as 2 samples


@pytest.mark.slow
def test_the_counts_of_an_outlook_are_calibrated_levels():
    cases = by_feature(200, -2.0, seed=1)
    _, crossed, _ = outlook(cases, "abcd")
    easy = fmean(belief.levels[0] for belief in crossed)
    assert easy == pytest.approx(fmean(case.right >= 8 for case in cases), abs=0.07)


def test_what_an_outlook_says_crossed_was_not_fitted_on_the_problem():
    rng = random.Random(4)
    cases = [  # each problem has a feature of its own, which would give it away
        pooled(n, rng, float(n % 2), values=tuple(float(n == place) for place in range(40))) for n in range(40)
    ]
    found, crossed, _ = outlook(cases, [str(place) for place in range(40)])
    apart = fmean(belief.pass1 for belief in crossed[1::2]) - fmean(belief.pass1 for belief in crossed[::2])
    assert apart < 0.05
    known = [found.mean(case.values) for case in cases]
    assert fmean(known[1::2]) - fmean(known[::2]) > apart + 0.05


def test_the_reach_counts_the_votes_of_the_largest_plans():
    rng = random.Random(5)
    cases = [pooled(n, rng, 0.9 if n % 2 else 0.0, values=(float(n % 2),), parts=2) for n in range(40)]
    found, _ = reach(cases, ["easy"], "last", "prm-max")
    assert found.mean([1.0]) > 0.85
    assert found.mean([0.0]) < 0.15


# -- after samples -----------------------------------------------------------------------------------------------------


def mean_surprise(cases: list[Case], how: AnswerLikelihood) -> float:
    """Mean surprise about which answer is right."""
    found = beginnings(cases, "last", "prm-max", redraws=2, seed=9)
    chances = [update(UNIFORM, one.hand.seen, how).joint[one.hand.right_group].sum() for one in found]
    return -fmean(math.log(share + 1e-9) for share in chances)


@pytest.mark.slow
def test_evidence_learns_to_trust_scores_that_tell_and_no_others():
    telling, silent, others = (
        uniform(30, seed, count=9, apart=apart) for seed, apart in ((6, 2.0), (7, 0.0), (8, 2.0))
    )
    priors = [UNIFORM] * 30
    usual = AnswerLikelihood(slope=0.7, agreement=2.0)
    told, untold = (evidence(cases, priors, "last", "prm-max", usual, effort=60) for cases in (telling, silent))
    assert told.slope > usual.slope > untold.slope
    assert mean_surprise(others, told) < mean_surprise(others, usual) < mean_surprise(others, untold)


def test_without_scores_nothing_is_trusted():
    cases = [
        Case(case.id, "", (), tuple(type(one)(one.answer, one.right, (), 1.0) for one in case.pool), {})
        for case in uniform(6, count=4)
    ]
    found = evidence(cases, [UNIFORM] * 6, "last", "majority", AnswerLikelihood(), effort=10)
    assert (found.slope, found.intercept, found.searched_slope, found.searched_intercept) == (0, 0, 0, 0)


def test_on_problems_drawn_from_the_model_beliefs_are_calibrated():
    cases = uniform(300, seed=10, count=5)
    how = AnswerLikelihood(slope=1.2, agreement=AGREEMENT)  # as they were drawn
    sure, right = [], []
    for one in beginnings(cases, "last", "prm-max", sizes=(4,), redraws=1, searches=False):
        belief = update(UNIFORM, one.hand.seen, how)
        sure.append(belief.right[one.hand.elected])
        right.append(one.hand.is_right)
    low = [flag for share, flag in zip(sure, right, strict=True) if share < 0.5]
    high = [flag for share, flag in zip(sure, right, strict=True) if share > 0.9]
    assert fmean(right) == pytest.approx(fmean(sure), abs=0.06)
    assert fmean(low) < 0.5
    assert fmean(high) > 0.88


# -- curves ------------------------------------------------------------------------------------------------------------


def drawn(weights: tuple[float, ...], count: int, seed: int = 0) -> tuple[list[tuple[float, ...]], list[bool]]:
    """Places, and results by a curve with these weights."""
    rng = random.Random(seed)
    places = [(1.0, rng.uniform(-2, 2), rng.uniform(-1, 1)) for _ in range(count)]
    return places, [rng.random() < cloglog(weights, place) for place in places]


def test_ridge_recovers_the_weights_of_a_curve():
    true = (-0.5, 0.8, 0.3)
    assert ridge(*drawn(true, 4000), CENTRE, 1.0) == pytest.approx(true, abs=0.12)


def test_ridge_without_results_is_the_prior():
    assert ridge([], [], CENTRE, 1.0) == CENTRE


def test_ridge_leaves_the_prior_as_evidence_grows():
    true = (-0.5, 0.8, 0.3)

    def far(count: int, each: float = 1.0) -> float:
        return math.dist(ridge(*drawn(true, count), CENTRE, each), CENTRE)

    assert 0 < far(5) < far(50) < far(500)
    assert far(500, each=100.0) < far(500)  # results of the same problem are less evidence


def test_ridge_takes_results_that_all_are_alike():
    places, _ = drawn(CENTRE, 100)
    for result in (True, False):
        found = ridge(places, [result] * 100, CENTRE, 1.0)
        assert all(map(math.isfinite, found))
        chances = [cloglog(found, place) for place in places]
        assert fmean(chances) > 0.9 if result else fmean(chances) < 0.1


@pytest.mark.slow
def test_curves_say_how_often_plans_are_right():
    cases = uniform(80, seed=11, count=16, parts=4)
    how = AnswerLikelihood(slope=1.2, agreement=AGREEMENT)
    found = curves(cases, [UNIFORM] * 80, [0.5] * 80, how, "last", "prm-max", USUAL)
    assert [curve.strategy for curve in found] == ["best-of-n", "dvts"]  # no beam search was run
    sampling, tree = found
    assert (sampling.sizes, tree.sizes) == ((1, 2, 4, 8, 16), (4, 8, 12, 16))
    assert (sampling.problems, tree.problems) == (80, 80)
    assert (sampling.cost, tree.cost) == (1.0, 0.8)
    for pass1 in (0.2, 0.5, 0.8):
        logit = math.log(pass1 / (1 - pass1))
        chances = [cloglog(sampling.alone, (1.0, logit, math.log2(n), logit * math.log2(n), 0.0)) for n in (1, 4, 16)]
        assert chances[0] == pytest.approx(pass1, abs=0.2)
        assert chances == sorted(chances)
    place = (1.0, 0.0, 0.0, 2.0, 2.0, 0.0)
    sure = (1.0, 2.0, 3.0, 2.0, 2.0, 0.0)
    assert cloglog(sampling.lose, sure) < cloglog(sampling.lose, place)


def test_curves_of_little_evidence_stay_near_the_prior():
    few = uniform(2, seed=12, count=4)
    (found,) = curves(few, [UNIFORM] * 2, [0.5] * 2, AnswerLikelihood(), "last", "prm-max", USUAL[:1])
    assert math.dist(found.win, USUAL[0].win) < 1.0
    assert found.problems == 2


def test_a_strategy_that_is_not_among_the_usual_has_no_curve():
    cases = uniform(3, seed=13, count=4)
    assert curves(cases, [UNIFORM] * 3, [0.5] * 3, AnswerLikelihood(), "last", "majority", USUAL) == ()
