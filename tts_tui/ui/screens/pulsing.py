"""Screens that refresh on a timer, but only while the data they show is changing."""

from __future__ import annotations

from typing import ClassVar

from textual.screen import Screen
from textual.timer import Timer


class Pulsing(Screen[None]):
    """A screen with a timer that rests while nothing changes, so that an idle app computes and draws nothing.

    The timer is restarted by `wake`, which the app calls for every key and every event of a search, and when the screen
    is shown again or resized.
    """

    LINGER: ClassVar[int] = 6
    """Number of refreshes after the last change before the timer rests."""

    _timer: Timer | None = None
    _left = 0

    def begin_pulse(self, frames: float) -> None:
        """Start refreshing `frames` times per second."""
        self._left = self.LINGER
        self._timer = self.set_interval(1 / frames, self._beat)

    def wake(self) -> None:
        """Restart the timer, which runs until nothing changes any more."""
        self._left = self.LINGER
        if self._timer is not None:
            self._timer.resume()

    @property
    def resting(self) -> bool:
        """True if the timer is paused."""
        return self._left <= 0

    @property
    def lively(self) -> bool:
        """True if the data shown changes by itself, without any event."""
        return False

    def look(self) -> None:
        """Check the data shown, and redraw the parts that changed."""

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
        """Wake when the screen is shown again, to catch up on changes."""
        self.wake()

    def on_resize(self) -> None:
        """Wake to draw at the new size."""
        self.wake()
