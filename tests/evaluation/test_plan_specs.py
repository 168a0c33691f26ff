"""Plans as they are typed: names, settings, and what is refused."""

from __future__ import annotations

import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Budget, Solver
from tts_tui.errors import PlanError, UnknownName, UsageError
from tts_tui.evaluation.plan_specs import defaults, make_all, parse


def solver(prm: bool = True) -> Solver:
    return Solver(ScriptedPolicy(lambda path, draw: "1"), ScriptedPRM(lambda steps: 0.5) if prm else None)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("cot", "cot"),
        ("cot:1", "cot"),
        ("best-of-n", "best-of-n:16"),
        ("best-of-n:016", "best-of-n:16"),
        ("majority , n=8", "majority:8"),
        ("dvts:16, M=2", "dvts:16,m=2"),
        ("beam:8,vote=majority,score=min", "beam:8,score=min,vote=majority"),
        ("majority:4,budget=500,temperature=1.0", "majority:4,temperature=1,budget=500"),
        ("majority:4,step-tokens=10", "majority:4,step_tokens=10"),
    ],
)
def test_names_are_the_same_however_the_plan_was_typed(typed, name):
    assert list(make_all([typed], solver())) == [name]
    assert list(make_all([name], solver())) == [name]


def test_all_settings_reach_the_plan():
    text = (
        "beam:8,m=2,score=min,vote=prm-max,variant=search-and-learn,speculation=off,temperature=0.5,top_p=0.9,step_tokens=11,"
        "total_tokens=22,max_depth=3,seed=4,budget=500,flops=1e9,seconds=2.5"
    )
    (plan,) = make_all([text], solver()).values()
    assert (plan.strategy, plan.n, plan.m, plan.score, plan.vote) == ("beam", 8, 2, "min", "prm-max")
    assert (plan.variant, plan.speculation, plan.sampling.temperature) == ("search-and-learn", "off", 0.5)
    assert (plan.sampling.top_p, plan.step_tokens, plan.total_tokens) == (0.9, 11, 22)
    assert (plan.max_depth, plan.seed, plan.budget) == (3, 4, Budget(500, 1e9, 2.5))


def test_what_is_left_open_suits_the_strategy_and_a_seed_is_for_all():
    plans = make_all(["cot", "majority:4", "best-of-n:4,seed=9"], solver(), seed=5)
    assert [plan.seed for plan in plans.values()] == [5, 5, 9]
    assert plans["cot"].sampling.temperature == 0 and plans["majority:4"].vote == "majority"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "names no strategy: write STRATEGY"),
        (":8", UsageError, "names no strategy"),
        ("best-off-n:8", UnknownName, "did you mean 'best-of-n'"),
        ("beam:", UsageError, "n in the plan 'beam:' must be a whole number, not ''"),
        ("beam:x", UsageError, "n in the plan 'beam:x' must be a whole number, not 'x'"),
        ("beam:8,fast", UsageError, "'fast' in the plan 'beam:8,fast' is no KEY=VALUE"),
        ("beam:8,mm=4", UnknownName, "unknown setting of a plan 'mm': did you mean 'm'"),
        ("beam:8,score=lst", UnknownName, "unknown score 'lst': did you mean 'last'"),
        ("beam:8,temperature=hot", UsageError, "temperature in the plan .* must be a number, not 'hot'"),
        ("beam:8,m=2,m=4", UsageError, "gives m twice"),
        ("beam:8,n=8", UsageError, "gives n twice"),
        ("cot:4", PlanError, "gives cot a number"),
    ],
)
def test_what_cannot_be_read_is_named(text, error, words):
    with pytest.raises(error, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["beam:6"], "the plan beam:6: n=6 is not divisible by m=4"),
        (["majority:0"], "the plan majority:0: n must be at least 1"),
        (["majority:4,budget=0"], "the plan majority:4,budget=0: the budget of tokens must be positive"),
        (["majority:4,temperature=-1"], "the temperature must not be negative"),
        (["majority:4,target_tokens=500"], "the plan majority:4,target_tokens=500: target_tokens is for auto alone"),
        (["auto,target_tokens=500,target_accuracy=0.5"], "not both"),
        (["cot", "majority:4", "cot"], "the plans have cot twice"),
        (["majority", "majority:16"], "the plans have majority:16 twice"),
        (["dvts:8", "dvts:8,m=4"], "the plans have dvts:8 and dvts:8,m=4, which are the same"),
    ],
)
def test_plans_that_cannot_be_run_are_refused_before_any_is(specs, words):
    with pytest.raises(UsageError, match=words):
        make_all(specs, solver())


def test_plans_that_need_a_reward_model_say_so():
    with pytest.raises(PlanError, match="the plan beam:8: beam with vote majority needs a reward model"):
        make_all(["beam:8"], solver(prm=False))
    (plan,) = make_all(["best-of-n:8"], solver(prm=False)).values()
    assert plan.vote == "majority"


@pytest.mark.parametrize("prm", [True, False])
def test_the_plans_that_are_run_by_default_can_be(prm):
    made = make_all(defaults(solver(prm)), solver(prm))
    assert ("best-of-n:8" in made) is prm and next(iter(made)) == "cot"
