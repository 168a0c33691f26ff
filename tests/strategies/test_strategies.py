"""Strategies make the same decisions as the algorithms after which they are named, on random trees."""

from __future__ import annotations

import asyncio
import hashlib
from statistics import fmean
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tests.strategies import reference
from tts_tui import Plan, Solver
from tts_tui.answers.canonical import extract
from tts_tui.errors import PlanError, UnknownName
from tts_tui.registry import strategies, strategy
from tts_tui.strategies import auto, dvts
from tts_tui.tree.events import NodesKept

SEP = "\n\n"


def number(*what: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big")


def random_script(seed: int, words: int, *, early_end: bool = True):
    """Return a script of few words, so that siblings collide, with random blank, cut-off, boxed and last steps.

    Whitespace is random too. Answers are numbers, because comparing words starts a process, which takes a second. With
    `early_end`, some steps end the text without an answer, while siblings with the same text continue.
    """

    def script(path: tuple[str, ...], draw: int) -> str:
        dice = number(seed, path, draw)
        kind, answer = dice % 20, dice // 20 % words
        word = f"w{answer}"
        if kind == 0:
            return SEP
        if kind == 1:
            return f"{word}~"
        if kind == 2:
            return f"{word} \\boxed{{{answer}}}{SEP}"
        if kind <= 5 or len(path) > 12:
            return f"{word} \\boxed{{{answer}}}"
        if kind == 6 and early_end:
            return word
        return {7: " ", 8: "\n"}.get(kind, "") + word + {9: " ", 10: "\t"}.get(kind, "") + SEP

    return script


def random_rule(seed: int, steps: int):
    """Return a score rule with few values, so that scores tie. It ignores whitespace around steps, as PRMs do."""
    return lambda texts: number(seed, tuple(text.strip() for text in texts)) % steps / steps


async def run(script, rule, **plan):
    """Return the result, the nodes that the strategy kept each time, and those that it returned, in its order."""
    policy, events, returned = ScriptedPolicy(script), [], []
    kind = type(strategy(plan["strategy"]))
    original = kind.run

    async def spied(self, search):
        returned.extend(await original(self, search))
        return returned

    async with Solver(policy, ScriptedPRM(rule)) as solver:
        with patch.object(kind, "run", spied):
            result = await solver.solve("p", Plan(**plan), sinks=[events.append])
    fronts = [event.nodes for event in events if isinstance(event, NodesKept)]
    return result, fronts, addresses(result.tree, [node.id for node in returned])


def addresses(tree, nodes):
    return [tuple((step.group, step.slot) for step in tree.nodes[node].path) for node in nodes]


SHAPES = st.tuples(st.sampled_from([(4, 4), (4, 2), (8, 4), (6, 1), (16, 4), (3, 3)]), st.integers(1, 6))
SCORES = {"min": min, "last": lambda v: v[-1], "avg": fmean}


async def check_official(name, script, rule, shape, *, ours):
    (n, m), depth = shape
    world = reference.World(script, rule, n, m, depth)
    if name == "beam":
        done = reference.official(world, n, n // m, ours=ours)
    else:
        done = reference.official_dvts(world, ours=ours)
    result, fronts, returned = await run(script, rule, strategy=name, n=n, m=m, max_depth=depth)
    tree = result.tree
    visited = {address: node.text for node in tree.nodes[1:] for address in addresses(tree, [node.id])}
    assert visited == world.visited
    assert sorted(addresses(tree, front) for front in fronts) == sorted(world.fronts)
    kept = {node for front in fronts for node in front}
    for node in tree.nodes[1:]:
        rivals = [other.id for other in tree.attempts(node.parent, node.group) if other.id in kept]
        if rivals and node.merged_into is None:
            assert node.pruned == (node.id not in kept)
    if name == "beam":
        assert [addresses(tree, front) for front in fronts] == world.fronts
    assert returned == [path.address for path in done]
    assert voters(result) == with_answers(done, box_ends=True)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), words=st.integers(1, 8), values=st.integers(1, 50), shape=SHAPES)
@pytest.mark.parametrize("name", ["beam", "dvts"])
async def test_official_semantics_visit_what_the_paper_s_code_visits(name, seed, words, values, shape):
    await check_official(name, random_script(seed, words), random_rule(seed, values), shape, ours=True)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9), words=st.integers(1, 8), shape=SHAPES)
