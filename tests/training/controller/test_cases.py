"""What calibrations learn from: votes as in a search, costs that add up, parts of searches."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.training.controller.made_cases import uniform
from tts_tui.answers.voting import Candidate, tally
from tts_tui.controller.difficulty import Observation
from tts_tui.evaluation.outcomes import Answered, Outcome
from tts_tui.plan import Plan
from tts_tui.training.controller.cases import (
    Sample,
    SolutionSet,
    cost,
    draws,
    elect,
    joined,
    overhead,
    pool_of,
    searched,
    shuffled,
)
from tts_tui.tree.totals import Flops, PolicyTokens, PrmTokens, Tokens

SOLUTIONS = (
    Answered("1/2", 0, True, (0.9, 0.8), 30),
    Answered("0.5", 0, True, (0.7,), 10),
    Answered("7", 1, False, (0.2,), 40),
    Answered(None, -1, False, (0.1,), 20),
)


def outcome(plan: str = "best-of-n:4") -> Outcome:
    """One with 120 tokens of the policy and 50 of the PRM."""
    return Outcome(
        problem="p",
        plan=plan,
        answer="1/2",
        right=True,
        solutions=SOLUTIONS,
        reason="solved",
        detail="",
        tokens=Tokens(PolicyTokens(10, 0, 120), PrmTokens(50, 7)),
        flops=Flops(1.0, 1.0),
        seconds=1.0,
    )


def test_the_cost_is_what_was_sampled_and_what_scoring_weighs():
    assert cost(outcome(), 0.0) == 120
    assert cost(outcome(), 2.0) == 120 + 2 * 50


def test_samples_share_the_scoring_by_their_length():
    pool = pool_of(outcome(), 1.0)
    assert [one.tokens for one in pool] == pytest.approx([45, 15, 60, 30])
    assert [one.length for one in pool] == [30, 10, 40, 20]
    assert [one.answer for one in pool] == ["1/2", "1/2", "7", None]  # in canonical form
    assert all(one.sampled for one in pool)


def test_what_a_problem_costs_once_is_no_samples():
    assert cost(outcome(), 2.0, once=26.0) == 120 + 2 * 24 and cost(outcome(), 2.0, once=60.0) == 120
    pool = pool_of(outcome(), 1.0, once=26.0)
    assert [one.tokens for one in pool] == pytest.approx([37.2, 12.4, 49.6, 24.8])  # 24 of 120 tokens are their scoring


def scored(lengths: list[int], computed: int) -> Outcome:
    solutions = tuple(Answered("1", 0, True, (0.5,), tokens) for tokens in lengths)
    return replace(
        outcome(), solutions=solutions, tokens=Tokens(PolicyTokens(0, 0, sum(lengths)), PrmTokens(computed, 0))
    )


def test_the_overhead_is_what_scoring_takes_without_any_sample():
    few = [scored([50], 40 + 25), scored([30], 60 + 15)]  # 50 tokens on average, and half of every sampled one
    many = [scored([50, 50, 50, 50], 40 + 100), scored([30, 30, 30, 30], 60 + 60)]
    assert overhead(list(zip(few, many, strict=True))) == pytest.approx(50)
    assert overhead([]) == 0
    assert overhead([(few[0], few[0])]) == 0, "nothing tells both apart"
    assert overhead([(scored([50], 5), scored([100], 100))]) == 0, "it is never negative"


def test_a_search_of_subtrees_is_as_many_parts():
    found = searched(outcome(), Plan(strategy="dvts", n=16, m=4), 0.0)
    assert (len(found.parts), found.width, found.tokens, found.length) == (4, 4, 120, 120)
    dearer = searched(outcome(), Plan(strategy="dvts", n=16, m=4), 1.0, once=26.0)
    assert (dearer.tokens, dearer.length) == (144, 120)
    assert [len(part) for part in found.parts] == [1, 1, 1, 1]
    assert not any(one.sampled for one in found.solutions)


def test_subtrees_that_came_to_nothing_are_empty_parts():
    found = searched(outcome(), Plan(strategy="dvts", n=32, m=4), 0.0)
    assert [len(part) for part in found.parts] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert found.width == 4


def test_a_beam_search_is_one_part():
    found = searched(outcome(), Plan(strategy="beam", n=16, m=4), 0.0)
    assert (len(found.parts), found.width) == (1, 16)
    assert len(found.solutions) == 4


@pytest.mark.parametrize("vote", ["majority", "prm-max", "prm-vote"])
def test_votes_are_those_of_a_search(vote):
    rng = random.Random(1)
    for _ in range(200):
        answers = [rng.choice(["1", "2", "3", None]) for _ in range(rng.randint(0, 6))]
        scores = [rng.choice([(), (0.2,), (0.5,), (0.8,)]) for _ in answers]
        hand = SolutionSet("last", vote)
        hand.add(Sample(answer, answer == "1", score, 1.0) for answer, score in zip(answers, scores, strict=True))
        candidates = [Candidate(place, *pair) for place, pair in enumerate(zip(answers, scores, strict=True))]
        winner = next((one.answer for one in tally(candidates, "last", vote)), None)
        assert hand.is_right == (winner == "1")
        assert (hand.elected == -1) == (winner is None)


def test_a_hand_without_the_right_answer_is_wrong():
    hand = SolutionSet("last", "majority")
    assert (hand.elected, hand.right_group, hand.is_right) == (-1, -1, False)
    hand.add([Sample(None, False, (), 5.0), Sample("2", False, (), 5.0)])
    assert (hand.elected, hand.right_group, hand.is_right) == (0, -1, False)
    assert hand.seen == [Observation(-1, None, 5.0), Observation(0, None, 5.0)]


def test_ties_go_to_the_answer_that_was_seen_first():
    assert elect([Observation(0, 0.5), Observation(1, 0.5)], "prm-max") == 0
    assert elect([Observation(0, 0.5), Observation(1, 0.25), Observation(1, 0.25)], "prm-vote") == 0
    assert elect([Observation(0), Observation(1), Observation(1), Observation(0)], "majority") == 0


def test_orders_are_random_and_lose_nothing():
    (case,) = uniform(1, parts=4)
    rng = random.Random(0)
    orders = [draws(case, rng) for _ in range(3)]
    assert all(sorted(map(id, order)) == sorted(map(id, case.pool)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    search = case.searches["dvts"]
    assert sorted(map(id, joined(shuffled(search, rng)))) == sorted(map(id, search.solutions))
