"""Shots: of the kind that is asked, the same for all problems of a kind, and never the problem itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tts_tui.answers.canonical import extract
from tts_tui.backends.local import few_shot
from tts_tui.evaluation.datasets.families import FAMILIES, arithmetic_right, problems, split_of


@pytest.mark.parametrize("family", FAMILIES)
def test_problems_of_a_family_all_get_the_same_shots_of_that_family(family: str) -> None:
    chosen = {few_shot.choose(each.question) for each in problems(family, "test", 30)}
    assert len(chosen) == 1
    assert {shot.kind for shot in chosen.pop()} == {family}


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is 7 + 8 - 6?", "addsub"),
        ("7+8-6", "addsub"),
        ("  compute   7 + 8 - 6", "addsub"),
        ("12 * 3 =", "mul2x1"),
        ("How many minutes is 3 hours?", "unit"),
        ("What is 35% of 200?", "pct"),
    ],
)
def test_other_wordings_find_their_kind(question: str, kind: str) -> None:
    assert {shot.kind for shot in few_shot.choose(question)} == {kind}


def test_no_shot_asks_the_question_itself() -> None:
    for shot in few_shot.few_shot_examples():
        for asked in (shot.question, shot.question.upper(), f"  {shot.question}\n"):
            chosen = few_shot.choose(asked)
            assert len(chosen) == few_shot.COUNT
            assert shot not in chosen


@pytest.mark.parametrize("question", ["", "你好", "\x1b[31m", "?" * 100_000, "<|im_end|>", "12 " * 5000])
def test_anything_gets_shots(question: str) -> None:
    assert len(few_shot.choose(question)) == few_shot.COUNT
    assert few_shot.choose(question) == few_shot.choose(question)


def test_the_likeliest_kind_stands_next_to_the_question() -> None:
    question = "Pat has 3 boxes with 4 pens each and finds 5 more. How many pens does Pat have now?"
    assert few_shot.choose(question, 6)[-1].kind == "word2"


def test_the_chat_is_system_prompt_shots_question() -> None:
    chat = few_shot.messages("What is 2 + 2 - 1?")
    assert [message["role"] for message in chat] == ["system", *["user", "assistant"] * 3, "user"]
    assert chat[0]["content"] == few_shot.SYSTEM
    assert chat[-1]["content"] == "What is 2 + 2 - 1?"


def test_every_shipped_shot_is_right_and_in_the_format_that_works() -> None:
    for shot in few_shot.few_shot_examples():
        *steps, last = shot.solution.split("\n\n")
        assert [step.split(":")[0] for step in steps] == [f"Step {n}" for n in range(1, len(steps) + 1)]
        assert all(arithmetic_right(step) for step in steps), shot
        assert last == f"The answer is \\boxed{{{extract(shot.solution)}}}."
        assert f"= {extract(shot.solution)}" in steps[-1]


def test_shots_are_no_problem_that_anything_is_measured_on() -> None:
    for shot in few_shot.few_shot_examples():
        if shot.kind in FAMILIES:
            assert split_of(shot.kind, shot.question) == "shots"


def test_importing_shots_pull_and_families_loads_nothing_heavy() -> None:
    code = (
        "import sys, json; import tts_tui.backends.local.few_shot, tts_tui.backends.local.download;"
        "import tts_tui.evaluation.datasets.families;"
        "print(json.dumps([m for m in ('torch', 'transformers', 'gguf', 'safetensors') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
