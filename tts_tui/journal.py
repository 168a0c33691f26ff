"""Writes events down: into the tree first, then into every sink."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from tts_tui.events import AnyEvent, Notice
from tts_tui.tree import SearchTree

Sink = Callable[[AnyEvent], None]
"""Takes every event, in order. A sink that raises is dropped with a notice, and the search goes on."""


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
        failed: list[str] = []
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except OSError as error:
                self._sinks.remove(sink)
                why = error.strerror or str(error)
                failed.append(
                    f"recording stopped ({why}): the search goes on, and what was written until now can be used"
                )
            except Exception as error:  # whoever listens must not be able to end a search
                self._sinks.remove(sink)
                failed.append(f"a listener failed and hears no more ({type(error).__name__}: {error})")
        for message in failed:  # only now, so that the others have the event itself first
            self.write(Notice(t=self.now, message=message))
