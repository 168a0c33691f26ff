"""The base class of all displays."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TextIO

from tts_tui.formatting import clean, one_line
from tts_tui.tree.events import AnyEvent, Notice, SearchFinished, SearchResumed, StepFailed, StepFinished, StepStarted
from tts_tui.tree.search_tree import SearchTree


def note(message: str) -> None:
    """Says something on standard error."""
    try:
        print(f"tts-tui: {clean(message)}", file=sys.stderr, flush=True)
    except OSError:
        return


class Display:
    """Shows one search by its events. This one shows nothing; it is called with every event.

    Args:
        out: Where to write.

    Attributes:
        tree: The fold of all events.
        writing: Ids of the steps that are being written, oldest first.
        on_closed: Called once when whoever reads the output has gone.
        failed: Whether its output could not be written, for another reason than that the reader has gone.
        began: Whether an event of the present run has come.
        talks: Whether it says things beside the search, such as that a model is being loaded.
    """

    talks = False

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.tree = SearchTree()
        self.writing: dict[int, None] = {}
        self.on_closed: Callable[[], None] = lambda: None
        self.closed = self.failed = False
        self.began = False

    def __call__(self, event: AnyEvent) -> None:
        """Takes one event, and shows what is to be shown of it."""
        self._fold(event)
        self.began = True
        self.guard(lambda: self.show(event))
        if isinstance(event, Notice) and event.warning:
            self.warn(one_line(event.message, 1000))

    def past(self, events: Iterable[AnyEvent]) -> None:
        """Takes events of an earlier run, which are not shown one by one."""
        for event in events:
            self._fold(event)

    def _fold(self, event: AnyEvent) -> None:
        self.tree.apply(event)
        if isinstance(event, StepStarted):
            self.writing[event.node] = None
        elif isinstance(event, StepFinished | StepFailed):
            self.writing.pop(event.node, None)
        elif isinstance(event, SearchResumed):
            self.writing.clear()

    def guard(self, write: Callable[[], object]) -> None:
        """Writes, and falls silent for good once nobody reads any more (`| head`)."""
        if self.closed:
            return
        try:
            write()
            self.out.flush()
        except OSError as error:
            self.closed = True
            discard(self.out)
            gone = isinstance(error, BrokenPipeError) or error.errno == errno.EIO  # the reader, or the terminal
            if not gone:  # such as a full disk
                self.failed = True
                self.warn(f"cannot write the output: {error.strerror or error}")
            self.on_closed()

    def warn(self, message: str) -> None:
        """Says on standard error that something was lost, whether or not anybody reads the output."""
        note(message)

    def show(self, event: AnyEvent) -> None:
        """Shows one event, which the tree has already."""

    def conclude(self, finished: SearchFinished | None) -> None:
        """Shows how it ended; None if a recording stops before its end."""

    def stopping(self) -> None:
        """Says that an interruption was heard. Called from a signal handler."""

    def restore(self) -> None:
        """Leaves the terminal as it was, at once; safe at any moment."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def discard(out: TextIO) -> None:
    """Sends the rest of `out` nowhere, so that Python does not complain about it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except (OSError, ValueError):
        return


def is_terminal(out: TextIO) -> bool:
    """Whether `out` can be drawn on."""
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
