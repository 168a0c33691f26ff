"""The benchmark of the controller: runs of one plan under several seeds are one larger plan."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks.controller.figures import _merged, _plans, majority_figures, together
from tests.training.controller.test_cases import outcome
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Answered, Outcome
from tts_tui.plan import Plan
from tts_tui.training.controller.cases import searched
from tts_tui.tree.totals import PolicyTokens, PrmTokens, Tokens

DVTS = Plan(strategy="dvts", n=16, m=4)


def test_two_seeds_of_a_plan_are_a_larger_one_which_reads_the_question_once():
    one, more = outcome("dvts:16"), outcome("dvts:16")
    parts = {
        "dvts": ({"dvts:16": DVTS}, {("dvts:16", "p"): one}),
        "dvts-2": ({"dvts:16": DVTS}, {("dvts:16", "p"): more}),
    }
    plan = _plans(parts, ("dvts", "dvts-2"))["dvts:16"]
    both = _merged(parts, ("dvts", "dvts-2"), 20.0)["dvts:16", "p"]
    assert (plan.n, len(both.solutions)) == (32, 8)
    assert both == together(one, more, 20.0)
    assert (both.tokens.policy.completion, both.tokens.prm.computed) == (240, 80)
    found = searched(both, plan, 1.0, 20.0)
    assert (len(found.parts), found.length, found.tokens) == (8, 240, 240 + 2 * 50 - 2 * 20)


def voted(plan: str, answers: list[bool]) -> Outcome:
    solutions = tuple(Answered("1" if right else "2", 0, right, (), 10) for right in answers)
    return replace(outcome(plan), solutions=solutions)


def test_majority_voting_that_never_gets_there_needs_more_than_all_that_was_sampled():
    auto = replace(outcome("auto"), right=True, tokens=Tokens(PolicyTokens(0, 0, 15), PrmTokens(5, 0)))
    parts = {
        "samples": ({"best-of-n:2": Plan(n=2)}, {("best-of-n:2", "p"): voted("best-of-n:2", [False, False])}),
        "votes": ({"majority:2": Plan(n=2)}, {("majority:2", "p"): voted("majority:2", [False, True])}),
        "auto-1": ({"auto": Plan(strategy="auto")}, {("auto", "p"): auto}),
    }
    found, lines = majority_figures([Item("p", "?", "1")], parts, 1.0)
    assert found["curve"] == {1: (0.0, 10.0), 2: (0.0, 20.0), 4: (0.0, 40.0)}
    assert (found["auto"]["ratio"], found["auto"]["reached"]) == (pytest.approx(2.0), False)
    assert "majority needs more than 2.0 times that" in lines[-1]
    del parts["votes"][1]["majority:2", "p"]
    assert majority_figures([Item("p", "?", "1")], parts, 1.0)[0] == {}
