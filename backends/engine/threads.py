"""Choice between one core and all cores, whichever is currently faster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST = 16
"""The initial number of forward passes between two probes of the slower choice."""

LAST = 256
"""The largest number of forward passes between two probes; it doubles with every probe that changes nothing."""


@dataclass
class _Side:
    """Timings of forward passes of one size: recent seconds by number of threads, and when to probe again."""

    seconds: dict[int, float] = field(default_factory=dict)
    best: int = 0
    wait: int = FIRST
    gap: int = FIRST


class Threads:
    """A choice of the number of threads for every forward pass, based on how long recent ones took.

    On an idle machine, using all cores is faster. Where other programs use them too, every parallel loop waits until
    the operating system lets the last thread run: two threads on two busy cores were measured at a tenth of the speed
    of one.

    Args:
        choices: The numbers of threads to choose from, the one that is probably best first.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices
        self._sides: dict[int, _Side] = {}

    def choose(self, tokens: int) -> int:
        """Return the number of threads for a forward pass of `tokens` tokens."""
        side = self._sides.setdefault(tokens.bit_length(), _Side(best=self._choices[0]))
        untried = [n for n in self._choices if n not in side.seconds]
        if untried:
            return untried[0]
        if side.wait <= 0:
            return next((n for n in self._choices if n != side.best), side.best)
        return side.best

    def took(self, tokens: int, threads: int, seconds: float) -> None:
        """Record how long a forward pass of `tokens` tokens with `threads` threads took."""
        side = self._sides[tokens.bit_length()]
        each, known = seconds / tokens, side.seconds.get(threads)
        # Average the choice in use; for the other one only the newest probe is representative.
        side.seconds[threads] = (known + each) / 2 if known and threads == side.best else each
        if len(side.seconds) < len(self._choices):
            return
        best = min(side.seconds, key=lambda n: side.seconds[n])
        if best != side.best:
            side.best, side.gap = best, FIRST
        elif threads != best:
            side.gap = min(2 * side.gap, LAST)
        else:
            side.wait -= 1
            return
        side.wait = side.gap


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
