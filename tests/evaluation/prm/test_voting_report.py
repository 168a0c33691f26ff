"""What is told of a PRM: areas, intervals, votes, and which score and vote do best."""

from __future__ import annotations

import math
import random

import pytest

from tts_tui.evaluation.datasets.families import Problem
from tts_tui.evaluation.prm.voting_report import Scored, auc, auc_within, choose, report, voted_right, wilson
from tts_tui.evaluation.samples import Sampled, Solution


def scored(family: str, *solutions: tuple[str, tuple[float, ...]]) -> Scored:
    """A problem whose answer is 7, with solutions of these answers and scores."""
    problem = Problem(family, "validation", 0, "What is 3 + 4?", "7", ("3 + 4 = 7",))
    made = tuple(Solution(("a\n\n",) * len(scores), ((1,),) * len(scores), "eos", own) for own, scores in solutions)
    return Scored(
        Sampled(problem, made), tuple(scores for _, scores in solutions), tuple(own == "7" for own, _ in solutions)
    )


def test_areas_and_intervals() -> None:
    assert auc([1.0, 2.0], [0.0, 0.5]) == 1.0
    assert auc([0.0], [1.0]) == 0.0
    assert auc([1.0, 0.0], [1.0, 0.0]) == 0.5
    rng = random.Random(0)
    right, wrong = [rng.choice(range(5)) for _ in range(30)], [rng.choice(range(4)) for _ in range(20)]
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert auc(right, wrong) == pytest.approx(sum(pairs) / len(pairs))
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_only_problems_with_right_and_wrong_solutions_have_an_area_within() -> None:
    mixed, all_right = scored("add0", ("7", (0.9,)), ("8", (0.2,))), scored("add0", ("7", (0.1,)))
    assert auc_within([mixed, all_right], "last") == (1.0, 1)
    area, count = auc_within([all_right], "last")
    assert math.isnan(area) and count == 0


def test_a_vote_by_scores_can_beat_the_majority() -> None:
    problem = scored("add0", ("7", (0.9,)), ("8", (0.2,)), ("8", (0.3,)))
    assert voted_right(problem, "last", "prm-max")
    assert voted_right(problem, "last", "prm-vote")
    assert not voted_right(problem, "last", "majority")
    assert not voted_right(problem, "last", "prm-max", chosen=[1, 2])


def test_the_score_that_tells_right_from_wrong_is_chosen() -> None:
    # Only the last score tells here: the lowest and the product are higher where the answer is wrong.
    problems = [scored("add0", ("7", (0.1, 0.9)), ("8", (0.6, 0.5)), ("8", (0.6, 0.5)), ("7", (0.1, 0.9)))]
    score, _, table = choose(problems)
    assert score == "last"
    assert table[f"{score} prm-max"] > table["min prm-max"]
    assert set(table) >= {"majority", "last prm-vote"}


def test_a_report_has_families_apart_and_also_problems_of_ones_own() -> None:
    problems = [
        scored("add0", ("7", (0.9,)), ("8", (0.2,))),
        scored("pct", ("8", (0.4,)), ("8", (0.2,))),
        scored("mine", ("7", (0.9,)), ("7", (0.8,))),
    ]
    figures = report(problems, "last")
    assert {name: own["problems"] for name, own in figures.items()} == {
        "all": 3,
        "trained families": 1,
        "unseen families": 1,
        "add0": 1,
        "pct": 1,
        "mine": 1,
    }
    assert figures["add0"]["auc_within"] == 1.0 and figures["add0"]["pass@1"] == 0.5
    assert figures["pct"]["pass@k"] == 0.0 and figures["pct"]["auc_within"] is None
    assert figures["mine"]["majority"] == 1.0
