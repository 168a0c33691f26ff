"""Conversion of LaTeX formulas in a text to readable text; code and all other text stay unchanged."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tts_tui.displays import formula

MOST = 50_000
"""Maximum number of characters of formulas converted in one text (about half a second); the rest stays raw."""

_FAMILIAR = "boxed|fbox|frac|dfrac|tfrac|sqrt|binom|text|textbf|textit|textrm|emph|mathrm|mathbf|overline|underline"
_BEGINNING = re.compile(
    r"(?P<fence>^[ \t]*(?:`{3,}(?=[^`\n]*$)|~{3,}))"
    r"|(?P<code>`+)"
    rf"|\\(?P<macro>{_FAMILIAR})(?P<group>\s?\{{)"
    r"|\\begin\{(?P<environment>[a-zA-Z]+\*?)\}"
    r"|\\(?P<escaped>[$%&#])"
    r"|(?P<bracket>\\[(\[])"
    r"|(?P<pass>\\.)"
    r"|(?P<dollars>\$\$?)",
    re.MULTILINE | re.DOTALL,
)
_PIECES = re.compile(r"\\.|[{}]|\$\$?", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_AMOUNT = re.compile(r"\d[\d,]*(?:\.\d+)?(?:[-–—\s.,;:!?)]|$)")
_PROSE = re.compile(r"\s[^\W\d_]{2,}|[^\W\d_]{2,}\s")
_SIGNAL = re.compile(r"[\\^_=<>+{}]|^\s*[^\W\d_]\s*$")
_PUNCTUATION = re.compile(r"[ \t]*([.,;:!?]*)[ \t]*(\n?)")
_PARAGRAPH_ENDS = re.compile(r"[ \t]*(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text as it is shown: raw `code`, a converted `formula`, or plain `text`."""

    text: str
    kind: Literal["text", "code", "formula"] = "text"


@dataclass(frozen=True, slots=True)
class _Found:
    """A part of the text from `start` to `end`: a formula with its delimiters, or code."""

    start: int
    end: int
    source: str
    display: bool = False
    code: bool = False


def readable(text: str) -> str:
    r"""Convert the formulas in `text` to readable text: `$x^2$` becomes `x²`, `\boxed{7}` becomes `⟦7⟧`.

    Formulas are text in `$…$`, `$$…$$`, `\(…\)` or `\[…\]`, environments such as `align*`, and `\boxed{…}`
    and a few more macros anywhere. Code stays unchanged, and so do amounts of money and formulas that cannot be parsed.

    Args:
        text: Any text; it may end anywhere.
    """
    return "".join(piece.text for piece in pieces(text))


def pieces(text: str) -> list[Piece]:
    """Return the parts of `readable(text)`, in order."""
    shown: list[Piece] = []
    place = spent = 0
    for found in _Finder(text).all():
        if found.start < place:
            continue
        if found.code:
            shown += Piece(text[place : found.start]), Piece(text[found.start : found.end], "code")
            place = found.end
            continue
        if found.source in "$%&#":
            shown += Piece(text[place : found.start]), Piece(found.source)
            place = found.end
            continue
        if spent + len(found.source) > MOST:
            break
        spent += len(found.source)
        drawn = formula.convert(found.source)
        if drawn is None:
            continue
        shown.append(Piece(text[place : found.start]))
        place = found.end
        if found.display:
            place = _put_display(shown, drawn, text, place)
        else:
            shown.append(Piece(drawn.replace(formula.ROW, "; "), "formula"))
    shown.append(Piece(text[place:]))
    return [piece for piece in shown if piece.text]


def _put_display(shown: list[Piece], drawn: str, text: str, place: int) -> int:
    """Add a formula on lines of its own, and return the position where the text continues."""
    stop = _PUNCTUATION.match(text, place)
    assert stop is not None
    before = "".join(piece.text for piece in shown[-2:])
    if before.strip(" \t") and not _ends_paragraph(before):
        shown[-1] = Piece(shown[-1].text.rstrip(" \t\n") + "\n")
    last = _PARAGRAPH_ENDS.match(text, stop.end()) is not None
    shown.append(Piece(drawn.replace(formula.ROW, "\n"), "formula"))
    shown.append(Piece(stop[1] + (stop[2] if last else "\n")))
    return stop.end()


def _ends_paragraph(before: str) -> bool:
    bare = before.rstrip(" \t")
    return not bare or bare.endswith("\n\n")


