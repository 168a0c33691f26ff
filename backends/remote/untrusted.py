"""Text that a server sent, kept apart from `str` until it has been made fit for a message.

`Http` decodes every reply into typed values, and every string that may end up in a message, a log or a recording is a
`ServerText`. Formatting one is the only way to get a `str` out of it, and formatting removes the API key. Only what a
model wrote is plain `str`: that is data, and stands in no message.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import quote, quote_plus

MOST_SHOWN = 300
"""Characters of a server's text that a message quotes."""
MOST_READ = 65536
"""Characters of a server's text that are looked at."""
PIECE = 12
"""A part of the key of this length is removed too: servers and proxies cut long texts off."""
LEAST = 4
"""Shorter keys are placeholders, and removing them would only garble messages."""
LEAST_ENCODED = 8
"""Shorter pieces of Base64 are found in any text."""


class Redactor:
    """Removes one API key from texts, however it is written: as it is, quoted, percent-encoded, in Base64, cut off.

    Args:
        key: The key; empty if there is none.
    """

    def __init__(self, key: str) -> None:
        self._pieces: dict[int, set[str]] = {}
        for form in _forms(key) if len(key) >= LEAST else ():
            size = min(PIECE, len(form))
            pieces = self._pieces.setdefault(size, set())
            pieces.update(form[at : at + size] for at in range(len(form) - size + 1))

    def redact(self, text: str) -> str:
        """Return `text` with `***` in place of the key."""
        hidden = bytearray(len(text))
        for size, pieces in self._pieces.items():
            for at in range(len(text) - size + 1):
                if text[at : at + size] in pieces:
                    hidden[at : at + size] = b"\1" * size
        if 1 not in hidden:
            return text
        runs = groupby(zip(hidden, text, strict=True), key=itemgetter(0))
        return "".join("***" if is_key else "".join(char for _, char in run) for is_key, run in runs)


class ServerText:
    """A string from a server. `str()`, `repr()` and f-strings give one clean line of it without the API key.

    It compares equal to the string that was sent, and `Http` sends it back to the server exactly as it came.

    Args:
        raw: What was sent; a number or null where a string was expected is taken as its text.
        redactor: Knows the key.
    """

    __slots__ = ("_raw", "_redactor")

    def __init__(self, raw: object, redactor: Redactor) -> None:
        self._raw = raw if isinstance(raw, str) else str(raw)
        self._redactor = redactor

    def __str__(self) -> str:
        return self.line(MOST_SHOWN)

    def __repr__(self) -> str:
        return repr(str(self))

    def __bool__(self) -> bool:
        return bool(self._raw)

    def __eq__(self, other: object) -> bool:
        return self._raw == (other._raw if isinstance(other, ServerText) else other)

    def __hash__(self) -> int:
        return hash(self._raw)

    def line(self, most: int) -> str:
        """Return at most `most` characters of it on one line, without control characters and without the key."""
        # The key goes first: cutting it in half would hide it from the redactor.
        text = self._redactor.redact(_visible(self._raw[:MOST_READ]))
        return text if len(text) <= most else text[: most - 1].rstrip() + "…"


class Failure:
    """A failure as a server tells it, wherever in its JSON it says what happened.

    Attributes:
        text: What happened; empty if the server does not say.
        code: Its number for it; 0 if there is none.
    """

    __slots__ = ("code", "text")

    def __init__(self, value: Any, redactor: Redactor) -> None:
        code = value.get("code") if isinstance(value, dict) else None
        self.code: int = code if isinstance(code, int) else 0
        for name in ("error", "message", "detail", "msg"):
            while isinstance(value, dict) and name in value:
                value = value[name]
            if isinstance(value, list) and value:
                value = value[0]
        self.text = ServerText(value if isinstance(value, str) else "", redactor)


class Matched:
    """What ended a request, as a server tells it.

    Attributes:
        is_token: Whether it was a token, such as the end of text, or a list of tokens.
        text: Otherwise the stop text; empty if the server does not say.
    """

    __slots__ = ("is_token", "text")

    def __init__(self, value: Any, redactor: Redactor) -> None:
        self.is_token = isinstance(value, int | list)
        self.text = ServerText("" if value is None else value, redactor)


class Code(int):
    """An error code as a server sends it; 0 if it is no number."""


def verbatim(value: object) -> str:
    """Return what a server sent, for a request to the same server; the encoder of `Http` calls it."""
    if isinstance(value, ServerText):
        return value._raw
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


def _visible(text: str) -> str:
    """Return `text` on one line, without characters that steer a terminal, hide or reorder what is shown."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
    return " ".join(text.split())


def _forms(key: str) -> set[str]:
    """Return the ways in which `key` may be written."""
    quoted = json.dumps(key)[1:-1]
    forms = {key, quoted, quoted.replace("/", "\\/"), json.dumps(key, ensure_ascii=False)[1:-1], repr(key)[1:-1]}
    data = key.encode(errors="surrogateescape")
    percent = {quote(data), quote(data, safe=""), quote_plus(data)}
    forms |= percent | {re.sub("%..", lambda code: code[0].lower(), form) for form in percent}
    forms |= {html.escape(key), *_base64(data)}
    return {shape for form in forms for shape in (form, _visible(form)) if shape}


def _base64(data: bytes) -> Iterator[str]:
    """Yield what Base64 makes of `data` wherever it stands in a longer text, as behind `user:`."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        # The outermost characters depend on what stands beside the key.
        first, last = (0, 2, 3)[before], len(text) - bool((before + len(data)) % 3)
        if last - first >= LEAST_ENCODED:
            yield text[first:last]
            yield text[first:last].translate({ord("+"): "-", ord("/"): "_"})
