r"""The structure of answers: lists, sets, tuples, intervals, unions, matrices and relations.

Computer algebra systems parse a complete answer too generously: `(1,2)` is a list to them, `Friday` a product of six
symbols, `10_2` is ten. An answer is therefore split into its parts here, algebra sees only the parts that are
expressions, and everything else is compared here as text. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from tts_tui.answers.canonical import canonical, tidy


class Algebra(Protocol):
    """An algebra system that compares expressions, given as LaTeX."""

    def equal(self, left: str, right: str) -> bool:
        """Return whether both expressions have the same value for all values of their variables."""
        ...

    def proportional(self, left: str, right: str) -> bool:
        """Return whether one expression is a multiple of the other, so that both have the same zeros."""
        ...


class Form(Struct, frozen=True):
    """The structure of an answer.

    Attributes:
        kind: "bag": parts in any order; "row": parts in order; "assigned": a name and its value; "equation": two
            sides; "plain": an expression or words, as the only part.
        parts: The parts, as LaTeX.
        mark: Properties that must be equal in addition to the parts: brackets, the size of a matrix, relation signs.
    """

    kind: Literal["bag", "row", "assigned", "equation", "plain"]
    parts: tuple[str, ...]
    mark: str = ""


_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPENS = frozenset(["(", "[", "{", "\\lbrace", "\\langle", "\\begin", "\\lfloor", "\\lceil"])
_CLOSES = frozenset([")", "]", "}", "\\rbrace", "\\rangle", "\\end", "\\rfloor", "\\rceil"])
_RELATIONS = {
    "=": "=", "\\approx": "=", "<": "<", "\\lt": "<", ">": ">", "\\gt": ">", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "≤": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "≥": ">=", "\\in": "in",
    "\\ne": "!=", "\\neq": "!=", "≠": "!=",
}  # fmt: skip
_TURNED = {">": "<", ">=": "<="}
_EITHER = re.compile(r"(?<![a-zA-Z])\s*\\?\b(?:or|and)\b\s*|\\lor(?![a-z])|\\land(?![a-z])")
_NAME = re.compile(r"^\\?[a-zA-Z]+$|^[a-zA-Z](?:_\w|_\{\w+\})?(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?$")
_VARIABLE = re.compile(r"^(?:[a-zA-Z]|\\(?:theta|alpha|beta|lambda|phi))$")
_MATRIX = re.compile(r"^\\begin\{([pbBvV]?)matrix\}(.*)\\end\{\1matrix\}$", re.DOTALL)
_GROUPED = re.compile(r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_ALL = frozenset(["\\mathbb{r}", "\\mathbb r", "\\r", "all real numbers", "all reals"])
_CHOICE = re.compile(r"^\(?([A-J])[).:]\s*\S")
_BASE = re.compile(r"^(\w+)_\{?(\d+)\}?$")
_LETTERS = re.compile(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|[a-zA-Z]+")
_FUNCTIONS = frozenset(
    [
        "arccos", "arcsin", "arctan", "cos", "cosh", "cot", "csc", "det", "exp", "gcd", "lcm", "lim", "ln", "log",
        "max", "min", "mod", "sec", "sin", "sinh", "tan", "tanh",
    ]
)  # fmt: skip
_NUMBERS = re.compile(r"-?\d+(?:/\d+)?(?:,-?\d+(?:/\d+)?)*|[(\[]-?\d+(?:/\d+)?(?:,-?\d+(?:/\d+)?)+[)\]]")
_MOST = 200
"""Maximum number of parts of a list that is compared."""


def split(text: str, at: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split `text` at separators outside of all brackets, and return the pieces and the separators.

    Args:
        text: LaTeX.
        at: The separators, each one token of LaTeX.
    """
    separators = frozenset(at)
    pieces, found, level, start = [], [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _OPENS:
            level += 1
        elif token in _CLOSES:
            level -= 1
        elif level == 0 and token in separators:
            pieces.append(text[start : match.start()].strip())
            found.append(token)
            start = match.end()
    pieces.append(text[start:].strip())
    return pieces, found


def form(text: str) -> Form:
    """Return the structure of an answer that was passed through `tidy`."""
    text = text.strip()
    if _GROUPED.match(text):
        return Form("plain", (text.replace(",", ""),))
    if text.casefold() in _ALL:
        return Form("row", ("-\\infty", "\\infty"), "()")
    if is_words(text):
        return Form("plain", (text,))
    return _listed(text) or _enclosed(text) or _related(text) or _signed(text) or Form("plain", (text,))


def _listed(text: str) -> Form | None:
    either = "\\cup" in text or bool(_EITHER.search(text))
    parts, _ = split(_EITHER.sub(",", text), [",", ";", "\\cup"])
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return None
    if either and all(form(part).mark in _INTERVALS for part in parts):
        return Form("bag", tuple(parts), "union")
    flat = [signed for part in parts for signed in _expanded(part)]
    return Form("bag", tuple(flat), "union" if "\\cup" in text else "")


_INTERVALS = frozenset(["()", "(]", "[)", "[]"])


def _enclosed(text: str) -> Form | None:
    if match := _MATRIX.match(text):
        rows = [split(row, "&")[0] for row in split(match[2], ["\\\\"])[0] if row]
        kind = "det" if match[1] == "v" else "norm" if match[1] == "V" else "matrix"
        return Form("row", tuple(cell for row in rows for cell in row), f"{kind} {[len(row) for row in rows]}")
    tokens = _TOKEN.findall(text)
    if len(tokens) < 3 or tokens[0] not in _OPENS or tokens[-1] not in _CLOSES or not _closes_last(tokens):
        return None
    inside = "".join(tokens[1:-1]).strip()
    parts, commas = split(inside, [","])
    if tokens[0] == "\\lbrace" and tokens[-1] == "\\rbrace":
        if split(inside, ["|", "\\mid", ":"])[1]:
            return None
        flat = [signed for part in parts for signed in _expanded(part)]
        return form(flat[0]) if len(flat) == 1 else Form("bag", tuple(flat))
    if tokens[0] == "{" and tokens[-1] == "}":
        return form(inside)
    if commas and all(parts):
        mark = "()" if tokens[0] == "\\langle" else tokens[0] + tokens[-1]
        return Form("row", tuple(parts), mark)
    return None


def _closes_last(tokens: Sequence[str]) -> bool:
    """Return whether the first token, a bracket, is closed by the last one."""
    level = 0
    for place, token in enumerate(tokens):
        level += (token in _OPENS) - (token in _CLOSES)
        if level == 0:
            return place == len(tokens) - 1
    return False


def _related(text: str) -> Form | None:
    parts, found = split(text, _RELATIONS)
    if not found or not all(parts):
        return None
    signs = [_RELATIONS[token] for token in found]
    if signs == ["in"] and _NAME.match(parts[0]):
        return form(parts[1])
    if signs == ["="] and _NAME.match(parts[1]) and not _NAME.match(parts[0]):
        parts.reverse()
    if set(signs) == {"="} and (_NAME.match(parts[0]) or not _has_letters(parts[-2])):
        name = parts[0] if _NAME.match(parts[0]) else ""
        return Form("assigned", (name, parts[-1]))
    if signs == ["="]:
        return Form("equation", tuple(parts))
    if all(sign in _TURNED for sign in signs):
        parts, signs = parts[::-1], [_TURNED[sign] for sign in signs[::-1]]
    return _interval(parts, signs) or Form("row", tuple(parts), " ".join(signs))


def _interval(parts: list[str], signs: list[str]) -> Form | None:
    """Return an inequality such as `a < x` as an interval of its only variable; None for any other relation."""
    if any(sign not in ("<", "<=") for sign in signs):
        return None
    if len(parts) == 2 and _VARIABLE.match(parts[0]):
        parts, signs = ["-\\infty", *parts], ["<", *signs]
    elif len(parts) == 2 and _VARIABLE.match(parts[1]):
        parts, signs = [*parts, "\\infty"], [*signs, "<"]
    if len(parts) != 3 or not _VARIABLE.match(parts[1]):
        return None
    return Form("row", (parts[0], parts[2]), ("[" if signs[0] == "<=" else "(") + ("]" if signs[1] == "<=" else ")"))


def _signed(text: str) -> Form | None:
    both = _expanded(text)
    return Form("bag", tuple(both)) if len(both) == 2 else None


def _expanded(text: str) -> list[str]:
    r"""Return the two values of `a \pm b`; any other text as the only element."""
    if not re.search(r"\\(?:pm|mp)(?![a-z])|±", text):
        return [text]
    upper = re.sub(r"\\pm(?![a-z])|±", "+", re.sub(r"\\mp(?![a-z])", "-", text))
    lower = re.sub(r"\\pm(?![a-z])|±", "-", re.sub(r"\\mp(?![a-z])", "+", text))
    return [upper.strip().removeprefix("+").strip(), lower]


def _has_letters(text: str) -> bool:
    return bool(re.search(r"(?<![a-zA-Z\\])[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", text)))


