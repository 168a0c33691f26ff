"""Problem families: the same problems always, splits that never mix, gold solutions that hold."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from tts_tui.answers.canonical import extract, same
from tts_tui.errors import UnknownName, UsageError
from tts_tui.evaluation.datasets.families import (
    FAMILIES,
    SPLITS,
    TRAINED,
    UNSEEN,
    arithmetic_right,
    equations,
    problem,
    problems,
    split_of,
    value,
)

EVERY = pytest.mark.parametrize("family", FAMILIES)


def independent(family: str, question: str) -> int:
    """The answer, worked out from the question alone and not as the generators do."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    match family:
        case "cmp":
            return sorted(numbers)[-1]
        case "pct":
            return numbers[0] * numbers[1] // 100
        case "unit":
            return 60 * numbers[0] + numbers[1]
        case "lin":
            return next(x for x in range(1000) if numbers[0] * x + numbers[1] == numbers[2])
        case "word2":
            return numbers[0] * numbers[1] + numbers[2]
        case "word3":
            bags, each, lost, extra, friends = numbers
            return (bags * each - lost + extra) // friends
        case "money":
            return numbers[2] - numbers[0] * numbers[1]
        case "rem":
            return numbers[0] % numbers[1]
        case "seq":
            return 2 * numbers[3] - numbers[2]
        case "add2":
            return sum(numbers)
    found = re.search(r"\d+(?: [-+*] \d+)+", question)
    assert found is not None
    return int(eval(found[0]))


@EVERY
@pytest.mark.parametrize("split", SPLITS)
def test_answers_and_gold_steps_are_right(family: str, split: str) -> None:
    for each in problems(family, split, 25):  # type: ignore[arg-type]
        assert int(each.answer) == independent(family, each.question), each
        assert all(arithmetic_right(step) for step in each.steps), each
        assert equations(each.steps[-1])[-1][1] == each.answer
        found = extract(each.solution)
        assert found is not None and same(found, each.answer)


@EVERY
def test_a_problem_never_changes_and_more_of_them_change_nothing(family: str) -> None:
    first = problems(family, "train", 10)
    random.seed(1)
    again = problems(family, "train", 20)
    assert again[:10] == first
    assert [each.index for each in again] == list(range(20))
    assert problem(family, "train", 7) == first[7]


@EVERY
def test_splits_share_no_problem(family: str) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for split in SPLITS:
        members = problems(family, split, 40)  # type: ignore[arg-type]
        assert len(members) >= 4
        for each in members:
            numbers = tuple(sorted(int(number) for number in re.findall(r"\d+", each.question)))
            assert seen.setdefault(numbers, split) == split
            assert split_of(family, each.question) == split


def test_problems_of_a_split_are_distinct() -> None:
    for family in FAMILIES:
        asked = [re.findall(r"\d+", each.question) for each in problems(family, "test", 40)]
        assert len({tuple(numbers) for numbers in asked}) == len(asked)


def test_the_first_problems_are_the_ones_that_figures_were_measured_on() -> None:
    # Changing a generator changes every measured figure: then change the name of the stream too, and measure again.
    assert problem("addsub", "test", 0).question == "Calculate 6 + 8 - 4."
    assert problem("word2", "test", 0).question.startswith("Ann has 9 boxes with 7 shells each")


def test_some_families_are_never_trained_on() -> None:
    assert len(UNSEEN) >= 2
    assert set(TRAINED) | set(UNSEEN) == set(FAMILIES)
    assert not set(TRAINED) & set(UNSEEN)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'addsub'"):
        problem("addsup", "train", 0)
    with pytest.raises(UnknownName, match="split"):
        problem("addsub", "tests", 0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has only"):
        problem("unit", "shots", 10_000)


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("Step 1: 8 * 4 = 32\n\n", True),
        ("Step 1: 8 * 4 = 34", False),
        ("8 × 4 = 32.", True),
        ("12 / 4 = 3 and 3 - 5 = -2", True),
        ("12 / 4 = 3 and 3 - 5 = 2", False),
        ("2 + 3 * 4 = 14", True),
        ("3 - -2 = 5", True),
        ("1,200 + 1 = 1,201", True),
        ("max(3, 12) = 12", True),
        ("max(3, 12) = 3", False),
        ("min(3, 12) = 3", True),
        ("min(3, 12) = 12", False),
        ("5 / 0 = 0", False),
        ("1 / 3 = 0.33", False),
        ("The answer is 7", None),
        ("x = 7", None),
        ("", None),
    ],
)
def test_checking_arithmetic(step: str, right: bool | None) -> None:
    assert arithmetic_right(step) is right


@pytest.mark.parametrize(
    ("left", "is_"),
    [
        ("2 + 3 * 4", 14),
        ("12 / 4 - 5", -2),
        ("7 / 2", Fraction(7, 2)),
        ("3 - -2", 5),
        ("max(3, 12, 5)", 12),
        ("min(30, 4, 5)", 4),
    ],
)
def test_the_value_of_a_left_side(left: str, is_: Fraction | int) -> None:
    assert value(left) == is_
