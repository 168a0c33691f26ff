"""Writes events down: into the tree first, then into every sink."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from tts_tui.events import AnyEvent, Notice
from tts_tui.tree import SearchTree

Sink = Callable[[AnyEvent], None]
"""Takes every event, in order. A sink that raises OSError is dropped, and the search goes on."""


class Journal:
    """The one place through which events enter a search.

    Attributes:
        tree: The fold of all events so far.
    """

    def __init__(self, tree: SearchTree, sinks: Iterable[Sink] = (), clock: Callable[[], float] = monotonic) -> None:
        self.tree = tree
        self._sinks = list(sinks)
        self._clock = clock
        self._zero = clock() - tree.seconds

    @property
    def now(self) -> float:
        """Seconds that the search has run; the time between an interruption and its resumption does not count."""
        return self._clock() - self._zero

    def write(self, event: AnyEvent) -> None:
        """Folds `event` into the tree and hands it to every sink."""
        self.tree.apply(event)
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except OSError as error:
                self._sinks.remove(sink)
                why = error.strerror or str(error)
                message = f"recording stopped ({why}): the search goes on, and what was written until now can be used"
                self.write(Notice(t=self.now, message=message))
