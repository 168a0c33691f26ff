"""Speculation changes only the timing, and nothing else that a strategy observes."""

from __future__ import annotations

import random

import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Budget, Plan, SearchTree, Solver, Usage
from tts_tui.errors import BackendUnavailable
from tts_tui.search.generation import step_seed
from tts_tui.tree.events import SpeculativeTokens, StepStarted


class Roomy(ScriptedPolicy):
    """A policy with spare capacity for more streams, like a server."""

    spare = 1000


def script(path, draw):
    """Return steps of many lengths; some paths end, some siblings are equal, some steps are blank or cut off."""
    chance = random.Random(f"{path} {draw}")
    kind = chance.random()
    if len(path) >= 3 and kind < 0.4:
        return rf"\boxed{{{chance.randrange(4)}}}"
    if kind < 0.03:
        return "   \n\n"
    if kind < 0.06:
        return "and so on ~"
    if kind < 0.12:
        return chance.choice(["", " ", "  "]) + "so much is clear" + chance.choice(["", " "]) + "\n\n"
    return f"step {chance.randrange(12)} " + "x" * chance.choice([0, 3, 40]) + "\n\n"


def score(steps):
    return random.Random(" ".join(step.strip() for step in steps)).random()


async def search(policy, **settings):
    events = []
    async with Solver(policy, ScriptedPRM(score)) as solver:
        result = await solver.solve("p", Plan(vote="prm-max", **settings), sinks=[events.append])
    return result, events


def shape(tree):
    """Return the content of a tree by address, without order and cost."""
    return {
        tuple((step.group, step.slot) for step in node.path): (
            node.text,
            node.finish,
            node.score,
            node.state,
            node.pruned,
            node.why,
            node.answer,
        )
        for node in tree.nodes
        if node.merged_into is None
    }


@pytest.mark.parametrize("variant", ["paper", "search-and-learn"])
@pytest.mark.parametrize("strategy", ["beam", "dvts"])
@pytest.mark.parametrize("seed", range(6))
async def test_the_tree_and_the_answer_are_the_same_with_and_without(strategy, variant, seed):
    plan = {"strategy": strategy, "n": 8, "m": 4, "max_depth": 6, "seed": seed, "variant": variant}
    off, _ = await search(Roomy(script, piece=3), speculation="off", **plan)
    on, _ = await search(Roomy(script, piece=3), speculation="on", **plan)
    assert shape(on.tree) == shape(off.tree)
    assert (on.answer, [vote.weight for vote in on.votes]) == (off.answer, [vote.weight for vote in off.votes])


async def test_steps_are_written_before_they_are_asked_for():
    plan = {"strategy": "beam", "n": 8, "m": 4, "max_depth": 6}
    _, events = await search(Roomy(script, piece=3), **plan)
    early = [event for event in events if isinstance(event, StepStarted) and event.ahead != Usage()]
    assert early
    assert any(isinstance(event, SpeculativeTokens) for event in events)


@pytest.mark.parametrize("seed", range(4))
async def test_every_token_is_counted_once_used_or_not(seed):
    policy = Roomy(script, piece=3)
    result, events = await search(policy, strategy="beam", n=8, m=4, max_depth=6, seed=seed)
    tree = result.tree
    used = sum((node.usage for node in tree.nodes if node.usage is not None), Usage())
    total = used + tree.ahead
    counts = tree.counts
    assert (total.prompt_computed, total.prompt_cached, total.completion) == (
        counts.prompt_computed,
        counts.prompt_cached,
        counts.completion,
    )
    assert total.completion == policy.sampled
    assert tree.ahead.completion > 0
    assert tree.unique_tokens() == len(tree.start.prompt_ids) + used.completion
    assert policy.running == 0
    folded = SearchTree.fold(events)
    assert folded.ahead == tree.ahead
    assert vars_of(folded) == vars_of(tree)


def vars_of(tree):
    return (shape(tree), tree.counts.completion, tree.counts.prompt_computed, [node.usage for node in tree.nodes])


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        (ScriptedPolicy, {}),
        (Roomy, {"budget": Budget(tokens=100_000)}),
        (Roomy, {"budget": Budget(flops=1e12)}),
        (Roomy, {"speculation": "off"}),
    ],
    ids=["no room", "tokens limited", "FLOPs limited", "off"],
)
async def test_by_default_nothing_is_written_ahead_where_it_does_not_pay(policy, settings):
    _, events = await search(policy(script, piece=3), strategy="beam", n=8, m=4, max_depth=6, **settings)
    assert not [event for event in events if isinstance(event, SpeculativeTokens)]


async def test_a_policy_without_room_at_the_moment_is_left_alone():
    class Full(Roomy):
        spare = 0

    _, events = await search(Full(script, piece=3), strategy="beam", n=8, m=4, max_depth=6)
    assert not [event for event in events if isinstance(event, SpeculativeTokens)]


async def test_what_fails_before_it_is_asked_for_is_asked_for_again():
    class Fragile(Roomy):
        async def stream(self, request):
            if request.ahead:
                raise BackendUnavailable("not for what nobody needs")
            async for chunk in super().stream(request):
                yield chunk

    plan = {"strategy": "beam", "n": 8, "m": 4, "max_depth": 6}
    off, _ = await search(Roomy(script, piece=3), speculation="off", **plan)
    on, _ = await search(Fragile(script, piece=3), speculation="on", **plan)
    assert shape(on.tree) == shape(off.tree)
    assert not [node for node in on.tree.nodes if node.state == "failed"]


async def test_a_budget_ends_a_search_also_by_what_is_written_ahead():
    policy = Roomy(script, piece=3)
    budget = Budget(tokens=700)
    result, _ = await search(policy, strategy="beam", n=8, m=4, max_depth=6, speculation="on", budget=budget)
    assert result.reason == "budget"
    assert policy.running == 0


async def test_a_recording_resumes_to_the_same_tree(tmp_path):
    plan = Plan(strategy="beam", n=8, m=4, max_depth=6, vote="prm-max", speculation="on")
    file = tmp_path / "run.jsonl"
    async with Solver(Roomy(script, piece=3), ScriptedPRM(score)) as solver:
        whole = await solver.solve("p", plan, record=file)
    lines = file.read_bytes().splitlines(keepends=True)
    for cut in range(5, len(lines), max(1, len(lines) // 7)):
        part = tmp_path / f"{cut}.jsonl"
        part.write_bytes(b"".join(lines[:cut]))
        async with Solver(Roomy(script, piece=3), ScriptedPRM(score)) as solver:
            again = await solver.resume(part)
        done = [node for node in again.tree.nodes if node.state != "failed"]
        assert {node.path_text for node in done} == {node.path_text for node in whole.tree.nodes}
        assert again.answer == whole.answer


async def test_the_policy_hears_when_a_step_that_was_written_ahead_is_needed():
    needed = {}

    class Listens(Roomy):
        async def stream(self, request):
            if request.ahead:
                needed[request.seed] = request.claim
            async for chunk in super().stream(request):
                yield chunk

    policy = Listens(script, piece=3)
    result, events = await search(policy, strategy="beam", n=8, m=4, max_depth=6, speculation="on")
    early = [event for event in events if isinstance(event, StepStarted) and event.ahead != Usage()]
    addresses = [[(step.group, step.slot) for step in result.tree.nodes[event.node].path] for event in early]
    assert addresses and all(needed[step_seed(0, address)].made for address in addresses)
    assert not all(claim.made for claim in needed.values())  # some were started but not used
