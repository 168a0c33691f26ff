"""From tokens to text, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT = 5
"""Tokens before the first one that decide how it is written (a leading space, say)."""

PATIENCE = 4
"""Tokens that may go by inside one character; more than that is no character."""

OVERSHOOT = 64
"""Tokens that a server may sample beyond those that it was asked for, as one that speculates may."""

UNFINISHED = "\ufffd"


class Detokenizer:
    """Turns one sequence's tokens into text as they come; a character is given out once it is whole.

    Args:
        decode: Text of ids, special tokens left out.
        before: What precedes the first token.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(before[-CONTEXT:])
        self._old = len(self._ids)
        self._given = len(decode(self._ids)) if self._ids else 0

    def add(self, token: int) -> str:
        """What `token` adds to the text."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(UNFINISHED)
        if len(whole) < len(text) and len(self._ids) - self._old <= PATIENCE:
            new, self._given = whole[self._given :], max(self._given, len(whole))
            return new
        return self._advance(text)

    def end(self) -> str:
        """The rest, with the replacement character for what never became whole."""
        return self._advance(self._decode(self._ids)) if len(self._ids) > self._old else ""

    def _advance(self, text: str) -> str:
        new = text[self._given :]
        self._ids = self._ids[self._old :]
        self._old = len(self._ids)
        self._given = len(self._decode(self._ids))
        return new


class Separator:
    """Finds a separator in a text that comes in pieces.

    A separator that ends one step is not the beginning of another one: after each the search starts afresh.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._tail = ""

    def within(self, text: str) -> bool:
        """Whether `text` would complete the separator; changes nothing."""
        return self._separator in self._tail + text

    def add(self, text: str) -> bool:
        """Whether `text` completes the separator."""
        self._tail += text
        if self._separator in self._tail:
            self._tail = ""
            return True
        keep = len(self._separator) - 1
        self._tail = self._tail[-keep:] if keep else ""
        return False
