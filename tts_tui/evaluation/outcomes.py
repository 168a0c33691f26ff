"""What a plan came to on a problem, as evaluations keep it, report it and learn from it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tts_tui.answers.voting import path_score
from tts_tui.plan import Score, Vote
from tts_tui.tree.events import Reason
from tts_tui.tree.totals import Flops, Tokens


class Answered(Struct, frozen=True):
    """A solution that votes.

    Attributes:
        answer: Its answer as written; None where there is none.
        group: Which of the outcome's answers that is, from 0, in the order in which they were seen; answers that mean
            the same share a number. -1 without an answer.
        right: Whether it is the right one.
        scores: Scores of its steps; empty where nothing was scored.
        tokens: Sampled tokens of its path.
    """

    answer: str | None
    group: int
    right: bool
    scores: tuple[float, ...]
    tokens: int


class Outcome(Struct, frozen=True, kw_only=True):
    """What a plan came to on a problem.

    Attributes:
        problem: Id of the problem.
        plan: Name of the plan in its run.
        answer: The winner of the plan's own vote, or None.
        right: Whether that is right.
        solutions: All that vote, in the order that breaks ties.
        reason: Why the search ended; "failed" where it could not begin.
        detail: The same in a sentence.
        tokens: Of policy and PRM.
        flops: Of policy and PRM.
        seconds: Wall time of the search.
        undecided: Its answers on which there is no verdict whether they are right; they count as wrong.
    """

    problem: str
    plan: str
    answer: str | None
    right: bool
    solutions: tuple[Answered, ...]
    reason: Reason
    detail: str
    tokens: Tokens
    flops: Flops
    seconds: float
    undecided: int = 0

    @property
    def pass1(self) -> float | None:
        """Share of solutions that are right; None without any."""
        return sum(one.right for one in self.solutions) / len(self.solutions) if self.solutions else None


def elected(solutions: Sequence[Answered], score: Score, vote: Vote) -> Answered | None:
    """The solution that stands for the winner of a vote, by the rules of `tts_tui.answers.voting`; None if nobody votes.

    Args:
        solutions: In the order that breaks ties.
        score: How step scores become one number.
        vote: How solutions become one answer.
    """
    votes = [(one, path_score(one.scores, score)) for one in solutions if one.group >= 0]
    known = [(one, value) for one, value in votes if value is not None]
    if vote == "majority" or not known:
        known = [(one, 1.0) for one, _ in votes]
    if not known:
        return None
    if vote == "prm-max":
        return max(known, key=lambda item: item[1])[0]  # max keeps the earliest of equals
    weights: dict[int, float] = {}
    for one, value in known:
        weights[one.group] = weights.get(one.group, 0.0) + value
    winner = max(weights, key=weights.__getitem__)
    return max((item for item in known if item[0].group == winner), key=lambda item: item[1])[0]
