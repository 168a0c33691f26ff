"""Incremental conversion of tokens to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT = 5
"""The number of preceding tokens that can affect how the first one is decoded (a leading space, for example)."""

PATIENCE = 4
"""The most tokens that may pass inside one character; longer incomplete sequences are not characters."""

OVERSHOOT = 64
"""The most tokens that a server may sample beyond the requested number, as speculative decoding may."""

UNFINISHED = "\ufffd"


class Detokenizer:
    """Incremental detokenizer of one sequence, which emits a character once it is complete.

    Args:
        decode: A function that decodes ids to text and skips special tokens.
        before: The ids that precede the first token.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(before[-CONTEXT:])
        self._old = len(self._ids)
        self._given = len(decode(self._ids)) if self._ids else 0

    def add(self, token: int) -> str:
        """Add a token and return the text that is complete with it."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(UNFINISHED)
        if len(whole) < len(text) and len(self._ids) - self._old <= PATIENCE:
            new, self._given = whole[self._given :], max(self._given, len(whole))
            return new
        return self._advance(text)

    def end(self) -> str:
        """Return the remaining text, with the replacement character for characters that were never completed."""
        return self._advance(self._decode(self._ids)) if len(self._ids) > self._old else ""

    def _advance(self, text: str) -> str:
        new = text[self._given :]
        self._ids = self._ids[self._old :]
        self._old = len(self._ids)
        self._given = len(self._decode(self._ids))
        return new


class Separator:
    """A search for a separator in text that arrives in pieces.

    Separators do not overlap: after each match the search starts over.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._tail = ""

    def within(self, text: str) -> bool:
        """Return whether `text` would complete the separator, without adding it."""
        return self._separator in self._tail + text

    def add(self, text: str) -> bool:
        """Add `text` and return whether it completes the separator."""
        self._tail += text
        if self._separator in self._tail:
            self._tail = ""
            return True
        keep = len(self._separator) - 1
        self._tail = self._tail[-keep:] if keep else ""
        return False