def is_words(text: str) -> bool:
    """Return whether an answer consists of words, which algebra would read as products of their letters."""
    bare = [word for word in _LETTERS.findall(text) if not word.startswith("\\") and word not in _FUNCTIONS]
    if re.fullmatch(r"[A-Za-z][A-Za-z \-'.]*", text):
        return any(len(word) > 2 or (len(word) > 1 and word != word.lower()) for word in bare)
    return any(len(word) > 3 for word in bare)


def is_simple(form: str) -> bool:
    """Return whether a canonical form is simple: a number, a list or tuple of numbers, a letter, or words.

    Two simple forms mean the same only if they are equal.
    """
    return bool(_NUMBERS.fullmatch(form)) or (len(form) == 1 and form.isalpha()) or is_words(form)


def agree(left: str, right: str, algebra: Algebra, *, names: bool = False) -> bool:
    """Return whether two answers mean the same.

    Args:
        left: An answer, as written.
        right: Another answer, as written.
        algebra: The algebra that compares expressions.
        names: True if the name before an equals sign matters, as it does inside lists.
    """
    one, two = canonical(left, variable=not names), canonical(right, variable=not names)
    if not one or not two:
        return False
    return one == two or _agree(form(tidy(left)), form(tidy(right)), algebra, names)


def _agree(left: Form, right: Form, algebra: Algebra, names: bool) -> bool:
    kinds = {left.kind, right.kind}
    if kinds <= {"assigned", "equation", "plain"} and kinds != {"plain"}:
        return _sides_agree(left, right, algebra, names)
    if left.kind != right.kind or left.mark != right.mark or len(left.parts) != len(right.parts):
        return False
    if left.kind == "plain":
        return _plain_agree(left.parts[0], right.parts[0], algebra)
    if len(left.parts) > _MOST:
        return False
    if left.kind == "row":
        return all(agree(a, b, algebra, names=True) for a, b in zip(left.parts, right.parts, strict=True))
    rest = list(right.parts)
    for part in left.parts:
        place = next((n for n, other in enumerate(rest) if agree(part, other, algebra, names=True)), None)
        if place is None:
            return False
        rest.pop(place)
    return True


