"""Choices between plans whose accuracy and cost are known."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from tts_tui.controller.calibration import Calibration, Curve, Point
from tts_tui.controller.controller import Objective, PlanController, cloglog, logit, position, price_of, start
from tts_tui.controller.difficulty import AnswerLikelihood, DifficultyModel, Observation
from tts_tui.errors import PlanError

NEVER = (-20.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def curve(strategy: str, alone: float = 0.0, win: float = -1.0, cost: float = 1.0) -> Curve:
    """Return a curve with constant rates: `alone` and `win` are log-rates, and right answers are never lost."""
    return Curve(
        strategy=strategy,
        alone=(alone, 0.0, 0.0, 0.0, 0.0),
        win=(win, 0.0, 0.0, 0.0, 0.0, 0.0),
        lose=NEVER,
        cost=cost,
    )


KNOWN = Calibration(
    policy="policy",
    prm="prm",
    source="a test",
    problems=100,
    samples=16,
    probe=4,
    sample_tokens=100.0,
    difficulty=DifficultyModel((), (), (), (), 0.0, 2.0),
    likelihood=AnswerLikelihood(slope=1.0, agreement=3.0),
    curves=(curve("best-of-n"), curve("dvts", win=-0.5), curve("beam", win=-2.0), curve("majority")),
    frontier=(Point(0.05, 200.0, 0.3), Point(0.01, 400.0, 0.4), Point(0.0001, 1600.0, 0.5)),
    price=0.002,
)
WISH = Objective(most=16, width=4, tokens=None, price=0.002, scores=True)
PROBE = [Observation(0, 0.5, 100.0), Observation(1, 0.5, 100.0), Observation(2, 0.5, 100.0), Observation(3, 0.5, 100.0)]


def choose(wish: Objective, seen=PROBE, calibration=KNOWN, spent=400.0, done=None):
    """Return the choice after some samples, by default those of the probe."""
    elected = 0 if seen else -1
    given = {"best-of-n": len(seen)} if seen and done is None else done or {}
    return PlanController(calibration, wish, ()).choose(seen, elected, "42" if seen else None, spent, given)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_candidates_that_bring_something_independently_have_the_curve_of_their_rate():
    rate = 0.07
    for n in (1, 4, 16):
        found = cloglog((math.log(rate), math.log(2)), (1.0, math.log2(n)))
        assert found == pytest.approx(1 - math.exp(-n * rate))


def test_chances_are_probabilities_wherever_a_search_stands():
    for pass1 in (0.0, 0.5, 1.0):
        for sure in (0.0, 1.0):
            place = position(pass1, sure, 1, 0, pass1)
            assert all(map(math.isfinite, place))
            assert 0 <= cloglog((5.0, 3.0, -3.0, 4.0, 1.0, 1.0), place) <= 1
    assert start(0.3, 8, 0.5) == (1.0, 0.3, 3.0, pytest.approx(0.9), 0.0)


def test_log_odds_are_kept_from_the_ends():
    assert logit(0.5, 0.01) == 0
    assert logit(0.0, 0.01) == logit(0.01, 0.01) == pytest.approx(-logit(1.0, 0.01))


# -- prices ------------------------------------------------------------------------------------------------------------


def test_without_a_wish_the_price_is_the_calibrations():
    assert price_of(KNOWN, None, None) == 0.002
    assert price_of(replace(KNOWN, frontier=()), None, None) == 0.002


def test_a_mean_cost_has_the_price_that_came_to_it():
    assert price_of(KNOWN, 400, None) == 0.01
    assert price_of(KNOWN, 800, None) == pytest.approx(math.exp((2 * math.log(0.01) + math.log(0.0001)) / 3))
    assert price_of(KNOWN, 10_000, None) == 0.0001
    assert price_of(KNOWN, 180, None) == 0.05


def test_more_tokens_never_have_a_higher_price():
    prices = [price_of(KNOWN, tokens, None) for tokens in range(170, 2000, 37)]
    assert prices == sorted(prices, reverse=True)


def test_an_accuracy_has_the_price_of_the_cheapest_point_that_reaches_it():
    assert price_of(KNOWN, None, 0.3) == 0.05
    assert price_of(KNOWN, None, 0.31) == 0.01
    assert price_of(replace(KNOWN, frontier=KNOWN.frontier[::-1]), None, 0.31) == 0.01


def test_wishes_that_cannot_be_are_refused():
    with pytest.raises(PlanError, match=r"90% is out of reach: the best .* is 50%"):
        price_of(KNOWN, None, 0.9)
    with pytest.raises(PlanError, match=r"100 tokens a problem are too few for any plan: the least .* is 200"):
        price_of(KNOWN, 100, None)
    with pytest.raises(PlanError, match="not both"):
        price_of(KNOWN, 300, 0.3)
    for wish in ((300, None), (None, 0.3)):
        with pytest.raises(PlanError, match="only where the models were calibrated"):
            price_of(replace(KNOWN, frontier=()), *wish)


# -- the first choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scores", "strategy"), [(True, "best-of-n"), (False, "majority")])
def test_a_search_begins_with_a_probe_of_samples(scores, strategy):
    choice = choose(replace(WISH, scores=scores), seen=[], spent=0.0)
    assert (choice.strategy, choice.n, choice.samples, choice.answer) == (strategy, 4, 0, None)
    assert choice.pass1 == pytest.approx(0.5, abs=0.01)
    assert choice.low < choice.pass1 < choice.high
    assert sum(choice.levels) == pytest.approx(1, abs=0.001)


def test_a_probe_is_no_larger_than_the_search_may_be():
    assert choose(replace(WISH, most=2), seen=[], spent=0.0).n == 2


def test_before_any_sample_nobody_stops():
    choice = choose(replace(WISH, price=1.0), seen=[], spent=0.0)
    assert "stop" not in {one.plan for one in choice.considered}
    assert choice.strategy == "best-of-n"


def test_a_plan_from_nothing_is_as_accurate_as_its_curve():
    choice = choose(WISH, seen=[], spent=0.0)
    assert {round(one.accuracy, 3) for one in choice.considered} == {round(1 - math.exp(-1), 3)}


def test_plans_that_need_scores_are_not_considered_without_a_prm():
    with_, without = (choose(replace(WISH, scores=scores)) for scores in (True, False))
    assert {one.plan.partition(":")[0] for one in with_.considered} == {"stop", "best-of-n", "dvts", "beam"}
    assert {one.plan.partition(":")[0] for one in without.considered} == {"stop", "majority"}


def test_nobody_knows_what_a_sample_costs_before_there_is_one_unless_it_was_measured():
    unknown = replace(KNOWN, sample_tokens=0.0)
    first = choose(WISH, seen=[], spent=0.0, calibration=unknown)
    assert {one.tokens for one in first.considered} == {0.0}
    assert first.chosen == choose(WISH, seen=[], spent=0.0).chosen
    after = choose(WISH, calibration=unknown)
    assert next(one.tokens for one in after.considered if one.plan == "dvts:4") == 400


@pytest.mark.parametrize(("probe", "said"), [(1, "a first sample will"), (4, "the first 4 samples will")])
def test_the_first_choice_says_how_many_samples_come(probe, said):
    hard = replace(KNOWN, probe=probe, difficulty=DifficultyModel((), (), (), (), -2.0, 2.0))
    assert said in choose(WISH, seen=[], spent=0.0, calibration=hard).why


# -- going on ----------------------------------------------------------------------------------------------------------


def test_the_best_plan_less_its_price_is_chosen():
    choice = choose(replace(WISH, price=0.01))
    sure = choice.confidence
    gain = (1 - sure) * (1 - math.exp(-math.exp(-0.5)))
    assert choice.chosen == "dvts:4"  # larger ones gain the same here, and cost more
    assert choice.considered[0].accuracy == pytest.approx(sure + gain, abs=0.001)
    assert choice.considered[0].tokens == pytest.approx(400)


def test_a_price_that_nothing_is_worth_stops():
    choice = choose(replace(WISH, price=0.5))
    assert (choice.chosen, choice.strategy, choice.n) == ("stop", "", 0)
    assert "not worth its price" in choice.why


def test_a_sure_answer_stops_where_an_unsure_one_goes_on():
    wish = replace(WISH, price=0.02)
    sure = [Observation(0, 0.95, 100.0)] * 4
    assert choose(wish, seen=sure).strategy == ""
    assert choose(wish).strategy == "dvts"
    assert choose(wish, seen=sure).confidence > 0.95 > choose(wish).confidence


def test_stopping_is_as_accurate_as_the_answer_is_sure():
    choice = choose(WISH)
    stop = next(one for one in choice.considered if one.plan == "stop")
    assert (stop.accuracy, stop.tokens) == (choice.confidence, 0.0)


def test_an_answer_that_nobody_gave_is_never_sure():
    choice = PlanController(KNOWN, WISH, ()).choose(
        [Observation(-1, 0.9, 100.0)] * 4, -1, None, 400.0, {"best-of-n": 4}
    )
    assert choice.confidence == 0
    assert choice.why.startswith("no answer after 4 samples")


def test_samples_that_are_there_count_towards_more_of_them():
    sampling = replace(KNOWN, curves=(curve("best-of-n", win=0.5),))
    choice = choose(WISH, calibration=sampling)
    tokens = {one.plan: one.tokens for one in choice.considered}
    assert tokens == {"stop": 0.0, "best-of-n:8": pytest.approx(400), "best-of-n:12": pytest.approx(800)}
    assert choice.n == 8


def test_a_search_goes_on_in_portions_and_looks_again():
    dear = replace(KNOWN, curves=(replace(curve("dvts"), win=(-6.0, 0.0, 0.0, 1.5, 0.0, 0.0)),))
    choice = choose(replace(WISH, most=32, price=1e-6), calibration=dear)
    assert choice.chosen == "dvts:32"
    assert choice.n == 4
    beam = replace(dear, curves=(replace(dear.curves[0], strategy="beam"),))
    choice = choose(replace(WISH, most=32, price=1e-6), calibration=beam)
    assert (choice.chosen, choice.n) == ("beam:32", 32)  # it cannot be split into portions


def test_a_beam_search_is_run_only_once():
    choice = choose(WISH, done={"best-of-n": 4, "beam": 8})
    assert not any(one.plan.startswith("beam") for one in choice.considered)


def test_no_plan_is_larger_than_the_user_allows():
    for most in (1, 3, 4, 7, 16, 64):
        for seen in ([], PROBE):
            considered = choose(replace(WISH, most=most), seen=seen).considered
            assert all(int(one.plan.partition(":")[2]) <= most for one in considered if one.plan != "stop")


def test_at_the_largest_size_the_search_ends():
    sampling = replace(KNOWN, curves=(curve("best-of-n", win=2.0),))
    choice = choose(replace(WISH, price=1e-9), calibration=sampling, done={"best-of-n": 16})
    assert choice.strategy == ""


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_a_problem_costs_something_once():
    known = replace(KNOWN, overhead=60.0)
    usual, first = choose(WISH, seen=[], spent=0.0), choose(WISH, seen=[], spent=0.0, calibration=known)
    assert [one.tokens for one in first.considered] == [one.tokens + 60 for one in usual.considered]
    assert choose(WISH, calibration=known) == choose(WISH), "later it is paid for"
    with pytest.raises(PlanError, match=r"a budget of 450 tokens is too small for any plan: .* about 460"):
        choose(replace(WISH, tokens=450), seen=[], spent=0.0, calibration=known)


def test_what_a_search_chose_tells_nothing_of_the_cost_of_samples():
    more = [Observation(0, 0.5, 900.0, sampled=False)] * 4
    sampled = [Observation(0, 0.5, 900.0)] * 4
    usual, dear = (
        {one.plan: one.tokens for one in choose(WISH, seen=[*PROBE, *own]).considered} for own in (more, sampled)
    )
    assert usual["dvts:4"] == 400 and dear["dvts:4"] == 1680


def test_a_budget_too_small_for_any_plan_is_refused_before_anything_runs():
    with pytest.raises(PlanError, match=r"a budget of 150 tokens is too small for any plan: .* about 400"):
        choose(replace(WISH, tokens=150), seen=[], spent=0.0)


def test_a_budget_that_the_prompt_has_eaten_is_told_what_all_takes():
    with pytest.raises(
        PlanError, match=r"a budget of 450 tokens is too small .* about 677, the 277 of the prompt included"
    ):
        choose(replace(WISH, tokens=450), seen=[], spent=277.0)


def test_where_no_tree_search_fits_n_samples_are_all_there_is():
    trees = tuple(replace(one, used=one.strategy == "dvts") for one in KNOWN.curves)
    known = replace(KNOWN, curves=trees, probe=1)
    few = replace(WISH, most=3, price=1e-9)
    choice = choose(few, seen=[Observation(0, 0.2, 100.0)], calibration=known, done={"best-of-n": 1})
    assert (choice.strategy, choice.n) == ("best-of-n", 3)
    assert choose(few, seen=[Observation(0, 0.2, 100.0)] * 3, calibration=known, done={"best-of-n": 3}).strategy == ""


def test_what_does_not_fit_the_budget_is_not_considered():
    choice = choose(replace(WISH, tokens=1000, price=1e-9))
    assert all(one.tokens <= 600 for one in choice.considered)
    assert {one.plan for one in choice.considered} == {"stop", "best-of-n:8", "dvts:4", "beam:4"}


def test_a_spent_budget_ends_the_search_with_what_there_is():
    choice = choose(replace(WISH, tokens=500, price=1e-9))
    assert (choice.strategy, choice.answer) == ("", "42")
    assert choice.why.endswith("nothing more fits the budget")
    over = choose(replace(WISH, tokens=500, price=1e-9), spent=700.0)
    assert over.strategy == ""


def test_where_all_plans_are_done_nobody_speaks_of_a_budget():
    done = {"best-of-n": 4, "dvts": 4, "beam": 4}
    choice = choose(replace(WISH, most=4, price=1e-9), done=done)
    assert choice.strategy == "" and choice.why.endswith("no larger plan is known")


def test_what_samples_of_this_problem_cost_is_learnt():
    long = [Observation(place, 0.5, 400.0) for place in range(4)]
    cheap, dear = choose(WISH), choose(WISH, seen=long)
    tokens = [next(one.tokens for one in each.considered if one.plan == "dvts:4") for each in (cheap, dear)]
    assert tokens[0] == pytest.approx(400)
    assert tokens[1] == pytest.approx(4 * (2 * 100 + 4 * 400) / 6)


def test_of_long_samples_each_must_bring_more():
    wish = replace(WISH, price=0.05)
    long = [Observation(place, 0.5, 400.0) for place in range(4)]
    assert choose(wish).strategy == "dvts"
    assert choose(wish, seen=long).strategy == ""


# -- explanations ------------------------------------------------------------------------------------------------------


def test_the_choice_says_what_it_rests_on_and_why():
    choice = choose(replace(WISH, price=0.01))
    assert choice.basis == "calibrated on 100 problems with 16 samples each"
    assert choice.why.startswith(
        f"{choice.confidence:.0%} sure of 42 after 4 samples: dvts:4 is expected to be right in"
    )
    guessed = choose(WISH, calibration=replace(KNOWN, problems=0))
    assert "priors" in guessed.basis


def test_the_chance_of_a_change_is_that_of_the_most_accurate_way_on():
    choice = choose(WISH)
    assert choice.changes == pytest.approx((1 - choice.confidence) * (1 - math.exp(-math.exp(-0.5))), abs=0.001)


def test_a_problem_that_is_hard_by_its_prompt_is_expected_to_take_more_samples():
    by_size = replace(KNOWN, difficulty=DifficultyModel(("size",), (0.0,), (1.0,), (-1.5,), 0.0, 2.0))
    hard, easy = (PlanController(by_size, WISH, [size]).choose([], -1, None, 0.0, {}) for size in (2.0, -2.0))
    assert hard.pass1 < 0.2 < 0.8 < easy.pass1
    assert "one sample in" in hard.why
    assert "of samples are expected to be right" in easy.why
