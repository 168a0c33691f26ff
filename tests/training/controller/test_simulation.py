"""Playing the controller on recorded samples."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.training.controller.made_cases import pooled, uniform
from tts_tui.controller.calibration import Calibration, Curve
from tts_tui.controller.difficulty import AnswerLikelihood, DifficultyModel
from tts_tui.training.controller.simulation import play, replayed

NEVER = (-20.0, 0.0, 0.0, 0.0, 0.0, 0.0)
SAMPLES = Curve(strategy="best-of-n", alone=(0.0,) * 5, win=(-2.0, 0.0, 0.0, 1.0, 0.0, 0.0), lose=NEVER)
TREE = replace(SAMPLES, strategy="dvts", win=(-1.0, 0.0, 0.0, 1.0, 0.0, 0.0), cost=0.8)
KNOWN = Calibration(
    policy="policy",
    prm="prm",
    source="a test",
    probe=4,
    sample_tokens=100.0,
    difficulty=DifficultyModel((), (), (), (), 0.0, 2.0),
    likelihood=AnswerLikelihood(slope=1.2),
    curves=(SAMPLES,),
)
BOTH = replace(KNOWN, curves=(SAMPLES, TREE))


def test_at_a_high_price_only_the_probe_is_paid():
    for case in uniform(5):
        played = play(case, KNOWN, 10.0, 4, random.Random(0))
        assert (played.steps, played.tokens) == (("best-of-n:4",), 400.0)


def test_what_a_problem_costs_once_is_paid_once():
    (case,) = uniform(1)
    assert play(case, replace(KNOWN, overhead=30.0), 10.0, 4, random.Random(0)).tokens == 430.0


def test_at_no_price_all_that_was_recorded_is_used_and_no_more():
    for case in uniform(5, count=14):
        played = play(case, KNOWN, 0.0, 4, random.Random(0))
        assert played.tokens <= 1400.0
        assert int(played.steps[-1].partition(":")[2]) >= 12


def test_a_pool_smaller_than_the_probe_is_used_up():
    played = play(pooled(0, random.Random(0), 0.5, count=3), KNOWN, 0.0, 4, random.Random(0))
    assert (played.steps, played.tokens) == (("best-of-n:3",), 300.0)


def test_parts_of_a_search_cost_their_share():
    (case,) = uniform(1, seed=2, count=4, parts=4)
    played = play(case, BOTH, 1e-6, 4, random.Random(0))
    assert played.steps[:2] == ("best-of-n:4", "dvts:4")
    assert played.tokens == pytest.approx(400 + 320 * sum(step.startswith("dvts") for step in played.steps))


def test_the_answer_is_that_of_all_it_drew():
    right, wrong = (pooled(n, random.Random(n), pass1) for n, pass1 in enumerate((1.0, 0.0)))
    assert play(right, KNOWN, 0.001, 4, random.Random(0)).right
    assert not play(wrong, KNOWN, 0.001, 4, random.Random(0)).right


def test_sure_problems_cost_less_than_unsure_ones():
    easy = replayed([pooled(n, random.Random(n), 1.0, apart=3.0) for n in range(10)], KNOWN, 0.02, 4)
    hard = replayed([pooled(n, random.Random(n), 0.1, apart=3.0) for n in range(10)], KNOWN, 0.02, 4)
    assert sum(one.tokens for one in easy) < sum(one.tokens for one in hard)
    assert sum(one.sure for one in easy) > sum(one.sure for one in hard)


def test_a_lower_price_never_saves_tokens():
    cases = uniform(10, parts=4)
    spent = [sum(one.tokens for one in replayed(cases, BOTH, price, 4)) for price in (0.3, 0.03, 0.003, 0.0003)]
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]


def test_every_replay_is_another_order_and_all_can_be_repeated():
    cases = uniform(6, seed=4)
    found = replayed(cases, KNOWN, 0.01, 4, redraws=5)
    assert len(found) == 30
    assert found == replayed(cases, KNOWN, 0.01, 4, redraws=5)
    assert any(len(set(found[start : start + 5])) > 1 for start in range(0, 30, 5))


def test_without_a_prm_majorities_are_played():
    voting = replace(KNOWN, vote="majority", curves=(replace(SAMPLES, strategy="majority"),))
    played = play(uniform(1)[0], voting, 10.0, 4, random.Random(0))
    assert played.steps == ("majority:4",)