@pytest.mark.parametrize("name", ["beam", "dvts"])
async def test_without_equal_values_the_order_is_that_of_the_paper_s_code_too(name, seed, words, shape):
    script, rule = random_script(seed, words, early_end=False), random_rule(seed, 10**15)
    await check_official(name, script, rule, shape, ours=False)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    words=st.integers(1, 8),
    values=st.integers(1, 50),
    shape=SHAPES,
    score=st.sampled_from(sorted(SCORES)),
)
@pytest.mark.parametrize("name", ["beam", "dvts"])
async def test_sal_semantics_visit_what_search_and_learn_visits(name, seed, words, values, shape, score):
    (n, m), depth = shape
    script, rule = random_script(seed, words), random_rule(seed, values)
    world = reference.World(script, rule, n, m, depth)
    grow = reference.sal_beam if name == "beam" else reference.sal_dvts

    def aggregate(scores):
        return SCORES[score](scores) if scores else 0.0

    done = grow(world, aggregate)
    result, fronts, returned = await run(
        script, rule, strategy=name, n=n, m=m, max_depth=depth, variant="search-and-learn", score=score
    )
    tree = result.tree
    visited = {address: node.text for node in tree.nodes[1:] for address in addresses(tree, [node.id])}
    assert visited == world.visited
    assert sorted(addresses(tree, front) for front in fronts) == sorted(world.fronts)
    assert returned == [path.address for path in done]
    assert voters(result) == with_answers(done, box_ends=False)


def with_answers(paths, *, box_ends):
    """Return the addresses of the paths from which an answer can be extracted."""
    found = set()
    for path in paths:
        finished = path.eos or (box_ends and "\\boxed" in path.texts[-1])
        if extract("".join(path.texts), finished=finished) is not None:
            found.add(path.address)
    return found


def voters(result):
    return {address for tally in result.votes for address in addresses(result.tree, tally.solutions)}


async def test_cot_takes_one_greedy_sample():
    async with Solver(policy := ScriptedPolicy(lambda path, draw: "\\boxed{4}"), None) as solver:
        result = await solver.solve("p", solver.plan("cot"))
    assert result.answer == "4"
    assert [request.sampling.temperature for request in policy.requests] == [0.0]


@pytest.mark.parametrize("name", ["majority", "best-of-n"])
async def test_equal_samples_are_all_counted(name):
    answers = ["1", "2", "2", "1", "2"]
    policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{answers[draw]}}}", counted=True)
    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        result = await solver.solve("p", solver.plan(name, n=5))
    assert [(tally.answer, len(tally.solutions)) for tally in result.votes] == [("2", 3), ("1", 2)]


async def test_the_paper_s_settings_are_the_defaults():
    plan = Plan()
    assert (plan.m, plan.step_tokens, plan.total_tokens, plan.max_depth) == (4, 2048, 8192, 40)
    assert (plan.separator, plan.sampling.temperature, plan.variant) == ("\n\n", 0.7, "paper")


@pytest.mark.parametrize("name", ["beam", "dvts"])
@pytest.mark.parametrize(("n", "m", "says"), [(10, 4, "use n=8 or n=12"), (2, 4, "larger than n=2")])
async def test_widths_that_do_not_divide_are_refused(name, n, m, says):
    async with Solver(ScriptedPolicy(lambda path, draw: "x"), ScriptedPRM(lambda steps: 0.5)) as solver:
        with pytest.raises(PlanError, match=says):
            await solver.solve("p", solver.plan(name, n=n, m=m))


async def test_beams_that_never_finish_vote_only_with_an_answer_in_them():
    policy = ScriptedPolicy(lambda path, draw: f"the answer is {draw % 2}, or {len(path)}.{SEP}")
    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        result = await solver.solve("p", solver.plan("beam", n=4, m=2, max_depth=3))
        assert result.reason == "solved"
        policy.script = lambda path, draw: f"{draw} and {len(path)}{SEP}"
        result = await solver.solve("p", solver.plan("beam", n=4, m=2, max_depth=3))
    assert (result.reason, result.answer) == ("unsolved", None)
    assert "no answer can be read out of 2 solutions" in result.finished.detail


def test_an_unknown_strategy_gets_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean 'dvts'"):
        strategy("dtvs")


def test_every_strategy_is_found_and_says_what_it_is():
    assert set(strategies()) >= {"cot", "majority", "best-of-n", "beam", "dvts"}
    assert all(each.summary for each in strategies().values())


@pytest.mark.parametrize(("module", "part"), [(dvts, "official"), (dvts, "_search_and_learn"), (auto, "official")])
async def test_a_part_of_a_search_that_fails_leaves_no_other_part_at_work(module, part, monkeypatch):
    begun = []

    async def grow(*_, **__):
        begun.append(1)
        if len(begun) == 4:
            raise KeyError("a mistake")
        await asyncio.Event().wait()

    class Stub:
        root = None
        plan = Plan("dvts", n=8, m=2, variant="search-and-learn" if part == "_search_and_learn" else "paper")

    monkeypatch.setattr(module, part, grow)
    before = asyncio.all_tasks()
    with pytest.raises(KeyError):
        await (dvts.DVTS().run(Stub()) if module is dvts else auto._subtrees(Stub(), 4))
    assert len(begun) == 4 and asyncio.all_tasks() == before
