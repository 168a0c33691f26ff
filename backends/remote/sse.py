"""Parser for server-sent events as the WHATWG specifies them (HTML Living Standard, section 9.2.6)."""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry", b"")
"""Field names that a line may begin with; a comment has an empty one."""
_MOST_KEPT = 200


class EventParser:
    """An incremental parser that splits a stream of bytes into the data of its events, in linear time.

    Types, ids and retry times are ignored: none of the protocols used here needs them.

    Attributes:
        stray: The beginning of the first line that is not part of an event; empty if there was none so far.
        pending: Number of bytes received of an event that is not complete.
    """

    def __init__(self) -> None:
        self.stray = b""
        self.pending = 0
        self._parts: list[bytes] = []
        self._begun = False
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that `piece` completes."""
        if self._after_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        if not self._begun:
            piece = self._without_mark(piece)
        parts = self._parts
        if parts:
            if b"\n\n" not in piece and not (piece[:1] == b"\n" and parts[-1][-1:] == b"\n"):
                if piece:
                    parts.append(piece)
                    self.pending += len(piece)
                return []
            parts.append(piece)
            piece = b"".join(parts)
        # Fast path: nearly always one event comes at a time, and it is one line of data.
        if piece[:6] == b"data: " and piece[-2:] == b"\n\n" and piece.find(b"\n") == len(piece) - 2:
            self._parts, self.pending = [], 0
            return [piece[6:-2]]
        *blocks, rest = piece.split(b"\n\n")
        self._parts, self.pending = [rest] if rest else [], len(rest)
        found = []
        for block in blocks:
            if block[:6] == b"data: " and b"\n" not in block:
                found.append(block[6:])
            elif (data := self._data(block)) is not None:
                found.append(data)
        return found

    def close(self) -> bytes | None:
        """Return the data of an event that was cut off by the end of the stream; None if there is none.

        The specification drops such an event. Here, its interpretation is left to the caller.
        """
        rest, self._parts = b"".join(self._parts), []
        return self._data(rest)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """Return `piece` with line endings normalized from CR or CRLF to LF."""
        if self._after_cr and piece[:1] == b"\n":  # the second half of a CRLF
            piece, self._after_cr = piece[1:], False
        if piece:
            self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_mark(self, piece: bytes) -> bytes:
        """Return the beginning of the stream without a byte order mark; nothing while it may still be one."""
        piece = b"".join((*self._parts, piece))
        self._begun = len(piece) >= len(_BOM) or not _BOM.startswith(piece)
        self._parts = [] if self._begun or not piece else [piece]
        return piece.removeprefix(_BOM) if self._begun else b""

    def _data(self, block: bytes) -> bytes | None:
        """Return the joined data lines of one event; None if it has none."""
        data: list[bytes] = []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif line and name not in _FIELDS and not self.stray:
                self.stray = line[:_MOST_KEPT]
        return b"\n".join(data) if data else None
