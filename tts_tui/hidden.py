"""Characters that are no visible text: what a terminal obeys, reorders or hides."""

from __future__ import annotations

import re
import unicodedata

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
