"""Text received from a server, kept apart from `str` until it has been sanitized for a message.

`Http` decodes every reply into typed values, and every string that may end up in a message, a log or a recording is a
`ServerText`. Formatting one is the only way to get a `str` out of it, and formatting removes the API key. Only text
that a model generated is plain `str`: that is data, and appears in no message.
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
"""Maximum number of characters of a server's text that a message quotes."""
MOST_READ = 65536
"""Maximum number of characters of a server's text that are processed at all."""
PIECE = 12
"""Length from which parts of the key are removed too, because servers and proxies truncate long texts."""
LEAST = 4
"""Minimum length of a key that is removed: shorter ones are placeholders, and removing them would garble messages."""
LEAST_ENCODED = 8
"""Minimum length of a Base64 form that is removed: shorter ones occur in any text."""


class Redactor:
    """A filter that removes one API key from texts in any form: verbatim, quoted, percent-encoded, Base64, truncated.

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

    It compares equal to the string that was received, and `Http` sends it back to the server unchanged.

    Args:
        raw: The value received; anything but a string, such as a number or null, is converted to one.
        redactor: The filter that removes the API key.
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
        """Return at most `most` characters of the text on one line, without control characters and the API key."""
        # Redact before truncating: a key that is cut in half would go unnoticed.
        text = self._redactor.redact(_visible(self._raw[:MOST_READ]))
        return text if len(text) <= most else text[: most - 1].rstrip() + "…"


class Failure:
    """A failure as reported by a server, wherever the message is in its JSON.

    Attributes:
        text: The message; empty if there is none.
        code: The server's error code; 0 if there is none.
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
    """The stop condition that ended a request, as reported by a server.

    Attributes:
        is_token: True if it was a token, such as the end of text, or a list of tokens.
        text: The stop text, if it was not a token; empty if the server does not report it.
    """

    __slots__ = ("is_token", "text")

    def __init__(self, value: Any, redactor: Redactor) -> None:
        self.is_token = isinstance(value, int | list)
        self.text = ServerText("" if value is None else value, redactor)


class Code(int):
    """An error code from a server; 0 if it is not an integer."""


def verbatim(value: object) -> str:
    """Return the string behind a `ServerText`, for a request to the same server; called by the encoder of `Http`.

    Raises:
        NotImplementedError: `value` is not a `ServerText`.
    """
    if isinstance(value, ServerText):
        return value._raw
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


def _visible(text: str) -> str:
    """Return `text` on one line, without characters that control a terminal or hide or reorder text."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
    return " ".join(text.split())


def _forms(key: str) -> set[str]:
    """Return all forms in which `key` may appear in a text."""
    quoted = json.dumps(key)[1:-1]
    forms = {key, quoted, quoted.replace("/", "\\/"), json.dumps(key, ensure_ascii=False)[1:-1], repr(key)[1:-1]}
    data = key.encode(errors="surrogateescape")
    percent = {quote(data), quote(data, safe=""), quote_plus(data)}
    forms |= percent | {re.sub("%..", lambda code: code[0].lower(), form) for form in percent}
    forms |= {html.escape(key), *_base64(data)}
    return {shape for form in forms for shape in (form, _visible(form)) if shape}


def _base64(data: bytes) -> Iterator[str]:
    """Yield the Base64 forms of `data` at each alignment within a longer text, such as after `user:`."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        # The outermost characters depend on the bytes next to the key.
        first, last = (0, 2, 3)[before], len(text) - bool((before + len(data)) % 3)
        if last - first >= LEAST_ENCODED:
            yield text[first:last]
            yield text[first:last].translate({ord("+"): "-", ord("/"): "_"})