def _sides_agree(left: Form, right: Form, algebra: Algebra, names: bool) -> bool:
    """Compare answers that may have two sides: `x = 5` equals 5, and an equation equals any multiple of itself."""
    if "equation" in (left.kind, right.kind):
        if "plain" in (left.kind, right.kind):
            return False
        return algebra.proportional(_difference(left), _difference(right))
    if left.kind == right.kind == "assigned":
        if left.parts[0] == right.parts[0]:
            return agree(left.parts[1], right.parts[1], algebra)
        return (not names and agree(left.parts[1], right.parts[1], algebra)) or (
            _has_letters(left.parts[1]) and algebra.proportional(_difference(left), _difference(right))
        )
    return agree(left.parts[-1], right.parts[-1], algebra)


def _difference(sides: Form) -> str:
    return f"({sides.parts[0]})-({sides.parts[1]})"


def _plain_agree(left: str, right: str, algebra: Algebra) -> bool:
    if is_words(left) or is_words(right) or _differ_in_case(left, right):
        return False
    for choice, letter in ((_CHOICE.match(left), right), (_CHOICE.match(right), left)):
        if choice and choice[1] == letter:
            return True  # the letter of a choice, and the choice with its text
    one, two = _BASE.match(left), _BASE.match(right)
    if one and two:
        return one[1] == two[1] and one[2] == two[2]
    if one or two:  # the problem states the base, so an answer may omit it
        based, other = (one, right) if one else (two, left)
        return based is not None and based[1] == other
    if left.count(":") > 1 or right.count(":") > 1:
        pieces, others = left.split(":"), right.split(":")
        return len(pieces) == len(others) and all(map(lambda a, b: agree(a, b, algebra), pieces, others))
    return algebra.equal(left, right)


def _differ_in_case(left: str, right: str) -> bool:
    """Return whether a letter occurs only in upper case in one of the texts, and only in lower case in the other."""
    one, two = _letters(left), _letters(right)
    return any(letter.swapcase() in two - one and letter not in two for letter in one)


def _letters(text: str) -> set[str]:
    return set("".join(word for word in _LETTERS.findall(text) if not word.startswith("\\")))
