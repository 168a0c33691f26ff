"""The plain display tells what a person does in a search, each thing in a sentence."""

from __future__ import annotations

import io
import re

from tests.scripted import ScriptedPRM
from tests.search.steering import Talkative
from tts_tui import Plan, Solver, read
from tts_tui.displays.plain import PlainDisplay
from tts_tui.tree.events import NodesKept, NodesPruned, SolutionFound

SEP = "\n\n"


def script(path, draw):
    return f"step {draw % 1000}{SEP}" if len(path) < 2 else f"\\boxed{{{draw % 3}}}"


def told(events):
    out = io.StringIO()
    display = PlainDisplay(out)
    for event in events:
        display(event)
    return out.getvalue()


async def test_everything_that_a_person_does_is_told(tmp_path):
    held = []

    def react(event):
        if not held:
            return
        search = held[0]
        match event:
            case NodesKept(by="strategy") if not search.tree.branches:
                search.step()
                search.steering.write(search.tree.root, "mine\x1b[31m [b]")
                search.steering.expand(search.tree.root, 1)
                search.round()
                search.go_on()
            case NodesPruned(by="strategy", nodes=nodes) if not search.tree.restored:
                search.steering.restore(search.tree.nodes[nodes[0]])
            case SolutionFound(node=node) if search.tree.plan.vote != "majority":
                search.steering.cut([search.tree.nodes[node]])
                search.steering.change(search.tree.plan.replace(vote="majority"))

    async with Solver(Talkative(script, piece=2), ScriptedPRM(lambda steps: 0.5)) as solver:
        plan = Plan(strategy="beam", n=4, m=2)
        result = await solver.solve("p", plan, record=tmp_path / "run.jsonl", sinks=[react], steer=held.append)
        assert result.tree.notices == []
        fork = tmp_path / "fork.jsonl"
        mine = next(node for node in result.tree.nodes if node.text.startswith("mine"))
        await solver.fork(result.tree, mine, record=fork)
    text = told(read(tmp_path / "run.jsonl"))
    for sentence in (
        r"Paused\.",
        r"One step\.",
        r"One round\.",
        r"Written by hand: step 0\.\d: mine.* \[b\]",
        r"Asked for by hand: step 0\.\d\.",
        r"Restored by hand: step 0\.\d \(score 0\.50\)\.",
        r"The search also goes on from step 0\.\d",
        r"Cut by hand: step [\d.]+( \(score 0\.50\))?\.",
        r"The plan is now: beam, n 4, m 2, .*vote majority",
        r"Going on\.",
    ):
        assert re.search(rf"s: {sentence}", text), sentence
    assert "\x1b" not in text
    assert "failed" not in text
    said = told(read(fork))
    assert re.search(r"A fork of run [0-9a-f]+, 1 step copied from there\.", said)
    assert "by hand" not in said
