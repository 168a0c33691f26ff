"""The progress of a download on standard error: one updating line on a terminal, a few lines elsewhere."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Self, TextIO

from tts_tui.displays.base import is_terminal
from tts_tui.formatting import bar, one_line

_SIZE = 1_000_000
"""Totals from here on count bytes; smaller ones count parts."""


class Progress:
    """A progress display, called with a message, the amount done, and the total.

    Args:
        out: The output stream.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = is_terminal(out)
        self._message = ""
        self._next = 0.0
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_line()

    def __call__(self, message: str, done: int | None, total: int | None) -> None:
        """Show the progress; `done` and `total` are in bytes or parts, and None if unknown."""
        fresh = message != self._message
        if fresh:
            self._end_line()
            self._message = message
        if self._drawn:
            self._draw(message, done, total, fresh)
        elif fresh:
            self._out.write(f"tts-tui: {one_line(message)}\n")
            self._out.flush()

    def _draw(self, message: str, done: int | None, total: int | None, fresh: bool) -> None:
        whole = done is not None and done == total
        if not (fresh or whole) and monotonic() < self._next:
            return
        self._next = monotonic() + 0.1
        self._out.write(f"\r\x1b[Ktts-tui: {one_line(message)}{_amount(done, total)}")
        self._out.flush()
        self._open = True

    def _end_line(self) -> None:
        if self._open:
            self._out.write("\n")
            self._out.flush()
            self._open = False


def _amount(done: int | None, total: int | None) -> str:
    if done is None or not total:
        return ""
    share = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB" if total >= _SIZE else f"{done}/{total}"
    return f" {bar(done / total, 20)} {share}"
