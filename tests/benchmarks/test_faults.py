"""The storm of faults: a small one blows over, and its checks see what they are there for."""

from __future__ import annotations

import pytest

from benchmarks.faults import checks, storm
from benchmarks.faults.cases import KINDS, Case, Planned, deal
from benchmarks.faults.checks import HUNG, LEAKED, LOST, RAW, WRONG
from benchmarks.faults.report import show
from benchmarks.faults.stand_in import make_tokenizer
from benchmarks.faults.watching import Watch, brief_waits
from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver
from tts_tui.tree.recording import Recorder


async def blow(tmp_path, cases):
    """Runs a storm; gives its outcomes, and errors that nobody looked at."""
    watch, tokenizer = Watch(), tmp_path / "tokenizer"
    with brief_waits(), watch.watching():
        outcomes = await storm.storm(cases, tmp_path, make_tokenizer(tokenizer), watch, lambda _: None)
    return outcomes, watch.strays


async def test_six_searches_outlive_a_storm(tmp_path):
    outcomes, strays = await blow(tmp_path, deal(4, 6))
    assert [finding for outcome in outcomes for finding in outcome.findings] == []
    assert sum(outcome.faults.total() for outcome in outcomes) > 10
    assert sum(outcome.ends.total() for outcome in outcomes) == 6
    assert show(outcomes, 1.0, strays, "") == 0


def test_a_seed_deals_the_same_cases_and_every_kind_in_a_full_run():
    assert deal(5, 200) == deal(5, 200) != deal(6, 200)
    assert {name for case in deal(0, 200) for name in case.kinds} == set(KINDS)
    assert {planned.plan.strategy for case in deal(0, 200) for planned in case.searches} > {"auto", "dvts"}


async def test_a_search_that_waits_for_ever_is_hung(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(storm, "DEADLINE", 0.3)
    monkeypatch.setattr(storm, "STALL", 60.0)
    planned = Planned(Plan(strategy="majority", n=2, vote="majority"))
    outcomes, strays = await blow(tmp_path, [Case(0, 0, "sglang", "", (planned,), ("stall-before-headers",), 1.0)])
    assert [finding.bar for finding in outcomes[0].findings] == [HUNG]
    assert show(outcomes, 1.0, strays, "python -m benchmarks.faults") == 1
    assert "python -m benchmarks.faults --case 0" in capsys.readouterr().out


# -- the checks --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def seen(tmp_path):
    """A search that nothing was wrong with."""
    events = []
    policy = ScriptedPolicy(lambda path, draw: "so it is \\boxed{7}")
    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        result = await solver.solve("p", Plan(n=4), record=tmp_path / "run.jsonl", sinks=[events.append])
    return storm.Seen(tmp_path / "run.jsonl", result.tree, events, result)


async def test_nothing_is_found_where_nothing_is_wrong(seen):
    assert storm.judge(seen) == []


async def test_an_event_that_is_not_recorded_is_lost(seen, tmp_path):
    whole = seen.events
    seen.path = tmp_path / "less.jsonl"
    with Recorder(seen.path) as recorder:
        for event in (*whole[:-2], whole[-1]):
            recorder(event)
    assert {finding.bar for finding in storm.judge(seen)} == {LOST}


async def test_tokens_that_no_step_has_are_lost(seen):
    seen.tree.counts.completion += 1
    assert {finding.bar for finding in checks.counts(seen.result)} == {LOST}


async def test_a_step_that_stays_open_is_a_wrong_end(seen):
    seen.tree.nodes[1].state = "writing"
    assert {finding.bar for finding in checks.ending(seen.result)} == {WRONG}


async def test_an_answer_that_no_solution_gives_is_a_wrong_end(seen):
    for node in seen.tree.solutions:
        node.answer = "8"
    assert {finding.bar for finding in checks.ending(seen.result)} == {WRONG}


@pytest.mark.parametrize("part", [storm.KEY, storm.KEY[: len(storm.KEY) // 2], storm.KEY[len(storm.KEY) // 2 :]])
def test_half_of_the_key_is_a_leak_too(part):
    assert [finding.bar for finding in checks.leaks(storm.KEY, "a text", f"so {part} is it")] == [LEAKED]


@pytest.mark.parametrize(
    ("said", "bars"),
    [
        ("it broke the connection off", []),
        ("two\nlines", [WRONG]),
        ("x" * 3000, [WRONG]),
        ("the policy failed: ValueError: 7", [RAW]),
    ],
)
def test_what_is_said_of_a_failure_is_a_sentence_of_a_backend(said, bars):
    assert [finding.bar for finding in checks.sentences([said])] == bars
