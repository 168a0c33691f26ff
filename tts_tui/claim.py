"""The claim to a request that was made before anybody needed its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Claim:
    """Says whether somebody needs the result of a speculative request, which may be decided while it waits or runs.

    Attributes:
        made: Somebody needs it: from now on it is a request like any other.
        started: It is under way, and no longer waits for leave to be sent.
    """

    __slots__ = ("_listeners", "made", "started")

    def __init__(self) -> None:
        self.made = self.started = False
        self._listeners: list[Callable[[], None]] = []

    def make(self) -> None:
        """Tells everyone who waits with the request that it is needed now. Safe to call twice."""
        self.made = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    @contextmanager
    def told(self, listener: Callable[[], None]) -> Iterator[None]:
        """Has `listener` called if the claim is made inside the context."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)
