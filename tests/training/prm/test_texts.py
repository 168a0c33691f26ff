"""What an adapter is trained on: right where it says so, and never a problem of another split."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from itertools import islice

import msgspec
import pytest

from tests.backends import tiny
from tts_tui.answers.canonical import extract, same
from tts_tui.backends.adapter.text import AdapterText
from tts_tui.evaluation.datasets.families import FAMILIES, TRAINED, Problem, equations, problem, problems, split_of
from tts_tui.evaluation.samples import Sampled, Solution
from tts_tui.training.prm import texts as texts_module
from tts_tui.training.prm.corruptions import near, slipped
from tts_tui.training.prm.practice import PRACTICE, fact
from tts_tui.training.prm.texts import FACTS, Mixture, Part, Text, TextSampler, other_plan, own_text, row

LAYOUT = AdapterText(tiny.TOKENIZER)
NOTHING = Mixture(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def right(step: str) -> bool:
    found = equations(step)
    return bool(found) and all(equal for _, _, equal in found)


def sampled(*solutions: tuple[str, ...], answer: str = "9", question: str = "What is 7 + 8 - 6?") -> Sampled:
    asked = Problem("addsub", "train", 0, question, answer, ("7 + 8 = 15", "15 - 6 = 9"))
    made = tuple(Solution(steps, tuple((1,) for _ in steps), "eos", extract("".join(steps))) for steps in solutions)
    return Sampled(asked, made)


def some(
    count: int, *, families: tuple[str, ...] = TRAINED, own: tuple[Sampled, ...] = (), **shares: float
) -> list[Text]:
    mixture = Mixture(**{name: shares.get(name, 0.0) for name in Mixture.__struct_fields__})
    return list(islice(TextSampler(families, own, [(mixture, 0)], 0), count))


# --- practice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PRACTICE)
def test_practice_problems_hold(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(60):
        question, answer, steps = PRACTICE[kind](rng)
        assert all(right(step) for step in steps), (question, steps)
        assert equations(steps[-1])[-1][1] == str(answer) and answer >= 0, (question, steps)
        asked = {int(number) for number in re.findall(r"\d+", question)}
        # Every number of the first step is one of the question's, or one that everybody knows.
        words = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "dozens": 12, "weeks": 7, "feet": 12, "years": 12}
        words |= {"metres": 100, "days": 24, "pairs": 2}
        known = asked | {number for word, number in words.items() if word in question}
        assert {int(number) for number in re.findall(r"\d+", steps[0].split("=")[0])} <= known, (question, steps)


def test_practice_is_no_family() -> None:
    assert not set(PRACTICE) & set(FAMILIES)
    rng = random.Random(0)
    for _ in range(300):
        question = PRACTICE[rng.choice(list(PRACTICE))](rng)[0]
        assert "%" not in question and "minutes" not in question and "dollars" not in question


def test_facts_hold() -> None:
    rng = random.Random(0)
    drawn = [fact(rng) for _ in range(500)]
    assert all(right(one) for one in drawn)
    assert {sign for one in drawn for sign in "+-*/" if f" {sign} " in one} == set("+-*/")


# --- slips ------------------------------------------------------------------------------------------------------------


def slips(count: int) -> Iterator[tuple[Problem, int, tuple[str, ...], str]]:
    rng = random.Random(0)
    for name in itertools.cycle(FAMILIES):
        asked = rng.choice(problems(name, "train", 20))
        found = slipped(rng, asked.steps, asked.answer)
        if found is not None:
            yield asked, *found
            count -= 1
        if not count:
            return


def test_a_slip_is_the_first_thing_wrong_and_everything_after_it_follows() -> None:
    kinds = set()
    for asked, first, told, end in slips(400):
        assert len(told) == len(asked.steps) and told[:first] == asked.steps[:first]
        assert told[first] != asked.steps[first]
        assert end != asked.answer and end == equations(told[-1])[-1][1]
        # Later steps are right by themselves: they only go on from what is wrong.
        assert all(right(step) for step in told[first + 1 :])
        gold, (left, wrong) = asked.steps[first].split(" = "), told[first].split(" = ")
        kinds.add("result" if left == gold[0] else "operand or sign")
        assert wrong != gold[1]
        assert right(told[first]) == (left != gold[0])
        for step, own in zip(asked.steps[first + 1 :], told[first + 1 :], strict=True):
            if gold[1] in re.findall(r"\d+", step.split(" = ")[0]):
                assert wrong in re.findall(r"\d+", own.split(" = ")[0]), (asked.steps, told)
                break
    assert kinds == {"result", "operand or sign"}


@pytest.mark.parametrize(("steps", "answer"), [((), "3"), (("no equation",), "3"), (("1 + 2 = 3", "no equation"), "3")])
def test_where_no_slip_can_be_made_there_is_none(steps: tuple[str, ...], answer: str) -> None:
    rng = random.Random(0)
    assert all(slipped(rng, steps, answer) is None for _ in range(30))
    assert slipped(rng, ("1 + 2 = 3",), "77") is None  # whatever slips there, it does not lead to the answer


def test_a_near_number_is_another_one() -> None:
    rng = random.Random(0)
    for _ in range(500):
        number = str(rng.choice((0, 1, 7, 10, 99, 342)))
        found = near(rng, number)
        assert found != number and int(found) >= 0 and found == str(int(found))


# --- texts ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_texts() -> None:
    def first(seed: int, count: int) -> list[Text]:
        return list(islice(TextSampler(TRAINED, (), [(Mixture(), 0)], seed), count))

    texts = first(0, 60)
    random.seed(1)
    assert first(0, 90)[:60] == texts
    assert first(1, 60) != texts


def test_only_problems_of_the_training_split_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, str] = {}

    def noted(name: str, question: str) -> str:
        return drawn.setdefault(question, split_of(name, question))

    monkeypatch.setattr(texts_module, "split_of", noted)
    names = ("add0", "mul1", "word2")
    texts = some(300, families=names, worked=0.4, direct=0.3, slipped=0.3)
    assert {drawn[text.question] for text in texts} == {"train"}
    assert set(drawn.values()) > {"train"}  # others were drawn, and left


def test_what_takes_more_steps_is_drawn_more_often() -> None:
    texts = some(600, families=("add0", "word3"), worked=1.0)
    long = sum("buys" in text.question for text in texts)
    assert len(problem("word3", "train", 0).steps) == 4
    assert 0.7 < long / len(texts) < 0.9


def test_worked_texts_are_right_and_end_with_the_answer() -> None:
    for text in some(200, worked=1.0, practice=0.5):
        assert text.question and all(part.learn for part in text.steps)
        *steps, last = (part.text for part in text.steps)
        assert all(right(step) and step.endswith("\n\n") for step in steps)
        assert [step.partition(":")[0] for step in steps] == [f"Step {number}" for number in range(1, len(steps) + 1)]
        answer = extract(last)
        assert answer is not None and same(answer, equations(steps[-1])[-1][1]) and not last.endswith("\n")


def test_direct_texts_have_the_answer_only() -> None:
    asked = {each.question: each.answer for each in problems("add0", "train", 1000)}
    for text in some(100, families=("add0",), direct=1.0):
        (part,) = text.steps
        assert part.learn
        if text.question in asked:  # other wordings of the same numbers are none of the list
            assert part.text == f"The answer is \\boxed{{{asked[text.question]}}}."


def test_from_a_slip_on_only_the_right_answer_is_learned() -> None:
    asked = {each.question: each for name in ("mixed", "lin") for each in problems(name, "train", 1000)}
    known = 0
    for text in some(300, families=("mixed", "lin"), slipped=1.0):
        *steps, last = text.steps
        assert last.learn and [part.learn for part in steps] == sorted((part.learn for part in steps), reverse=True)
        assert not all(part.learn for part in steps)
        if found := asked.get(text.question):
            known += 1
            assert last.text == f"The answer is \\boxed{{{found.answer}}}."
            told = [part.text.partition(": ")[2].strip() for part in steps]
            for part, own, gold in zip(steps, told, found.steps, strict=True):
                if part.learn:
                    assert own == gold
            first = [part.learn for part in steps].index(False)
            assert told[first] != found.steps[first]
    assert known > 50


def test_facts_have_no_question() -> None:
    for text in some(30, facts=1.0):
        assert text.question == "" and len(text.steps) == FACTS
        assert all(part.learn and right(part.text) for part in text.steps)


def test_one_mixture_follows_another() -> None:
    worked, facts = msgspec.structs.replace(NOTHING, worked=1.0), msgspec.structs.replace(NOTHING, facts=1.0)
    texts = list(islice(TextSampler(("add0",), (), [(worked, 7), (facts, 3), (worked, 1)], 0), 40))
    assert [bool(text.question) for text in texts] == [True] * 7 + [False] * 3 + [True] * 30
    assert list(islice(TextSampler(("add0",), (), [(worked, 7), (facts, 0)], 0), 7)) == texts[:7]


def test_without_families_only_practice_is_drawn() -> None:
    named = {each.question for name in TRAINED for each in problems(name, "train", 30)}
    assert not {text.question for text in some(200, families=(), worked=1.0)} & named


def test_samples_are_drawn_where_there_are_some() -> None:
    own = sampled(("7 + 8 = 15\n\n", "\\boxed{9}"), ("no idea",))
    texts = some(20, own=(own,), sampled=1.0)
    assert texts == [own_text(own, 0)] * 20  # of the other one there is nothing to learn
    assert all(text.steps[0].text.startswith("Step") for text in some(20, worked=0.01, sampled=0.99))


# --- the policy's own solutions ---------------------------------------------------------------------------------------


def learned(*steps: str, answer: str = "9") -> list[tuple[str, bool]] | None:
    text = own_text(sampled(steps, answer=answer), 0)
    return text and [(part.text, part.learn) for part in text.steps]


def test_of_a_right_solution_all_that_holds_is_learned() -> None:
    good = ("7 + 8 = 15\n\n", "15 - 6 = 9\n\n", "\\boxed{9}")
    assert learned(*good) == [(step, True) for step in good]
    # It is right by luck: what is wrong in it, and what follows, is no example; its answer is.
    lucky = ("7 + 8 = 15\n\n", "15 - 6 = 10\n\n", "10 - 1 = 9\n\n", "\\boxed{9}")
    assert learned(*lucky) == list(zip(lucky, (True, False, False, True), strict=True))


def test_of_a_wrong_solution_what_holds_before_the_slip_is_learned_and_the_right_answer() -> None:
    end = ("The answer is \\boxed{9}.", True)
    slip = ("7 + 8 = 15\n\n", "15 - 6 = 8\n\n", "\\boxed{8}")
    assert learned(*slip) == [(slip[0], True), (slip[1], False), end]
    # Its arithmetic holds: nobody knows which step is the wrong one.
    plan = ("7 + 8 = 15\n\n", "15 + 6 = 21\n\n", "\\boxed{21}")
    assert learned(*plan) == [(plan[0], False), (plan[1], False), end]
    assert learned("Let us see.\n\n", "I give up") is None


def test_another_plan_is_right_too() -> None:
    rng = random.Random(0)
    steps = ("8 * 4 = 32", "32 + 5 = 37", "37 - 2 = 35")
    seen = [other_plan(rng, steps) for _ in range(300)]
    assert all(right(step) for plan in seen for step in plan)
    assert {plan[0] for plan in seen} == {"8 * 4 = 32", "4 * 8 = 32"}
    assert {plan[1] for plan in seen} == {"32 + 5 = 37", "5 + 32 = 37"}
    assert {plan[2] for plan in seen} == {"37 - 2 = 35"}
    assert sum(plan == steps for plan in seen) > 200


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_row_says_at_each_token_what_follows_where_that_is_learned() -> None:
    text = Text("1?", (Part("ab\n\n"), Part("c\n\n", learn=False), Part("d")))
    found = row(text, LAYOUT)
    newline = tiny.ids_of("\n")[0]
    a, b, c, d = tiny.ids_of("abcd")
    prompt = (*tiny.ids_of("1?"), newline, newline)
    assert found.ids == (*prompt, a, b, newline, newline, c, newline, newline, d, tiny.EOS)
    assert found.targets == (-1, -1, -1, a, b, newline, newline, -1, -1, -1, d, tiny.EOS, -1)


def test_every_learned_target_is_the_next_token() -> None:
    for text in islice(TextSampler(TRAINED, (), [(Mixture(), 0)], 3), 50):
        found = row(text, LAYOUT)
        assert len(found.ids) == len(found.targets) and found.targets[-1] == -1
        pairs = zip(found.targets, found.ids[1:], strict=False)
        assert all(target in (-1, following) for target, following in pairs)
        learned = sum(len(LAYOUT.step(part.text)) for part in text.steps if part.learn)
        first = 0 if text.question else 1  # nothing says what the first token of all shall be
        assert sum(target >= 0 for target in found.targets) == learned - first
