"""How a search stands: the votes so far, and tokens a second."""

from __future__ import annotations

from collections import deque

from tts_tui.events import Tally
from tts_tui.tree import SearchTree
from tts_tui.voting import Candidate, tally


class Votes:
    """Answers so far; counted again only when a solution, a score or a person's decision has come since."""

    def __init__(self) -> None:
        self._seen: tuple[object, ...] = ()
        self._votes: tuple[Tally, ...] = ()

    def of(self, tree: SearchTree) -> tuple[Tally, ...]:
        """The votes as they stand."""
        if tree.finished is not None:
            return tree.finished.votes
        if tree.started is None:
            return ()
        plan = tree.plan
        voters = tree.voters()
        # Each count reads every path, so a large search is counted at every tenth new solution.
        few = len(voters) if len(voters) <= 200 else len(voters) // 10
        scored = tree.counts.prm_computed + tree.counts.prm_cached if len(voters) <= 200 else 0
        seen = (few, scored, plan.score, plan.vote)
        if seen != self._seen:
            candidates = [Candidate(node.id, node.answer, tuple(node.scores)) for node in voters]
            self._votes, self._seen = tally(candidates, plan.score, plan.vote), seen
        return self._votes


class Rate:
    """Tokens a second over the last seconds."""

    def __init__(self, window: float = 3.0) -> None:
        self._window = window
        self._points: deque[tuple[float, int]] = deque()

    def at(self, t: float, tokens: int) -> float:
        """The rate, after `tokens` in all at time `t`."""
        self._points.append((t, tokens))
        while len(self._points) > 2 and self._points[1][0] < t - self._window:
            self._points.popleft()
        (began, before), (now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - began) if now > began else 0.0
