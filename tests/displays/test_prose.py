"""Texts are shown as they were written, on the terminal and on pages."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from textual.app import App

from tests.displays.test_displays import EVIL, finished_step, start
from tts_tui import SearchTree
from tts_tui.displays.prose import as_html, as_rich, spans
from tts_tui.formatting import clean, is_hidden
from tts_tui.ui.widgets.step_view import StepView, whole

WRITTEN_AS_SHOWN = [
    "2*3*4 = 24",
    "2**3**2 = 512",
    "2 ** 3 ** 2",
    "x **n** 2, x **n and m** 2, n! **2** m, |x| **2** |y|, f(**a, **b)",
    "height **width** depth",
    "if a<b and c>d",
    "1<x and x>0",
    "a_1 + b_2 _and_ ~~c~~ __d__ *e* ***f***",
    "<!-- 7 --> <b>x</b> <img src=x> <script>y</script>",
    "[a]: x\n[a]: http://example.org 'title'",
    "[text](http://example.org) ![image](file:///etc/passwd) <http://example.org>",
    "3. third\n4. fourth\n\n1) one\n* star\n+ plus",
    "&#x202e; &#8203; &#xE0041; &lt; &amp;amp;",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "a line\nand another\n\n\nthree below\n===\n---\n***",
    "    indented\n> quoted\n>> twice",
    "# of apples = 5\n#1",
    "[bold]x[/bold] [/] [link=http://example.org]y[/link] [@click=app.quit]z[/] :smile:",
    r"\*\*x\*\* C:\new",
    "`quoted' and `quoted'",
]
"""None of it is a formula, code or emphasis, although Markdown or console markup would have it so."""


@pytest.mark.parametrize("text", WRITTEN_AS_SHOWN)
def test_what_could_be_mathematics_or_markup_is_shown_as_it_was_written(text):
    assert "".join(span.text for span in spans(text)) == text
    assert not any(span.bold or span.code for span in spans(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**Step 1:** find $x^2$", "<b>Step 1:</b> find x²"),
        ("- **Factor** it\n2. **Add**: $x$", "- <b>Factor</b> it\n2. <b>Add</b>: x"),
        ("**Answer: $\\frac12$**", "<b>Answer: 1/2</b>"),
        ("Total = **42**", "Total = <b>42</b>"),
        ("the answer is **42**.", "the answer is <b>42</b>."),
        ("the **median** and the **mode** of both", "the <b>median</b> and the <b>mode</b> of both"),
        ("### Step 1: add\nthen", "### <b>Step 1: add</b>\nthen"),
        ("so `2*3` is 6", "so <code>`2*3`</code> is 6"),
        ("```python\nx = 2**3\n\n$y$\n```\nso $y$", "<code>```python\nx = 2**3\n\n$y$\n```</code>\nso y"),
        ("**see `x`**", "<b>see </b><b><code>`x`</code></b>"),
        ("a<b & 'c'", "a&lt;b &amp; &#x27;c&#x27;"),
    ],
)
def test_words_are_bold_and_code_is_set_apart(text, shown):
    assert as_html(text) == shown


OPERANDS = st.integers(0, 99).map(str) | st.sampled_from(["a", "n", "x", "f(x)", "(a+b)", "a_1", "|x|", "[1]", "n!"])
SIGNS = st.just("**") | st.sampled_from(["*", "**", "+", "-", "/", "<", ">", "=", "^", "<=", "_"])
SPACES = st.sampled_from(["", " "])
OPERATORS = st.tuples(SPACES, SIGNS, SPACES).map("".join)
BEFORE = st.sampled_from(["", "so ", "1. ", "- ", "we have that ", "Answer: "])
AFTER = st.sampled_from(["", ".", " and", ", so x"])


@st.composite
def expressions(draw):
    """Operands and operators, with spaces wherever there may be some."""
    first = draw(OPERANDS)
    rest = draw(st.lists(st.tuples(OPERATORS, OPERANDS), min_size=1, max_size=8))
    return first + "".join(operator + operand for operator, operand in rest)


@given(expressions(), BEFORE, AFTER)
def test_mathematics_is_shown_sign_by_sign(expression, before, after):
    text = f"{before}{expression}{after}"
    assert "".join(span.text for span in spans(text)) == text


MARKDOWN = [
    "**", "*", "__", "_", "`", "``", "```", "\n```\n", "~~~", "#", "## ", "\n", "\n\n", " ", "  \n", "- ", "1. ",
    "7) ", "> ", "[", "]", "(", ")", "](", "]: ", "![", "<", ">", "<!--", "-->", "<b>", "</div>", "&lt;", "&#x202e;",
    "&#8203;", "&#xE0041;", "|", "---", "===", "~~", "[bold]", "[/]", "[@click=x]", ":smile:", "http://a.b", "word",
    "two words", "x", "2", "=", "+", "\x1b[31m", "\x9b", "\u202e", "\u200b", "\ufe0f", "\U000e0041", "\u2028", "\r\n",
    "\t", "宽", "é", "\ufffc",
]  # fmt: skip
LATEX = [
    "\\frac", "\\frac{1}{2}", "{", "}", "^", "_", "$", "$$", "\\[", "\\]", "\\(", "\\)", "\\begin{pmatrix}", "&",
    "\\\\", "\\end{pmatrix}", "\\sqrt", "\\sqrt[3]{5}", "\\left", "\\boxed{", "\\text{", "\\over", "%", "\\foo",
    "\\alpha", "\\color{red}", "\\color{secret}", "\\hspace{1cm}", "\\label{q}", "\\today", "\\%", "\\hat",
    "\\cancel{4}", "\\not", "$x$", "$5",
]  # fmt: skip


def texts(parts):
    return st.lists(st.sampled_from(parts) | st.text(max_size=4), max_size=30).map("".join)


@given(texts(MARKDOWN))
@example("**a** **b** `**c**` **")
@example(EVIL)
def test_without_formulas_only_stars_around_bold_words_are_left_out(text):
    text = text.replace("\\", "/").replace("$", "€")
    shown = "".join(span.text for span in spans(text))
    written = clean(text).rstrip().lstrip("\n")
    assert shown.replace("*", "") == written.replace("*", "")
    gone = 0
    for run, left in zip(re.findall(r"\*+", written), stars(written, shown), strict=True):
        assert left in (len(run), 0) and (left or len(run) == 2)
        gone += not left
    assert gone % 2 == 0
    assert gone == 0 or any(span.bold for span in spans(text))


def stars(written, shown):
    """How many stars of each run of them in `written` are left in `shown`."""
    place = 0
    for piece in re.findall(r"\*+|[^*]+", written):
        if piece[0] != "*":
            assert shown.startswith(piece, place)
            place += len(piece)
            continue
        left = len(piece) if shown.startswith(piece, place) else 0
        place += left
        yield left


@given(texts(MARKDOWN + LATEX))
@example("$\\color{secret}5$ and $\\today$ and $\\sqrt[3]{5}$")
def test_every_letter_and_digit_of_a_formula_is_drawn(text):
    """But for names of commands, and for arguments that only say how wide or coloured something is."""
    shown, written = counted("".join(span.text for span in spans(text))), counted(LAYOUT.sub(" ", clean(text)))
    assert not written - shown
    named = counted("".join(re.findall(r"\\[a-zA-Z]+|\{[a-z]+\}|\d", clean(text))))
    assert all(shown[char] <= written[char] + named[char] for char in "0123456789")


LAYOUT = re.compile(r"\\(?:begin|end)\{pmatrix\}|\\color\{red\}|\\hspace\{1cm\}|\\[a-zA-Z]+")


def counted(text):
    plain = unicodedata.normalize("NFKD", text.replace("∛", "3√").replace("∜", "4√"))
    return Counter(char for char in plain if unicodedata.category(char)[0] in "LN")


@given(texts(MARKDOWN + LATEX), st.integers(20, 100))
@example("word " * 40 + "x" * 300, 20)
def test_nothing_is_lost_or_obeyed_on_a_terminal_or_on_a_page(text, width):
    said = "".join(span.text for span in spans(text))
    assert not any(is_hidden(char) for char in said if char != "\n")
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(as_rich(text))
    assert visible(out.getvalue()) == visible(said)
    page = as_html(text)
    assert set(re.findall(r"<[^>]*>", page)) <= {"<b>", "</b>", "<code>", "</code>"}
    assert unescape(re.sub(r"</?(?:b|code)>", "", page)) == said


def visible(text):
    return [char for char in text if not char.isspace()]


HOSTILE = [*WRITTEN_AS_SHOWN, EVIL.replace("\ud800", ""), "**Step 1:** $\\frac{1}{2}$ is `1/2`\n```\n2**3\n```"]


class Panel(App):
    def compose(self):
        yield StepView()


@pytest.mark.parametrize("width", [30, 80])
async def test_the_panel_shows_problem_and_steps_as_they_were_written(width):
    app = Panel()
    async with app.run_test(size=(width, 60)) as pilot:
        for text in HOSTILE:
            tree = SearchTree.fold(
                [start(text), *finished_step(1, 0, "before: " + text, 0.5), *finished_step(2, 1, text)]
            )
            for id in (0, 2):
                app.query_one(StepView).put(tree, id)
                await pilot.pause()
                shown = [strip.text for strip in app.screen._compositor.render_strips()]
                panel = visible("".join(shown))
                said = visible("".join(span.text for span in spans(text)))
                assert "".join(said) in "".join(panel)
                assert all(char.isprintable() for line in shown for char in line)


def test_a_step_stands_below_the_steps_before_it():
    tree = SearchTree.fold([start("p"), *finished_step(1, 0, "one: $x^2$\n\n"), *finished_step(2, 1, "two")])
    out = io.StringIO()
    Console(file=out, width=40, color_system=None).print(whole(tree, tree.nodes[2]))
    assert out.getvalue().split() == ["one:", "x²", "two"]
