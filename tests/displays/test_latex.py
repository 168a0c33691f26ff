"""Formulas as people read them."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_tui.displays import formula, latex
from tts_tui.displays.latex import pieces, readable


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (r"\frac{x+1}{y-2}", "(x+1)/(y-2)"),
        (r"\frac12", "1/2"),
        (r"2\frac{1}{3}", "2 1/3"),
        (r"x\frac12y", "x(1/2)y"),
        (r"\left(\frac{1}{2}\right)^2", "(1/2)²"),
        (r"\frac{-b\pm\sqrt{b^2-4ac}}{2a}", "(-b±√(b²-4ac))/(2a)"),
        (r"\frac{n(n+1)}{2}", "n(n+1)/2"),
        (r"{a+b \over c}", "(a+b)/c"),
        ("x^2", "x²"),
        ("x^{10}", "x¹⁰"),
        ("a_{i+1}", "aᵢ₊₁"),
        (r"e^{i\pi}", "e^(iπ)"),
        (r"x^\frac12", "x^(1/2)"),
        ("a_b", "a_b"),
        (r"90^\circ", "90°"),
        (r"\sqrt{y_1}", "√(y₁)"),
        (r"3\sqrt{2}", "3√2"),
        (r"\sqrt[3]{x}", "∛x"),
        (r"0.\overline{36}", "0.3̅6̅"),
        (r"\overline{AB}", "A̅B̅"),
        (r"\overrightarrow{AB}", "A⃗B⃗"),
        (r"\boxed{7}", "⟦7⟧"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "(1, 2; 3, 4)"),
        (r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", "[1, 2; 3, 4]"),
        (r"\begin{cases}x & x>0\\ 0&\text{otherwise}\end{cases}", "{x, x>0; 0, otherwise"),
        (r"\text{if }x>0", "if x>0"),
        (r"a\le b\cdot c\times\infty", "a≤b·c×∞"),
        (r"\sin\theta+\log_2 8", "sin θ+log₂ 8"),
        (r"\binom{5}{2}", "(5 choose 2)"),
        (r"a\equiv b\pmod{7}", "a≡b (mod 7)"),
        (r"\left\{x\right.", "{x"),
        ("50%", "50%"),
        ("f''(x)--1", "f''(x)--1"),
        ("10{,}000", "10,000"),
        (r"\foo{bar}+\baz", r"\foo bar+\baz"),
    ],
)
def test_a_formula_is_written_as_people_write_it(source, shown):
    assert readable(f"${source}$") == shown
    assert readable(f"so \\({source}\\).") == f"so {shown}."


def test_what_stands_around_formulas_stays():
    assert readable("**Step 1:** `$x^2$` is $x^2$, see [a](b).") == "**Step 1:** `$x^2$` is x², see [a](b)."
    assert readable("```\n$x^2$\n```\n$x^2$") == "```\n$x^2$\n```\nx²"
    assert readable("So the answer is \\boxed{\\frac{1}{2}}.") == "So the answer is ⟦1/2⟧."


def test_formulas_on_their_own_keep_their_lines():
    text = "We have\n\\begin{align*}x&=1\\\\ y&=2.\\end{align*}\nSo $$x+y=3$$."
    assert readable(text) == "We have\nx = 1\ny = 2.\nSo\nx+y=3."


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $7.",
        "from $5-$7, or $10",
        "$20 off, then $10 = half",
        "He has $5 and she has 6$",
        "US$ 5 and A$ 7",
    ],
)
def test_money_is_no_formula(text):
    assert readable(text) == text


def test_money_and_formulas_stand_side_by_side():
    assert readable("He had $5 and $x$ apples at $2 each, or $y^2$") == "He had $5 and x apples at $2 each, or y²"
    assert readable(r"\$5 for $n$ people") == "$5 for n people"


@pytest.mark.parametrize("source", ["a*b*c", "a_b + c_d", "|x|<y>", "- 3", "= 1", "2.", "[a](b)"])
def test_signs_of_markdown_in_a_formula_are_shown(source):
    assert readable(f"${source}$") == source


@pytest.mark.parametrize(
    "source",
    [
        r"\color{the answer is 5}x",
        r"\hspace{hidden}x",
        r"\begin{array}{hidden}x\end{array}",
        r"\begin{hidden}x\end{hidden}",
        r"\title{hidden}x",
        r"\input{hidden}x",
        r"\newcommand{\f}{hidden}x",
        r"\today x",
        r"\ref{hidden}",
    ],
)
def test_a_formula_that_would_lose_or_gain_something_stays_as_it_was(source):
    assert readable(f"${source}$") == f"${source}$"


def test_layout_and_names_of_commands_are_not_spelt_out():
    assert readable(r"$\textcolor{red}{x}\hspace{1cm}y$") == "x y"
    assert readable(r"$\begin{array}{@{}c|c@{\;}}1&2\\[2pt]\cline{1-2}3&4\end{array}$") == "1, 2; 3, 4"
    assert readable(r"$\begin{equation}x=1\label{eq:1}\end{equation}$") == "x=1\u2003[eq:1]"


def test_code_is_told_from_quotations():
    assert kinds("use `$x$` or\n```\n$y$\n```\n$z$") == [
        ("use ", "text"),
        ("`$x$`", "code"),
        (" or\n", "text"),
        ("```\n$y$\n```", "code"),
        ("\n", "text"),
        ("z", "formula"),
    ]
    assert kinds("say `$x$' and `$y$'") == [("say `", "text"), ("x", "formula"), ("' and `", "text"),
                                            ("y", "formula"), ("'", "text")]  # fmt: skip
    assert kinds("```$x$``` here") == [("```$x$```", "code"), (" here", "text")]
    assert kinds("```\nnever closed $x$") == [("```\nnever closed $x$", "code")]


def kinds(text):
    return [(piece.text, piece.kind) for piece in pieces(text)]


@pytest.mark.parametrize(
    "text",
    [
        "$x^2",
        "$$",
        "$$x$",
        r"\[ y_1",
        r"\boxed{\frac{1}{",
        r"\begin{align}x",
        "$x^$",
        r"$\frac{1}{$",
        "${$",
        "$}$",
        r"C:\new\text",
    ],
)
def test_what_cannot_be_read_stays_as_it_was(text):
    assert readable(text) == text


def test_deep_and_long_formulas_stay_as_they_were():
    deep = "$" + "{" * 5000 + "x" + "}" * 5000 + "$"
    assert readable(deep) == deep
    long = "$" + "x+" * formula.LONGEST + "$"
    assert readable(long) == long


def test_only_so_much_is_converted_in_one_text(monkeypatch):
    monkeypatch.setattr(latex, "MOST", 9)
    assert readable("$x^2$ " * 5) == "x² x² x² $x^2$ $x^2$ "


@given(st.text())
def test_text_without_latex_is_unchanged(text):
    text = text.replace("\\", "/").replace("$", "€")
    assert readable(text) is text


PIECES = [
    "\\frac", "{", "}", "^", "_", "$", "$$", "\\[", "\\]", "\\(", "\\)", "\\begin{pmatrix}", "\\end{pmatrix}",
    "&", "\\\\", "x", "12", " ", "\n", "\\sqrt", "[", "]", "\\left", "(", ")", "\\boxed{", "\\text{", "`",
    "\\over", "%", "~", "'", "\\foo", "é", "\ue000", "\ue003", "\\hat", "\\",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join))
def test_whatever_is_written_it_is_shown_and_nothing_internal_with_it(text):
    shown = readable(text)
    assert [char for char in shown if char in "\ue001\ue002"] == [char for char in text if char in "\ue001\ue002"]


@pytest.mark.shared
def test_problems_and_solutions_keep_their_digits(shared):
    lost = []
    for line in (shared / "data" / "math500.jsonl").read_text().splitlines():
        row = json.loads(line)
        for kind in ("problem", "solution"):
            if digits(without_layout(row[kind])) != digits(readable(without_layout(row[kind]))):
                lost.append((row["unique_id"], kind))
            readable(row[kind])
    assert lost == []


def without_layout(text):
    """Digits that say how wide something is are not shown; an index that is a root's sign becomes one."""
    text = re.sub(r"\\sqrt\[[234]\]", r"\\sqrt", text)
    text = re.sub(r"\\multicolumn\{\d+\}\{[^{}]*\}", "", text)
    return re.sub(r"\\(cline|hspace\*?|vspace|color)\{[^{}]*\}|\\\\\[[^\]]*\]", "", text)


def digits(text):
    """All digits, raised and lowered ones among them, in no order: an argument may change its place."""
    return sorted(str(unicodedata.digit(char)) for char in text if unicodedata.digit(char, None) is not None)
