"""Votes agree with the official ones where those are defined and right; every difference has its own test."""

from __future__ import annotations

import random

import pytest

from tests.strategies import reference
from tts_tui.answers.voting import Candidate, path_score, tally

PAIRS = [(score, vote) for score in ("min", "last", "avg", "prod") for vote in ("majority", "prm-max", "prm-vote")]


def candidates(answers, values):
    rows = zip(answers, values, strict=True)
    return [Candidate(node, answer, tuple(scores)) for node, (answer, scores) in enumerate(rows, 1)]


def winner(answers, values, score="last", vote="prm-vote"):
    votes = tally(candidates(answers, values), score, vote)
    return votes[0].answer if votes else None


OFFICIAL = [("last", "majority"), *(pair for pair in PAIRS if pair[0] != "prod" and pair[1] != "majority")]
"""The seven votes of the paper's code; a majority vote uses no score."""


@pytest.mark.parametrize(("score", "vote"), OFFICIAL)
def test_agreement_with_the_official_votes_on_random_cases(score, vote):
    dice = random.Random(f"{score} {vote}")
    for _ in range(10_000):
        count = dice.randint(1, 12)
        answers = [str(dice.randint(0, 4)) for _ in range(count)]
        # multiples of 1/16: sums are exact, so ties do not depend on rounding
        values = [[dice.randint(1, 16) / 16 for _ in range(dice.choice([1, 2, 4]))] for _ in range(count)]
        assert winner(answers, values, score, vote) == reference.vote(answers, values, score, vote)


@pytest.mark.parametrize(("score", "vote"), PAIRS)
def test_differs_on_purpose_equal_answers_written_differently_stand_together(score, vote):
    answers = ["3", "0.5", "\\frac12", "3"]
    values = [[0.4], [0.5], [0.5], [0.4]]
    assert winner(answers, values, score, vote) == ("3" if vote == "majority" else "0.5")
    votes = tally(candidates(answers, values), score, vote)
    assert [len(each.solutions) for each in votes] == [2, 2]


@pytest.mark.parametrize(("score", "vote"), PAIRS)
def test_differs_on_purpose_a_missing_answer_never_wins(score, vote):
    assert winner([None, None, "7"], [[0.9], [0.9], [0.1]], score, vote) == "7"
    assert winner([None, None], [[0.9], [0.9]], score, vote) is None


@pytest.mark.parametrize("vote", ["prm-max", "prm-vote"])
def test_differs_on_purpose_an_unscored_solution_has_no_part_in_a_prm_vote(vote):
    votes = tally(candidates(["1", "2", "2"], [[0.1], [], []]), "last", vote)
    assert [each.answer for each in votes] == ["1"]


@pytest.mark.parametrize("vote", ["prm-max", "prm-vote"])
def test_where_nothing_is_scored_the_majority_decides(vote):
    assert winner(["1", "2", "2"], [[], [], []], "last", vote) == "2"


def test_ties_go_to_the_first_seen():
    assert winner(["2", "1", "1", "2"], [[0.5]] * 4, "last", "majority") == "2"
    assert winner(["2", "1", "1", "2"], [[0.5]] * 4, "last", "prm-vote") == "2"
    assert winner(["1", "2", "1"], [[0.3], [0.9], [0.9]], "last", "prm-max") == "2"


def test_scores_of_a_path():
    scores = [0.5, 0.2, 0.8]
    assert path_score(scores, "min") == 0.2
    assert path_score(scores, "last") == 0.8
    assert path_score(scores, "avg") == pytest.approx(0.5)
    assert path_score(scores, "prod") == pytest.approx(0.08)
    assert path_score([], "min") is None


def test_the_best_scored_solution_stands_for_its_answer():
    (only,) = tally(candidates(["4", "4.0"], [[0.2], [0.6]]), "last", "prm-vote")
    assert (only.answer, only.solutions, only.weight) == ("4", (2, 1), pytest.approx(0.8))
