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
    """Print a message on standard error."""
    try:
        print(f"tts-tui: {clean(message)}", file=sys.stderr, flush=True)
    except OSError:
        return


class Display:
    """The base of displays of one search, driven by its events. This one shows nothing.

    A display is an event sink: it is called with every event.

    Args:
        out: The output stream.

    Attributes:
        tree: The fold of all events.
        writing: Ids of the steps that are being generated, oldest first.
        on_closed: Called once when the reader of the output has gone.
        failed: Whether the output could not be written, for another reason than that the reader has gone.
        began: Whether an event of the present run has arrived.
        talks: Whether it reports events outside the search, such as that a model is being loaded.
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
        """Fold one event into the tree, and show it."""
        self._fold(event)
        self.began = True
        self.guard(lambda: self.show(event))
        if isinstance(event, Notice) and event.warning:
            self.warn(one_line(event.message, 1000))

    def past(self, events: Iterable[AnyEvent]) -> None:
        """Fold events of an earlier run, which are not shown one by one."""
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
        """Call `write` and flush; after an error, such as a reader that has gone (`| head`), write nothing more."""
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
        """Report on standard error that something was lost, even if the output is closed."""
        note(message)

    def show(self, event: AnyEvent) -> None:
        """Show one event, which is already in the tree."""

    def conclude(self, finished: SearchFinished | None) -> None:
        """Show how the search ended; None if a recording stops before its end."""

    def stopping(self) -> None:
        """Report that an interruption was received. Called from a signal handler."""

    def restore(self) -> None:
        """Restore the terminal immediately; safe at any moment."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def discard(out: TextIO) -> None:
    """Redirect the rest of `out` to the null device, so that Python does not report an error when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except (OSError, ValueError):
        return


def is_terminal(out: TextIO) -> bool:
    """Return whether `out` is a terminal."""
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
