"""Siblings with the same text become one step, and which of them is kept does not depend on timing."""

from __future__ import annotations

import asyncio

import pytest

import tts_tui.search.merging
import tts_tui.solver
from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, SearchTree, Solver, load, read
from tts_tui.tree.events import NodesKept, StepFinished, StepMerged, StepScored

SEP = "\n\n"
BEAM = Plan(strategy="beam", n=4, m=2, max_depth=3, vote="majority", speculation="off")


class InSlots(ScriptedPolicy):
    """A policy that generates a given first step for each slot, and ends all other paths with an answer.

    Attributes:
        late: The events for which a slot waits before its step is generated.
    """

    def __init__(self, *first: str) -> None:
        super().__init__(lambda path, draw: first[draw] if not path else f"\\boxed{{{len(path[0])}}}", counted=True)
        self.late: dict[int, asyncio.Event] = {}

    async def stream(self, request):
        slot = len(self.requests)
        chunks = super().stream(request)
        if slot in self.late:
            first = await anext(chunks)
            await self.late[slot].wait()
            yield first
        async for chunk in chunks:
            yield chunk


async def search(policy, plan=BEAM, score=lambda steps: 0.5, **settings):
    events = []
    async with Solver(policy, ScriptedPRM(score)) as solver:
        result = await solver.solve("p", plan, sinks=[events.append], **settings)
    assert SearchTree.fold(events).nodes[-1].text == result.tree.nodes[-1].text
    return result, events


def merged(events):
    """Return which of the first four steps were merged, and into which steps."""
    return [(event.node, event.into) for event in events if isinstance(event, StepMerged) and event.node <= 4]


async def test_an_answer_that_ends_the_text_and_one_before_a_blank_line_take_one_place_in_the_beam():
    policy = InSlots("So \\boxed{3}", f"So \\boxed{{3}}{SEP}", f"Try 7: it fits.{SEP}", "   Try 7: it fits. \n\n")
    result, events = await search(policy, score=lambda steps: 0.9 if "3" in steps[0] else 0.1)
    assert merged(events) == [(2, 1), (4, 3)]
    first = next(event for event in events if isinstance(event, NodesKept))
    assert first.nodes == (1, 3)
    assert {vote.answer for vote in result.votes} == {"3", "17"}
    assert all(len(vote.solutions) == 1 for vote in result.votes)


async def test_tokens_of_merged_steps_count_and_the_ids_of_the_one_that_stays_are_its_own():
    policy = InSlots(f"same{SEP}", f" same{SEP}", f"same {SEP}", f"other{SEP}")
    result, events = await search(policy)
    assert merged(events) == [(2, 1), (3, 1)]
    assert len([event for event in events if isinstance(event, StepScored) and event.node < 5]) == 2
    assert result.finished.tokens.policy.completion == policy.sampled
    assert [len(node.ids) for node in result.tree.nodes[1:5]] == [6, 7, 7, 7]
    grown = [request.ids for request in policy.requests[4:]]
    assert all(
        ids[1:7] == tuple(result.tree.nodes[1].ids) or ids[1:8] == tuple(result.tree.nodes[4].ids) for ids in grown
    )


@pytest.mark.parametrize(
    "steps",
    [
        ("It is 3.", f"It is 3.{SEP}"),  # one has ended without a box, the other continues
        ("and so~", f"and so{SEP}"),  # one was cut off
        ("say  it\n\n", "say it\n\n"),  # whitespace inside the text
        ("So \\boxed{3}", f"So \\boxed{{3}}.{SEP}"),
    ],
)
async def test_steps_that_differ_in_more_than_their_ending_stay_two(steps):
    policy = InSlots(*steps, f"a{SEP}", f"b{SEP}")
    _, events = await search(policy)
    assert merged(events) == []
    _, events = await search(InSlots(*reversed(steps), f"a{SEP}", f"b{SEP}"))
    assert merged(events) == []


@pytest.mark.parametrize("slow", [0, 1, 2])
async def test_the_oldest_stays_whichever_is_finished_first(slow):
    policy = InSlots("So \\boxed{3}", f"So \\boxed{{3}}{SEP}", f" So \\boxed{{3}}{SEP}", f"Try 7.{SEP}")
    policy.late[slow] = asyncio.Event()
    events = []

    def listen(event):
        events.append(event)
        if len([one for one in events if isinstance(one, StepScored)]) == 2:  # both distinct steps are scored
            policy.late[slow].set()

    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        result = await solver.solve("p", BEAM, sinks=[listen])
    tree = result.tree
    assert [node.merged_into for node in tree.nodes[1:5]] == [None, 1, 1, None]
    assert tree.solutions.count(tree.nodes[1]) == 1
    assert not any(node.solved or node in tree.solutions for node in tree.nodes[2:4])
    assert [(vote.answer, vote.solutions) for vote in result.votes if vote.answer == "3"] == [("3", (1,))]
    replayed = SearchTree.fold(events)
    assert [node.merged_into for node in replayed.nodes] == [node.merged_into for node in tree.nodes]
    assert [node.id for node in replayed.solutions] == [node.id for node in tree.solutions]


async def test_a_step_that_a_strategy_has_been_given_is_not_taken_back(monkeypatch):
    given = []

    class Eager:
        name, summary, needs_scores, uses_width = "eager", "", False, False

        async def run(self, search):
            async for node in search.expand([search.root], 2):
                given.append(node)
                policy.late[0].set()
            return given

    policy = InSlots(f"same{SEP}", f"same{SEP}")
    policy.late[0] = asyncio.Event()
    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Eager())
    _, events = await search(policy)
    assert [node.id for node in given] == [2]
    assert merged(events) == [(1, 2)]


async def test_a_recording_in_which_alike_siblings_were_kept_goes_on_with_both(tmp_path, monkeypatch):
    record = tmp_path / "run.jsonl"
    steps = (f"same{SEP}", f" same{SEP}", f"Try 7.{SEP}", f"Try 8.{SEP}")

    def score(steps):
        return 0.9 if "same" in steps[0] else 0.1

    with monkeypatch.context() as old:
        old.setattr(tts_tui.search.merging, "_said", lambda node: (node.text, node.finish))
        await search(InSlots(*steps), score=score, record=record)
    lines = record.read_bytes().splitlines(keepends=True)
    for killed in range(2, len(lines)):
        record.write_bytes(b"".join(lines[:killed]))
        before = load(record)
        done = [node.id for node in before.nodes[1:] if node.state == "done"]
        async with Solver(InSlots(*steps[len(before.nodes) - 1 :], *steps), ScriptedPRM(score)) as solver:
            result = await solver.resume(record)
        assert result.reason == "solved"
        if any(node.kept for node in before.nodes):
            assert merged(read(record)) == []
            assert {node.id for node in result.tree.nodes if node.kept} >= {1, 2}
        assert all(result.tree.nodes[id].state == "done" for id in done)


async def test_searches_of_search_and_learn_merge_nothing():
    policy = InSlots(*[f"same{SEP}"] * 4)
    _, events = await search(policy, BEAM.replace(variant="search-and-learn"))
    assert merged(events) == []
    assert len([event for event in events if isinstance(event, StepFinished)]) == 8
