"""Throughput and remaining time of an evaluation; the time is a range, estimated once enough searches have finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from time import monotonic

_SURE = 3
"""Number of searches that must have finished before there is an estimate."""
_DOUBT = 0.5
"""Prior spread of the durations of a plan's searches, as a share of their mean."""


class TimeEstimate:
    """An estimator of the remaining time, from the durations of finished searches.

    Args:
        earlier: Durations of searches of earlier calls in seconds, by plan; used for plans without any in this call.
        clock: Function that returns the time in seconds.

    Attributes:
        tokens: Number of tokens sampled in this call.
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
        """Record the start of a search, and return its number for `end`."""
        self._next += 1
        self._running[self._next] = (plan, self._clock())
        return self._next

    def end(self, number: int, *, counts: bool = True) -> None:
        """Record the end of a search; `counts=False` ignores its duration, for one that was only read or failed."""
        plan, began = self._running.pop(number)
        if counts:
            self._took.setdefault(plan, []).append(self._clock() - began)

    @property
    def rate(self) -> float | None:
        """Tokens per second in this call; None before the first token."""
        seconds = self._clock() - self._began
        return self.tokens / seconds if self.tokens and seconds > 0 else None

    def left(self, waiting: Mapping[str, int], at_once: int) -> tuple[float, float] | None:
        """Estimate the remaining time in seconds as (lower, upper) bound; None before enough searches have finished.

        Args:
            waiting: Number of searches that have not started, by plan.
            at_once: Number of searches that run concurrently.
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
        """Return the mean seconds of a plan's searches and their number; the mean over all plans and 1 without any."""
        own = self._took.get(plan) or self._earlier.get(plan)
        if own:
            return fmean(own), len(own)
        return fmean(seconds for took in self._took.values() for seconds in took), 1

    def _spread(self) -> float:
        """Return the relative standard deviation of the durations of a plan's searches, pooled over plans."""
        squares, count = _DOUBT**2, 1
        for took in self._took.values():
            mean = fmean(took)
            if mean > 0:
                squares += sum((seconds / mean - 1) ** 2 for seconds in took)
                count += len(took) - 1
        return math.sqrt(squares / count)
