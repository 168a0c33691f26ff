"""How fast an evaluation is, and how long it will still take: as a range, and not before there is anything to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from time import monotonic

_SURE = 3
"""Searches that must be done before anything is said."""
_DOUBT = 0.5
"""Spread of the seconds of a plan's searches, as a share of their mean, before any is known."""


class TimeEstimate:
    """Learns from searches how long the others will take.

    Args:
        earlier: Seconds that searches took in earlier calls, by plan; used where a plan has none in this call.
        clock: Gives seconds.

    Attributes:
        tokens: Tokens that were sampled in this call.
    """

    def __init__(
        self, earlier: Mapping[str, list[float]] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.tokens = 0
        self._earlier = dict(earlier or {})
        self._clock = clock
        self._began = clock()
        self._took: dict[str, list[float]] = {}
        self._running: dict[int, tuple[str, float]] = {}
        self._next = 0

    def begin(self, plan: str) -> int:
        """Notes that a search begins; returns its number for `end`."""
        self._next += 1
        self._running[self._next] = (plan, self._clock())
        return self._next

    def end(self, number: int, *, counts: bool = True) -> None:
        """Notes that a search has ended; one that was only read, or failed, says nothing of the others."""
        plan, began = self._running.pop(number)
        if counts:
            self._took.setdefault(plan, []).append(self._clock() - began)

    @property
    def rate(self) -> float | None:
        """Tokens a second in this call; None before any."""
        seconds = self._clock() - self._began
        return self.tokens / seconds if self.tokens and seconds > 0 else None

    def left(self, waiting: Mapping[str, int], at_once: int) -> tuple[float, float] | None:
        """Seconds that are left, at least and at most, as far as one can tell; None while nobody can.

        Args:
            waiting: Searches that have not begun, by plan.
            at_once: How many run at once.
        """
        if sum(map(len, self._took.values())) < _SURE:
            return None
        now = self._clock()
        spread = self._spread()
        total = variance = 0.0
        for plan, count in waiting.items():
            mean, known = self._mean(plan)
            total += count * mean
            variance += (spread * mean) ** 2 * (count + count**2 / known)
        longest = 0.0
        for plan, began in self._running.values():
            mean, _ = self._mean(plan)
            rest = max(mean - (now - began), 0.1 * mean)
            longest = max(longest, rest)
            total += rest
            variance += (spread * mean) ** 2
        lanes = max(1, min(at_once, sum(waiting.values()) + len(self._running)))
        low, high = (max(total + sign * 1.64 * math.sqrt(variance), 0.0) / lanes for sign in (-1, 1))
        return max(low, longest), max(high, longest)

    def _mean(self, plan: str) -> tuple[float, int]:
        """Mean seconds of a plan's searches, and from how many; of all searches where it has none."""
        own = self._took.get(plan) or self._earlier.get(plan)
        if own:
            return fmean(own), len(own)
        return fmean(seconds for took in self._took.values() for seconds in took), 1

    def _spread(self) -> float:
        """How far the seconds of a plan's searches are from their mean, as a share of it."""
        squares, count = _DOUBT**2, 1
        for took in self._took.values():
            mean = fmean(took)
            if mean > 0:
                squares += sum((seconds / mean - 1) ** 2 for seconds in took)
                count += len(took) - 1
        return math.sqrt(squares / count)