class _Finder:
    """A finder of formulas, in time linear in the length of the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closing = _closing_braces(text)
        self.runs: dict[int, list[int]] = {}
        for run in re.finditer("`+", text):
            self.runs.setdefault(len(run[0]), []).append(run.start())

    def all(self) -> Iterator[_Found]:
        """Yield all formulas and all code, in order."""
        place = 0
        while (found := _BEGINNING.search(self.text, place)) is not None:
            piece = None
            if found["fence"] or found["code"]:
                piece = self._code(found)
            elif found["macro"]:
                piece = self._macro(found)
            elif found["environment"]:
                piece = self._environment(found)
            elif found["bracket"]:
                piece = self._bracket(found)
            elif found["dollars"]:
                piece = self._dollars(found)
            elif found["escaped"]:
                piece = _Found(found.start(), found.end(), found["escaped"])
            if piece is not None:
                yield piece
            place = found.end() if piece is None else piece.end

    def _find(self, what: str, start: int) -> int:
        """Return the next position of `what`, or -1 if it is further away than the maximum length of a formula."""
        return self.text.find(what, start, start + formula.LONGEST + len(what))

    def _code(self, found: re.Match[str]) -> _Found | None:
        if found["fence"]:
            mark = found["fence"].lstrip()
            last = re.compile(rf"^[ \t]*{mark}{mark[0]}*[ \t]*$", re.MULTILINE).search(self.text, found.end())
            end = len(self.text) if last is None else last.end()
            return _Found(found.start(), end, "", code=True)
        same = self.runs[len(found["code"])]
        later = bisect_left(same, found.end())
        if later == len(same):
            return None
        end = same[later] + len(found["code"])
        before, after = self.text[found.start() - 1 : found.start()], self.text[end : end + 1]
        # A quotation such as `this' is not code, nor is text between two of them.
        if before.isalnum() or after.isalnum() or after in ("$", "\\") or self._blank_line(found.end(), same[later]):
            return None
        return _Found(found.start(), end, "", code=True)

    def _blank_line(self, start: int, end: int) -> bool:
        return end - start > formula.LONGEST or _BLANK_LINE.search(self.text, start, end) is not None

    def _macro(self, found: re.Match[str]) -> _Found | None:
        end = self.closing.get(found.end() - 1)
        if end is None:
            return None
        if found["macro"].endswith(("frac", "binom")):
            end = self.closing.get(end + 1)
            if end is None:
                return None
        return self._piece(found.start(), end + 1, found.start(), end + 1)

    def _environment(self, found: re.Match[str]) -> _Found | None:
        name = found["environment"]
        if name not in formula.ENVIRONMENTS:
            return None
        mark = f"\\end{{{name}}}"
        end = self._find(mark, found.end())
        if end < 0:
            return None
        end += len(mark)
        return self._piece(found.start(), end, found.start(), end, display=True)

    def _bracket(self, found: re.Match[str]) -> _Found | None:
        display = found[0] == "\\["
        end = self._find("\\]" if display else "\\)", found.end())
        if end < 0:
            return None
        return self._piece(found.start(), end + 2, found.end(), end, display=display)

    def _dollars(self, found: re.Match[str]) -> _Found | None:
        mark = found["dollars"]
        end = self._closing(mark, found.end())
        if end < 0:
            return None
        after = self.text[end + len(mark) : end + len(mark) + 1]
        if mark == "$" and not _is_formula(self.text[found.end() : end], after):
            return None
        return self._piece(found.start(), end + len(mark), found.end(), end, display=mark == "$$")

    def _closing(self, mark: str, place: int) -> int:
        """Return the next position of the same dollar delimiter outside braces, or -1."""
        stop = min(len(self.text), place + formula.LONGEST + len(mark))
        while (found := _PIECES.search(self.text, place, stop)) is not None:
            if found[0] == mark or (mark == "$" and found[0] == "$$"):
                return found.start()
            if found[0] in ("}", "$"):
                return -1
            place = found.end()
            if found[0] == "{":
                place = self.closing.get(found.start(), found.start()) + 1
        return -1

    def _piece(self, start: int, end: int, inner: int, last: int, *, display: bool = False) -> _Found | None:
        if last - inner > formula.LONGEST:
            return None
        source = self.text[inner:last]
        if not source.strip() or (not display and _BLANK_LINE.search(source)):
            return None
        return _Found(start, end, source, display)


def _closing_braces(text: str) -> dict[int, int]:
    """Return a mapping from the position of each opening brace to that of its closing brace."""
    open: list[int] = []
    closing: dict[int, int] = {}
    for found in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if found[0] == "{":
            open.append(found.start())
        elif found[0] == "}" and open:
            closing[open.pop()] = found.start()
    return closing


def _is_formula(inner: str, after: str) -> bool:
    """Return whether the text between two dollars is a formula, and not the text between two amounts of money.

    A formula touches both of its dollars and no digit follows it; one with spaces at its ends must look like a formula.
    Text that begins as an amount and continues in words is money.
    """
    if not inner.strip() or _BLANK_LINE.search(inner):
        return False
    if _AMOUNT.match(inner) and (after.isdigit() or (_PROSE.search(inner) and "\\" not in inner)):
        return False
    tight = not inner[0].isspace() and not inner[-1].isspace()
    if tight:
        return not after.isdigit() or _SIGNAL.search(inner) is not None
    return _SIGNAL.search(inner) is not None and not (_PROSE.search(inner) and "\\" not in inner)
