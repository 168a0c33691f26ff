"""One core or all of them: whichever is faster just now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST = 16
"""Forwards between two looks at the slower choice, at first."""

LAST = 256
"""The same at most: the gap doubles with every look that changes nothing."""


@dataclass
class _Side:
    """What is known of forwards of one size: seconds lately by number of threads, and when to look again."""

    seconds: dict[int, float] = field(default_factory=dict)
    best: int = 0
    wait: int = FIRST
    gap: int = FIRST


class Threads:
    """Chooses the number of threads of every forward by how long the last ones took.

    On idle cores all of them are faster. Where other programs use them too, every parallel loop waits until the
    scheduler lets the last thread run: two threads on two busy cores were measured at a tenth of the speed of one.

    Args:
        choices: Numbers of threads, the one that is probably best first.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = choices
        self._sides: dict[int, _Side] = {}

    def choose(self, tokens: int) -> int:
        """Threads for a forward of `tokens` tokens."""
        side = self._sides.setdefault(tokens.bit_length(), _Side(best=self._choices[0]))
        untried = [n for n in self._choices if n not in side.seconds]
        if untried:
            return untried[0]
        if side.wait <= 0:
            return next((n for n in self._choices if n != side.best), side.best)
        return side.best

    def took(self, tokens: int, threads: int, seconds: float) -> None:
        """Tells how long the forward took that was to use `threads`."""
        side = self._sides[tokens.bit_length()]
        each, known = seconds / tokens, side.seconds.get(threads)
        # What is in use is averaged; of the other one only the newest look says anything about now.
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
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
