"""Answers are extracted as stated, and compared by their meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_tui.answers.canonical import boxed, canonical, extract, same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{5}", "5"),
        ("\\boxed{4} no, \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed 7.", "7"),
        ("\\fbox{8}", "8"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("Therefore, the final answer is: $\\boxed{12}$. I hope it is correct.", "12"),
        ("the final answer is $12$. I hope it is correct.", "12"),
        ("The answer is 42.", "42"),
        ("The answer is: x + 1\nDone", "x + 1"),
        ("7 + 8 = 15, so 15 - 6 = 9", "9"),
        ("costs 1,200 dollars", "1,200"),
        ("So we get .5", ".5"),
        ("that is 10-3", "3"),
        ("\\boxed{руки}", "руки"),
        ("The answer is 5 because 2+3=5.", "5"),
        ("\\boxed{5", "5"),
        ("\\boxed{}", None),
        ("\\boxed{ }", None),
        ("nothing here", None),
        ("", None),
        ("\\boxed{" + "x" * 5000 + "}", None),
    ],
)
def test_reading_an_answer(text, answer):
    assert extract(text) == answer


def test_a_solution_that_was_cut_off_gives_no_stray_number():
    assert extract("7 + 8 = 15", finished=False) is None
    assert extract("the answer is \\boxed{3} because 7", finished=False) == "3"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("0.5", "\\frac12"),
        ("0.5", "\\dfrac{1}{2}"),
        ("\\frac{2}{4}", "1/2"),
        (".5", "0.50"),
        ("-\\frac{1}{2}", "-0.5"),
        ("1,000", "1000"),
        ("12{,}345", "12345"),
        ("$7$", "7"),
        ("\\(7\\)", "7"),
        ("7.", "7"),
        ("x = 7", "7"),
        ("90^\\circ", "90"),
        ("90^{\\circ}", "90"),
        ("50\\%", "50"),
        ("5\\text{ cm}", "5"),
        ("5 \\text{ cm}^2", "5"),
        ("\\text{Evelyn}", "evelyn"),
        ("(C)", "\\text{C}"),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
        ("(0.5, 2)", "(\\frac12,2)"),
        ("1, -2", "-2,1"),
        ("\u22127", "-7"),
        ("11\\sqrt2", "11\\sqrt{2}"),
        ("2 1/2", "5/2"),
        ("2\\frac12", "2.5"),
        ("\\frac{1}2", "\\frac12"),
        ("\\frac{a}{b}", "\\frac ab".replace(" ab", "{a}{b}")),
        ("\\{1,2\\}", "\\{2, 1\\}"),
        ("x - y", "x-y"),
        ("2^{3}", "2^3"),
        ("5 cm", "5\\text{ cm}"),
        ("1 000", "1000"),
        ("\\begin{pmatrix} -2 \\\\ 1 \\end{pmatrix}", "\\begin{pmatrix}-2\\\\1\\end{pmatrix}"),
    ],
)
def test_what_means_the_same_is_the_same(left, right):
    assert same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1", "1,-2"),
        ("3", "3, 5, 7"),
        ("5000", "50"),
        ("0.5", "50"),
        ("(1,2]", "[1,2)"),
        ("(1,2)", "(2,1)"),
        ("10000", "10001"),
        ("200000", "2000"),
        ("1/0", "2/0"),
        ("x", "X"),
        ("AB", "ab"),
        ("2 1/2", "21/2"),
        ("1 2", "12"),
        ("x=2,y=3", "x=3,y=2"),
        ("", ""),
        ("\\frac{1}{3}", "0.3333"),
        ("(1,200)", "1200"),
    ],
)
def test_what_differs_differs(left, right):
    assert not same(left, right)


@given(st.text(max_size=60))
def test_canonical_is_stable_and_never_fails(text):
    extract(text)
    boxed(text)
    once = canonical(text)
    assert isinstance(once, str)


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=100))
def test_every_way_to_write_a_number_is_one(value):
    top, bottom = value.numerator, value.denominator
    ways = {f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"${top}/{bottom}$"}
    assert {canonical(way) for way in ways} == {str(value)}


def test_long_and_nested_input_is_quick_and_harmless():
    assert canonical("9" * 100_000)
    assert extract("{" * 100_000 + "\\boxed{" * 1000) is None
    assert canonical("(" * 3000 + ",".join("1" * 100) + ")" * 3000)
