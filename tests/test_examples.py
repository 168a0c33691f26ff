"""The examples run unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name, *arguments):
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.embedded
@pytest.mark.parametrize("name", ["solve.py", "stream_events.py", "custom_strategy.py", "steer.py"])
def test_an_example_comes_to_an_answer(name):
    assert "answer: " in example(name, "What is 2 + 3?")


@pytest.mark.embedded
def test_the_example_that_scores_gives_a_number_to_each_step():
    lines = example("score_steps.py").splitlines()
    assert len(lines) == 3 and all(0 <= float(line[:4]) <= 1 for line in lines)


async def test_the_replay_example_reads_a_recording(tmp_path):
    policy = ScriptedPolicy(lambda path, draw: "it is \\boxed{7}")
    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        await solver.solve("What?", Plan(n=2), record=tmp_path / "run.jsonl")
    said = example("replay.py", str(tmp_path / "run.jsonl"))
    assert "problem: What?\n" in said and "0.1: answer 7, step scores 0.50" in said and "answer: 7\n" in said


def test_every_example_is_tried_here():
    tried = {"solve.py", "stream_events.py", "custom_strategy.py", "steer.py", "replay.py", "score_steps.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tried
