"""How many requests a server should have at once: found out from what comes back, instead of guessed by the user.

More requests at a time make a batch larger, which costs each of them little until the machine is full; from there on
they only wait for each other. That point, the knee, is where the tokens a second stop growing. It is looked for by
doubling while doubling pays, and later by one level up now and then, for servers change.
"""

from __future__ import annotations

PIECE_SECONDS = 0.2
PIECE_TOKENS = 8
"""A sample of the pace is taken over at least this long and this many tokens."""
FADE = 0.97
"""What is left of older samples when one comes."""
ENOUGH = 4.0
"""Weight of samples from which on the pace is known."""
WINDOW_SECONDS = 1.0
WINDOW_TOKENS = 64
"""A rate is taken over at least this long and this many tokens."""
FULL = 0.8
"""Share of the limit that must have been used in a window for its rate to say something about the limit."""
GAIN = 0.1
"""A higher level must bring this much more tokens a second."""
PATIENCE = 20
"""Full windows between two tries of the next level."""
CUT = 0.8
"""What an overload leaves of the limit."""
CALM_SECONDS = 15.0
"""Seconds after an overload in which the limit does not rise."""


class SlowdownModel:
    """How much slower each stream becomes with one more: seconds a token = base + slope x streams, least squares."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._count = self._load = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def tokens(self, count: int, running: int, now: float) -> None:
        """`count` tokens came while `running` requests were under way."""
        if self._began is None:
            self._began = now
            return
        self._count += count
        self._load += count * running
        spent = now - self._began
        if spent >= PIECE_SECONDS and self._count >= PIECE_TOKENS:
            streams = self._load / self._count
            self._add(streams, streams * spent / self._count)
            self._began, self._count, self._load = now, 0, 0

    def idle(self) -> None:
        """Nothing is under way."""
        self._began, self._count, self._load = None, 0, 0

    def slack(self, needed: int, share: float) -> float:
        """How many streams beside `needed` ones make those slower by at most `share`; 0 while that is not known."""
        spread = self._xx * self._n - self._x**2
        if self._n < ENOUGH or spread < (0.05 * self._x) ** 2:
            return 0.0
        slope = (self._xy * self._n - self._x * self._y) / spread
        base = (self._y - slope * self._x) / self._n
        pace = max(base, 0.0) + slope * needed
        return float("inf") if slope <= 0 else share * pace / slope

    def _add(self, x: float, y: float) -> None:
        fade = FADE
        self._n, self._x, self._y = self._n * fade + 1, self._x * fade + x, self._y * fade + y
        self._xx, self._xy = self._xx * fade + x * x, self._xy * fade + x * y


class ConcurrencyLimit:
    """The limit, and how it changes. Pure: told the time, reads no clock.

    Args:
        start: First limit.
        least: Lowest limit.
        most: Highest limit, such as what the server says that it runs at once.

    Attributes:
        limit: Requests to have at once.
    """

    def __init__(self, start: int = 32, *, least: int = 4, most: int = 256) -> None:
        self.least, self.most = min(least, most), most
        self.limit = max(self.least, min(start, most))
        self._rates: dict[int, float] = {}
        self._before: int | None = None
        self._rest = 0
        self._calm = 0.0
        self._began: float | None = None
        self._count = self._load = 0

    def tokens(self, count: int, running: int, now: float) -> None:
        """`count` tokens came while `running` requests were under way."""
        if self._began is None:
            self._open(now)
            return  # of the first ones nobody knows how long they took
        self._count += count
        self._load += count * running
        spent = now - self._began
        if spent >= WINDOW_SECONDS and self._count >= WINDOW_TOKENS:
            full = self._load / self._count >= FULL * self.limit
            if full:
                self._judge(self._count / spent, now)
            self._open(now)

    def idle(self) -> None:
        """Nothing is under way: the time until the next request says nothing about the server."""
        self._open(None)

    def overloaded(self, now: float) -> None:
        """The server asked for less."""
        if now < self._calm:  # one burst is one overload, however many requests were in it
            return
        self.limit = max(self.least, int(self.limit * CUT))
        self._before, self._rest, self._calm = None, PATIENCE, now + CALM_SECONDS
        self._rates.clear()

    def _open(self, now: float | None) -> None:
        """Begins a window."""
        self._began = now
        self._count = self._load = 0

    def _judge(self, rate: float, now: float) -> None:
        """One full window at the present limit."""
        known = self._rates.get(self.limit)
        self._rates[self.limit] = rate if known is None else (known + rate) / 2
        if self._before is not None and rate < self._rates[self._before] * (1 + GAIN):
            self.limit, self._before, self._rest = self._before, None, PATIENCE  # the step up did not pay
            return
        if self._rest:
            self._rest -= 1
            self._before = None
            return
        if now >= self._calm and self.limit < self.most:
            self._before, self.limit = self.limit, min(self.most, self.limit * 2)
