"""Formatting of text and numbers for people. Displays pass all model output through `clean` before they show it."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Any

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Hidden Unicode categories: controls (including escape), bidirectional and zero-width marks, tags, surrogates, private
and unassigned characters, and the two separators that only some terminals treat as the end of a line."""
_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Invisible marks: joiners and variation selectors, in which entire texts can be hidden."""


def is_hidden(char: str) -> bool:
    """Return whether a character must not be sent to a terminal unchanged. Tab and line feed count as hidden."""
    return unicodedata.category(char) in _CATEGORIES or _MARKS.match(char) is not None


class _Escapes(dict[int, str]):
    """A lazily filled table for `str.translate` that turns hidden characters into JSON escapes."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        # Control characters below the space can only stand between values: encoders escape them inside strings.
        shown = _escape(code) if code >= 0x20 and is_hidden(char) else char
        self[code] = shown
        return shown


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


_ESCAPES = _Escapes()


def escape_json(line: bytes) -> bytes:
    r"""Return JSON in which hidden characters are escaped, such as `\u202e`; it decodes to the same values.

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
    """A lazily filled table for `str.translate` that removes hidden characters; tabs and separators become spaces."""

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
    """Return `text` without characters that could control a terminal, or hide or reorder text. Line feeds are kept.

    Only the escape character of an escape sequence is removed and the rest is kept, so that no visible text disappears.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_TABLE)


def one_line(text: str, most: int = 400) -> str:
    """Return the beginning of `text` on one line: at most `most` characters, with white space collapsed."""
    line = " ".join(clean(text[: 4 * most]).split())
    cut = len(line) > most or len(text) > 4 * most
    return line[: most - 1].rstrip() + "…" if cut else line


def tail(text: str, most: int = 400) -> str:
    """Return the end of a growing `text` on one line: at most `most` characters, with white space collapsed."""
    line = " ".join(clean(text[-4 * most :]).split())
    cut = len(line) > most or len(text) > 4 * most
    return "…" + line[len(line) - most + 1 :].lstrip() if cut else line


def wrap(text: str, width: int, **settings: Any) -> list[str]:
    """Return the lines of `text`, wrapped as by `textwrap.wrap`, without separating numbers from percent signs."""
    lines = textwrap.wrap(text.replace(" %", "\N{NO-BREAK SPACE}%"), width, **settings)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def plural(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural, such as `1 step` and `2 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(number: float) -> str:
    """Return a number with three digits and a unit, such as `950`, `19.6k` and `1.20M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            share = number / size
            return f"{share:.{2 if share < 9.995 else 1 if share < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"


def percent(share: float) -> str:
    """Return a share as a percentage such as `78 %`, which is 0 % or 100 % only if the share is exactly 0 or 1."""
    if 0 < share < 1:
        share = min(max(share, 0.01), 0.99)
    return f"{share:.0%}".replace("%", " %")


def clock(seconds: float) -> str:
    """Return a duration in seconds as minutes and seconds, such as `00:42`, or with hours, such as `1:05:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def digits(score: float | None) -> str:
    """Return a score in three characters, such as `.81` and `1.0`; `  …` if there is none."""
    if score is None:
        return "  …"
    return f"{score:.2f}"[1:] if score < 0.995 else "1.0"


_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, *, blocks: bool = True) -> str:
    """Return a share (0 to 1) as a bar of exactly `width` characters.

    Args:
        share: The share; values outside of 0 to 1 are clipped.
        width: Width of the bar in characters.
        blocks: Draw with Unicode block characters, in eighths; otherwise with `#` and `-`.
    """
    share = min(max(share, 0.0), 1.0)
    if not blocks:
        full = round(share * width)
        return "#" * full + "-" * (width - full)
    full, rest = divmod(round(share * width * 8), 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
