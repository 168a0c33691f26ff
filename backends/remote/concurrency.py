"""Adaptive limit on concurrent requests to a server, derived from measured throughput instead of user configuration.

More concurrent requests make the server's batch larger, which costs each request little until the machine is
saturated; beyond that point they only wait for each other. That point, the knee, is where the tokens per second stop
growing. It is found by doubling the limit while doubling pays off; later, the next level is tried now and then, because
a server's load changes.
"""

from __future__ import annotations

PIECE_SECONDS = 0.2
PIECE_TOKENS = 8
"""Minimum duration and number of tokens of one sample of the pace."""
FADE = 0.97
"""Factor by which the weight of older samples decays with each new sample."""
ENOUGH = 4.0
"""Total weight of samples required before the pace counts as known."""
WINDOW_SECONDS = 1.0
WINDOW_TOKENS = 64
"""Minimum duration and number of tokens of a window over which a rate is measured."""
FULL = 0.8
"""Share of the limit that must be in use during a window for its rate to be evidence about the limit."""
GAIN = 0.1
"""Relative increase in tokens per second that a higher level must bring to be kept."""
PATIENCE = 20
"""Full windows between two attempts at the next level."""
CUT = 0.8
"""Factor by which an overload reduces the limit."""
CALM_SECONDS = 15.0
"""Seconds after an overload during which the limit does not rise."""


class SlowdownModel:
    """A model of how much one more stream slows down the others.

    Fits seconds per token = base + slope x streams by least squares, with exponentially decaying weights.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._count = self._load = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def tokens(self, count: int, running: int, now: float) -> None:
        """Record that `count` tokens arrived while `running` requests were in flight.

        Args:
            count: Tokens that arrived.
            running: Requests in flight.
            now: Current time in seconds.
        """
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
        """Record that no request is in flight, which discards the current sample."""
        self._began, self._count, self._load = None, 0, 0

    def slack(self, needed: int, share: float) -> float:
        """Return how many streams can run next to `needed` ones and slow those down by at most `share`.

        Returns 0 while the pace is not known.
        """
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
    """An adaptive limit on concurrent requests. Pure: the time is passed in, no clock is read.

    Args:
        start: Initial limit.
        least: Lowest limit.
        most: Highest limit, such as the number of requests that the server reports it can run at once.

    Attributes:
        limit: Number of requests to have in flight at once.
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
        """Record that `count` tokens arrived while `running` requests were in flight, and adjust the limit.

        Args:
            count: Tokens that arrived.
            running: Requests in flight.
            now: Current time in seconds.
        """
        if self._began is None:
            self._open(now)
            return  # how long the first tokens took is unknown
        self._count += count
        self._load += count * running
        spent = now - self._began
        if spent >= WINDOW_SECONDS and self._count >= WINDOW_TOKENS:
            full = self._load / self._count >= FULL * self.limit
            if full:
                self._judge(self._count / spent, now)
            self._open(now)

    def idle(self) -> None:
        """Record that no request is in flight: the time until the next one is no evidence about the server."""
        self._open(None)

    def overloaded(self, now: float) -> None:
        """Record that the server reported an overload, and reduce the limit."""
        if now < self._calm:  # one burst is one overload, however many requests were in it
            return
        self.limit = max(self.least, int(self.limit * CUT))
        self._before, self._rest, self._calm = None, PATIENCE, now + CALM_SECONDS
        self._rates.clear()

    def _open(self, now: float | None) -> None:
        """Begin a window at time `now`; None begins it with the next tokens."""
        self._began = now
        self._count = self._load = 0

    def _judge(self, rate: float, now: float) -> None:
        """Adjust the limit after one full window at the current limit.

        Args:
            rate: Tokens per second in the window.
            now: Current time in seconds.
        """
        known = self._rates.get(self.limit)
        self._rates[self.limit] = rate if known is None else (known + rate) / 2
        if self._before is not None and rate < self._rates[self._before] * (1 + GAIN):
            self.limit, self._before, self._rest = self._before, None, PATIENCE  # the step up did not pay off
            return
        if self._rest:
            self._rest -= 1
            self._before = None
            return
        if now >= self._calm and self.limit < self.most:
            self._before, self.limit = self.limit, min(self.most, self.limit * 2)
