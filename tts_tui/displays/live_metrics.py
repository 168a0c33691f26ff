"""Live figures of a search: the votes so far, and tokens per second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tts_tui.answers.voting import AnswerVotes, Candidate, tally
from tts_tui.tree.search_tree import SearchTree

FEW = 200
"""Number of solutions up to which votes are recounted whenever they may have changed."""
PAUSE = 1.0
"""Minimum number of seconds between two counts of more solutions than that."""
SHARE = 0.05
"""Maximum share of the time spent on counting them."""


class Votes:
    """The votes so far, recounted only after a new solution, score or decision.

    Each count reads every path, so a large search is counted less often.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tree: SearchTree | None = None
        self._revision = -1
        self._next = 0.0
        self._votes: tuple[AnswerVotes, ...] = ()

    def of(self, tree: SearchTree) -> tuple[AnswerVotes, ...]:
        """Return the current votes of `tree`."""
        if tree.finished is not None:
            return tree.finished.votes
        if tree.started is None:
            return ()
        if tree is self._tree and tree.revision == self._revision:
            return self._votes
        began = self._clock()
        if len(tree.solutions) <= FEW or began >= self._next:
            candidates = [Candidate(node.id, node.answer, tuple(node.scores)) for node in tree.voters()]
            self._votes = tally(candidates, tree.plan.score, tree.plan.vote, tree.matching.key)
            self._tree, self._revision = tree, tree.revision
            self._next = began + max(PAUSE, (self._clock() - began) / SHARE)
        return self._votes


class Rate:
    """The token rate over the last few seconds."""

    def __init__(self, window: float = 3.0) -> None:
        self._window = window
        self._points: deque[tuple[float, int]] = deque()

    def at(self, t: float, tokens: int) -> float:
        """Return the rate in tokens per second, given the total of `tokens` at time `t`."""
        if self._points and self._points[-1][0] == t:  # read more often than events happen
            self._points.pop()
        self._points.append((t, tokens))
        while len(self._points) > 2 and self._points[1][0] < t - self._window:
            self._points.popleft()
        (began, before), (now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - began) if now > began else 0.0
