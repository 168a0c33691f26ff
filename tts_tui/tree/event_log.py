"""The event log of a search: events go into the tree first, then to every sink."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterable
from time import monotonic

from tts_tui.errors import RecordingStopped, SinkError
from tts_tui.tree.events import AnyEvent, Notice
from tts_tui.tree.search_tree import SearchTree

Sink = Callable[[AnyEvent], None]
"""A callback that receives every event, in order.

A sink that raises `RecordingStopped` receives no more events, and the search continues; any other exception ends the
search with a `SinkError`.
"""


class EventLog:
    """The single entry point of events into a search.

    Args:
        tree: The tree to fold the events into.
        sinks: The sinks that receive the events.
        clock: Returns the time in seconds.

    Attributes:
        tree: The fold of all events so far.
        failure: The error of the first sink that failed; None if none did.
        on_failure: Called when `failure` is set.
    """

    def __init__(self, tree: SearchTree, sinks: Iterable[Sink] = (), clock: Callable[[], float] = monotonic) -> None:
        self.tree = tree
        self.failure: SinkError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._sinks = list(sinks)
        self._clock = clock
        self._zero = clock() - tree.seconds

    @property
    def now(self) -> float:
        """Seconds that the search has run, not counting the time between an interruption and its resumption."""
        return self._clock() - self._zero

    def append(self, event: AnyEvent) -> None:
        """Fold `event` into the tree and pass it to every sink.

        Exceptions of sinks are not propagated, because the caller may be a backend or a person. The search checks
        `failure` instead.
        """
        self.tree.apply(event)
        stopped: list[str] = []
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except RecordingStopped as error:
                self._sinks.remove(sink)
                stopped.append(str(error))
            except (Exception, CancelledError) as error:  # raised by the sink: the search is not cancelled
                self._sinks.remove(sink)
                self._fail(error)
        for message in stopped:  # after the loop, so that all other sinks have the event
            self.append(Notice(t=self.now, message=message, warning=True))

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            self.failure = SinkError(f"the search was ended because something that listened to it failed ({said})")
            self.failure.__cause__ = error
            self.on_failure()
