"""Counts of features in a problem's text."""

from __future__ import annotations

import math

import pytest

from tts_tui.controller.prompt_features import BUCKETS, NAMES, features


def counted(problem: str) -> dict[str, int]:
    """Return the counts of the features by name."""
    return {name: round(math.expm1(value)) for name, value in zip(NAMES, features(problem), strict=True)}


def test_arithmetic_is_counted_by_signs_numbers_and_digits():
    found = counted("What is 12 + 345 - 6?")
    assert (found["numbers"], found["digits of the largest"], found["digits of all"]) == (3, 3, 6)
    assert (found["plus"], found["minus"], found["times"], found["one-digit numbers"]) == (1, 1, 0, 1)
    assert (found["words"], found["questions"], found["sentences"]) == (2, 1, 1)


def test_notation_is_counted():
    found = counted(r"Let $x \le 3$ and $\frac{x^2}{\sqrt{y}} = 50\%$. Find y.")
    assert (found["commands"], found["divided"], found["power"], found["root"]) == (3, 1, 1, 1)
    assert (found["equals"], found["percent"], found["compares"], found["sentences"]) == (1, 1, 1, 2)
    assert found["variables"] == 4  # x, x, y, y


@pytest.mark.parametrize("problem", ["7 - 3", "7-3", "(x) -y", "x- 2"])
def test_a_minus_counts_however_it_is_spaced(problem):
    assert counted(problem)["minus"] == 1


def test_a_decimal_is_one_number():
    found = counted("It costs 12.50 and 3 more")
    assert (found["numbers"], found["digits of the largest"]) == (2, 4)


def test_words_fall_into_buckets_whatever_their_case():
    lower, upper = counted("find the remainder of it"), counted("FIND the Remainder OF It")
    assert lower == upper
    assert sum(lower[f"words {bucket}"] for bucket in range(BUCKETS)) == lower["words"] == 5


def test_other_words_fall_into_other_buckets():
    texts = ("remainder", "triangle", "probability", "derivative")
    assert len({tuple(features(text)[-BUCKETS:]) for text in texts}) > 1


def test_names_of_commands_are_no_words():
    assert counted(r"\frac{1}{2}")["words"] == 0


@pytest.mark.parametrize("problem", ["", "?!", "\\", "é" * 10_000, "9" * 5000, "a b c " * 5000])
def test_any_text_has_all_features(problem):
    found = features(problem)
    assert len(found) == len(NAMES)
    assert all(math.isfinite(value) and value >= 0 for value in found)


def test_an_empty_text_counts_nothing():
    assert set(features("")) == {0.0}


def test_a_hyphen_inside_a_word_is_no_minus():
    assert counted("A two-step problem about the x-intercept of a well-known line")["minus"] == 0
    assert counted("x-y")["minus"] == 1
