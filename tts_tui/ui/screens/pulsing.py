"""Screens that look at what they show again and again, but only while that changes."""

from __future__ import annotations

from typing import ClassVar

from textual.screen import Screen
from textual.timer import Timer


class Pulsing(Screen[None]):
    """A screen with a timer that rests while nothing changes, so that an idle app computes and draws nothing.

    It wakes with `wake`, which the app calls for every key and every event of a search, and when it comes back to the
    front or changes its size.
    """

    LINGER: ClassVar[int] = 6
    """How often it looks once more after the last change."""

    _timer: Timer | None = None
    _left = 0

    def begin_pulse(self, frames: float) -> None:
        """Looks `frames` times a second from now on."""
        self._left = self.LINGER
        self._timer = self.set_interval(1 / frames, self._beat)

    def wake(self) -> None:
        """Looks again from now on, until nothing changes any more."""
        self._left = self.LINGER
        if self._timer is not None:
            self._timer.resume()

    @property
    def resting(self) -> bool:
        """Whether the timer stands still."""
        return self._left <= 0

    @property
    def lively(self) -> bool:
        """Whether what it shows changes by itself, without any event."""
        return False

    def look(self) -> None:
        """Looks at what it shows, and draws what changed."""

    def _beat(self) -> None:
        if self._timer is None:
            return
        if self.app.screen is not self:
            self._left = 0
        else:
            self.look()
            self._left = self.LINGER if self.lively else self._left - 1
        if self.resting:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        """Whoever comes back sees what has happened meanwhile."""
        self.wake()

    def on_resize(self) -> None:
        """Draws for the new size."""
        self.wake()
