"""Extraction of answers from solutions, and canonical forms of answers.

`extract` follows the order of the paper's code, except that the last number is not taken from a solution that was cut
off. `canonical` maps answers that mean the same to one string, without a computer algebra system: it is cheap enough
for every vote, never evaluates model output, and, being a function, makes groups that cannot overlap.
"""

from __future__ import annotations

import re
from fractions import Fraction

_FINAL = re.compile(r"final answer is:?\s*\$([^$]{1,500})\$\.?\s*I hope")
_SAYS = re.compile(r"answer is:?\s*(.+?)\s*(?:\.\s|\.?$|\n)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?")
_LEADING = re.compile(r"^\$?(-?[\d.,/]*\d)\$?(?=,?\s+(?:because|since|as|so|and|which)\b)")
_BOX = re.compile(r"\\f?boxed\s*")
_LONGEST = 2000
"""Maximum length of an answer in characters; a longer text is not an answer but runaway output."""
_BOXES = 20
"""Number of boxes examined, from the end."""


def boxed(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{...}` (or `\boxed 5`), braces matched; None if there is none."""
    for match in list(_BOX.finditer(text))[: -_BOXES - 1 : -1]:
        content = _braced(text, match.end())
        if content is None and match.end() < len(text) and text[match.end()] not in "{}":
            content = text[match.end() :].split()[0].rstrip("$.,")
        if content is not None and content.strip():
            return content.strip()
    return None


def _braced(text: str, start: int) -> str | None:
    """Return the text between the brace at `start` and the matching one; None if either is missing."""
    if not text.startswith("{", start):
        return None
    level = 0
    for place in range(start, min(len(text), start + _LONGEST)):
        char = text[place]
        if char in "{}" and text[place - 1] != "\\":
            level += 1 if char == "{" else -1
            if level == 0:
                return text[start + 1 : place]
    return None


def extract(text: str, *, finished: bool = True) -> str | None:
    r"""Return the answer that a solution states, as written; None if there is none.

    Sources, in this order: the last `\boxed{}`, "final answer is $...$. I hope", "answer is ...", and the last number.

    Args:
        text: The text of the solution.
        finished: False if the solution was cut off. The last number is then ignored, because it is probably an
            intermediate result.
    """
    answer = boxed(text)
    if answer is None and (match := _FINAL.search(text)):
        answer = match[1]
    if answer is None and (said := _SAYS.findall(text[-_LONGEST:])):
        short = _LEADING.match(said[-1])
        answer = None if _BOX.search(said[-1]) else short[1] if short else said[-1]
    if answer is None and finished and (numbers := _NUMBER.findall(text[-_LONGEST:])):
        answer = numbers[-1]
    if answer is None:
        return None
    answer = answer.strip().strip("$").strip()
    return answer if 0 < len(answer) <= _LONGEST and canonical(answer) else None


_EMPTY = re.compile(r"\\varnothing(?![a-z])|\\lbrace\s*\\rbrace")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad(?![a-z])|~")
_DROP = re.compile(  # sizes, degrees, percent, currency, math delimiters
    r"\\(?:left|right)(?![a-z])|\\displaystyle(?![a-z])|(?:\{\})?\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-z])"
    r"|\\?%|\\?\$|\\\(|\\\)|\\\[|(?<!\\)\\\]|(?<!\\)\\!|[€£]"
)
_WORD = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|textit|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?:(?<=[\d})])|(?<=\\pi))\s*\\(?:text|mathrm|mbox)\s*\{\s*[^{}\d]*\}(?:\s*\^\s*\{?\d\}?)?\s*$")
_SHORT_FRAC = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_SCRIPT = re.compile(r"([\^_])\{(\w)\}")
_MIXED = re.compile(r"^(-?)(\d+)(?: (\d+)/(\d+)|\\frac\{(\d+)\}\{(\d+)\})$")
_THOUSANDS = re.compile(r"^-?\d{1,3}( \d{3})+$")
_SPELLED_UNIT = re.compile(r"(?<=\d)(?:\s+[a-zA-Z]{2,}(?:\^\d)?)+$")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d)")
_VARIABLE = re.compile(r"^[a-zA-Z]\s*(?:=|\\in(?![a-z]))\s*")
_GROUPED = re.compile(r"^-?\d{1,3}(,\d{3})+(\.\d+)?$")
_RATIO = re.compile(r"^(-?)\\frac\{(-?\d+(?:\.\d+)?)\}\{(-?\d+(?:\.\d+)?)\}$|^(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)$")
_DECIMAL = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$")
_REPEATING = re.compile(r"^([+-]?)(\d*)\.(\d*)\\overline\{?(\d+)\}?$")
_OPEN, _CLOSE = "([{", ")]}"


def tidy(answer: str) -> str:
    r"""Return an answer as LaTeX, without parts that do not change its meaning.

    Delimiter sizes, degrees, percent signs, units and currency are removed, and fractions are written in one way.
    Visible braces become `\lbrace` and `\rbrace`.
    """
    text = answer.strip().rstrip(".").replace("\u2212", "-").replace("\\{", "\\lbrace ").replace("\\}", "\\rbrace ")
    text = text.replace("{,}", ",").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _DROP.sub("", _SPACE.sub(" ", _EMPTY.sub(r"\\emptyset", text)))
    text = _UNIT.sub("", text)
    text = _WORD.sub(r"\1", text).strip()
    text = _SPELLED_UNIT.sub("", text)
    text = _SHORT_FRAC.sub(lambda m: f"\\frac{{{m[1] or m[2] or ''}}}{{{m[3] or m[4] or ''}}}", text)
    text = _SCRIPT.sub(r"\1\2", text)
    return _SHORT_ROOT.sub(r"\\sqrt{\1}", text)


def canonical(answer: str, *, variable: bool = True) -> str:
    r"""Return a string that is equal for answers that mean the same; empty if the answer has no content.

    Numbers become reduced fractions (`0.5`, `.5`, `1/2`, `\frac12` and `\dfrac{1}{2}` are one; `1,000` is 1000; `50\%`
    is 50, as MATH writes it). Lists are compared element by element, unordered where no bracket says otherwise. Dollar
    signs, degrees, spacing, `\text{}`, trailing units and a leading `x =` do not count. Brackets do: `(1,2]` is not
    `[1,2)`. With `variable` False a leading `x =` counts.
    """
    text = tidy(answer)
    if variable and text.count("=") <= 1:
        text = _VARIABLE.sub("", text)
    if re.fullmatch(r"\(\s*[A-Za-z]\s*\)", text):
        text = text.strip("() ")
    # White space matters only between two digits, where removing it would make another number.
    compact = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"\s+", " ", text))
    if not compact:
        return ""
    if _GROUPED.match(text) or _THOUSANDS.match(compact):
        compact = compact.replace(",", "").replace(" ", "")
    number = _number(compact)
    if number is not None:
        return number
    if compact.startswith("\\lbrace") and compact.endswith("\\rbrace"):
        inside = sorted(canonical(part, variable=False) for part in _split(compact[7:-7]))
        return "\\lbrace " + ",".join(inside) + "\\rbrace"
    parts = _split(compact)
    if len(parts) > 1:
        return ",".join(sorted(canonical(part, variable=False) for part in parts))
    if compact[0] in "([" and compact[-1] in ")]" and len(inner := _split(compact[1:-1])) > 1:
        return compact[0] + ",".join(canonical(part, variable=False) for part in inner) + compact[-1]
    if re.fullmatch(r"[A-Za-z][A-Za-z \-']+", text) and re.search(r"[A-Za-z]{3}|^[Nn]o$", text):
        return " ".join(text.casefold().split())
    return compact


def same(left: str, right: str) -> bool:
    """Return whether two answers have the same canonical form, which is not empty."""
    return canonical(left) == canonical(right) != ""


def _number(text: str) -> str | None:
    """Return a number in lowest terms; None if the text is not a number. Never evaluates an expression."""
    if len(text) > 200:
        return None
    if _DECIMAL.match(text):
        return str(Fraction(text))
    if match := _REPEATING.match(text):
        sign, before, after, again = match.groups()
        once = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(after))
        value = Fraction(f"{before or 0}.{after or 0}") + once
        return str(-value if sign == "-" else value)
    if match := _MIXED.match(text):
        sign, whole, top, bottom, above, below = match.groups()
        if int(bottom or below) == 0:
            return None
        mixed = int(whole) + Fraction(int(top or above), int(bottom or below))
        return str(-mixed if sign else mixed)
    if match := _RATIO.match(text):
        sign, top, bottom, left, right = match.groups()
        try:
            value = Fraction(top or left) / Fraction(bottom or right)
        except ZeroDivisionError:
            return None
        return str(-value if sign else value)
    return None


def _split(text: str) -> list[str]:
    """Split at commas outside of all brackets; a text with an empty element is not split."""
    parts, level, start = [], 0, 0
    for place, char in enumerate(text):
        if char in _OPEN:
            level += 1
        elif char in _CLOSE:
            level -= 1
        elif char == "," and level == 0:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    return parts if all(parts) else [text]
