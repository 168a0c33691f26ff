"""Text and numbers for people. What a model wrote passes through `clean` before any display shows it."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Any

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls (escape among them), bidirectional and zero-width marks, tags, surrogates, private and
unassigned characters, and the two separators that only some terminals take for an end of line."""
_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Marks that are drawn as nothing: joiners and variation selectors. Whole texts can be hidden in them."""


def is_hidden(char: str) -> bool:
    """Whether a character must not reach a terminal as it is. Tab and line feed count as hidden."""
    return unicodedata.category(char) in _CATEGORIES or _MARKS.match(char) is not None


class _Escapes(dict[int, str]):
    """A table for `str.translate` that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        # What is below the space stands between values: an encoder escapes it inside of them.
        shown = _escape(code) if code >= 0x20 and is_hidden(char) else char
        self[code] = shown
        return shown


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


_ESCAPES = _Escapes()


def escape_json(line: bytes) -> bytes:
    r"""JSON in which hidden characters are escapes such as `\u202e`; it decodes to the same values.

    Args:
        line: JSON in UTF-8.
    """
    if line.isascii() and b"\x7f" not in line:
        return line
    text = line.decode()
    if text.isprintable() and _MARKS.search(text) is None:
        return line
    return text.translate(_ESCAPES).encode()


class _Table(dict[int, str]):
    """A table for `str.translate` that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char
        if char in "\t\u2028\u2029":
            shown = " "
        elif char != "\n" and is_hidden(char):
            shown = ""
        self[code] = shown
        return shown


_TABLE = _Table()


def clean(text: str) -> str:
    """`text` without anything that could steer a terminal, hide or reorder what is shown. Line feeds stay.

    The escape character goes and the rest of an escape sequence stays, so that nothing that was written disappears.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_TABLE)


def one_line(text: str, most: int = 400) -> str:
    """The beginning of `text` on one line: at most `most` characters, white space collapsed."""
    line = " ".join(clean(text[: 4 * most]).split())
    cut = len(line) > most or len(text) > 4 * most
    return line[: most - 1].rstrip() + "…" if cut else line


def tail(text: str, most: int = 400) -> str:
    """The end of `text` on one line, as it is still growing."""
    line = " ".join(clean(text[-4 * most :]).split())
    cut = len(line) > most or len(text) > 4 * most
    return "…" + line[len(line) - most + 1 :].lstrip() if cut else line


def wrap(text: str, width: int, **settings: Any) -> list[str]:
    """`text` in lines, as `textwrap.wrap` makes them; a number stays with its percent sign."""
    lines = textwrap.wrap(text.replace(" %", "\N{NO-BREAK SPACE}%"), width, **settings)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def plural(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(number: float) -> str:
    """Three digits and a unit: `950`, `19.6k`, `1.20M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            share = number / size
            return f"{share:.{2 if share < 9.995 else 1 if share < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"


def percent(share: float) -> str:
    """`78 %`; never 100 % where something is missing, never 0 % where something is there."""
    if 0 < share < 1:
        share = min(max(share, 0.01), 0.99)
    return f"{share:.0%}".replace("%", " %")


def clock(seconds: float) -> str:
    """`00:42`, `1:05:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def digits(score: float | None) -> str:
    """A score in three characters: `.81`, `1.0`; `  …` where there is none."""
    if score is None:
        return "  …"
    return f"{score:.2f}"[1:] if score < 0.995 else "1.0"


_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, *, blocks: bool = True) -> str:
    """`share` (0 to 1) as a bar of exactly `width` characters."""
    share = min(max(share, 0.0), 1.0)
    if not blocks:
        full = round(share * width)
        return "#" * full + "-" * (width - full)
    full, rest = divmod(round(share * width * 8), 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
