"""Text by models and users as styled spans, for the terminal and for pages.

Models mix Markdown and mathematics, which share their signs: rendered as Markdown, `2*3*4` loses its stars and
`a<b and c>d` all but two letters. So only Markdown that cannot be mathematics is recognised, and only for its style.
The text stays unchanged, except that

- formulas in LaTeX are converted (`tts_tui.displays.latex`),
- the stars around bold words are left out,
- hidden characters are left out (`tts_tui.formatting`), and white space at both ends.

Lists, tables, links, HTML and character references are shown as typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from tts_tui.displays.latex import pieces
from tts_tui.formatting import clean

if TYPE_CHECKING:
    from rich.text import Text

CODE, BOLD = "cyan", "bold"
"""Styles for the terminal."""

_OTHER = "\ufffc"
"""Placeholder for each character of a formula or of code during the search for emphasis."""
_HEADING = re.compile(r"^ {0,3}#{2,6}[ \t]+(?=\S)", re.MULTILINE)
_STARS = re.compile(r"(?<![\w*\\)\]}])\*\*(?![\s*])(?P<inner>[^*\n]{1,400}?)(?<![\s\\])\*\*(?![\w*])")
_NO_BASE = re.compile(r"(?:^|[:;,?(\[\"“‘—=<>≤≥≠≈→⇒]|[^\W\d_]{2}\.)$|^\s*(?:[-+*•|]|\d{1,3}[.)]|#{1,6})$")
"""Ends of text before stars that cannot be a power, because there is no base."""
_WORD = r"[^\W\d_]{2,}"
_WORD_BEFORE = re.compile(rf"(?<!\w){_WORD}$")
_WORD_AFTER = re.compile(rf"\s*(?:[.,;:?)\"”’—]|{_WORD}(?!\w)|$)")
_TWO_WORDS = re.compile(rf"{_WORD}[ \t]+{_WORD}")
_SIGNS = re.compile(rf"[+*/^=<>|\\_{_OTHER}]|(?<![^\W\d_]{{2}})-|-(?![^\W\d_]{{2}})")
_AROUND = 200
"""Number of characters before and after bold text that are examined."""
_RUNS = re.compile(rb"(.)\1*", re.DOTALL)
_IS_BOLD, _IS_CODE, _IS_STAR = 1, 2, 4


class Span(NamedTuple):
    """Text in a single style."""

    text: str
    bold: bool = False
    code: bool = False


def spans(text: str) -> list[Span]:
    """Split `text` into spans, which are safe to show as they are."""
    parts = pieces(clean(text).rstrip().lstrip("\n"))
    shown = "".join(part.text for part in parts)
    looks = bytearray(len(shown))
    place = 0
    for part in parts:
        if part.kind == "code":
            looks[place : place + len(part.text)] = bytes([_IS_CODE]) * len(part.text)
        place += len(part.text)
    for start, end, look in _emphasis("".join(p.text if p.kind == "text" else _OTHER * len(p.text) for p in parts)):
        for place in range(start, end):
            looks[place] |= look
    runs = ((run[1][0], shown[run.start() : run.end()]) for run in _RUNS.finditer(looks))
    return [Span(clean(run), bool(look & _IS_BOLD), bool(look & _IS_CODE)) for look, run in runs if not look & _IS_STAR]


def _emphasis(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the ranges of bold text, and those of stars that are not shown."""
    for heading in _HEADING.finditer(text):
        end = text.find("\n", heading.end())
        yield heading.end(), len(text) if end < 0 else end, _IS_BOLD
    place = 0
    while (found := _STARS.search(text, place)) is not None:
        place = found.start() + 2
        if _is_bold(text, found):
            place = found.end()
            yield found.start("inner"), found.end("inner"), _IS_BOLD
            yield found.start(), found.start("inner"), _IS_STAR
            yield found.end("inner"), found.end(), _IS_STAR


def _is_bold(text: str, found: re.Match[str]) -> bool:
    """Return whether two pairs of stars cannot be powers: the first has no base, or they are in a sentence."""
    first, last = max(0, found.start() - _AROUND), found.end() + _AROUND
    before = ("x" * (first > 0) + text[first : found.start()]).rpartition("\n")[2].rstrip()
    after = text[found.end() : last].partition("\n")[0]
    if _NO_BASE.search(before):
        return True
    if not _WORD_BEFORE.search(before) or not _WORD_AFTER.match(after):
        return False
    sides = [_STARS.sub("", side) for side in (before, after)]
    return any(map(_TWO_WORDS.search, sides)) and not any(map(_SIGNS.search, sides))


def as_rich(text: str, style: str = "") -> Text:
    """Return `text` styled for the terminal.

    Args:
        text: Any text.
        style: The base style of all of it.
    """
    from rich.text import Text

    drawn = Text(style=style)
    for span in spans(text):
        drawn.append(span.text, " ".join([BOLD] * span.bold + [CODE] * span.code))
    return drawn


def as_html(text: str) -> str:
    """Return `text` as HTML, for a page that preserves white space."""
    return "".join(map(_html, spans(text)))


def _html(span: Span) -> str:
    shown = escape(span.text, quote=True)
    shown = f"<code>{shown}</code>" if span.code else shown
    return f"<b>{shown}</b>" if span.bold else shown
