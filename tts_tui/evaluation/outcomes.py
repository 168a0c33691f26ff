"""Outcomes of plans on problems, as evaluations store them, report them and learn from them."""

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
        answer: The answer as generated; None if there is none.
        group: Index of the answer among the outcome's distinct answers, in the order of first occurrence; answers
            that mean the same share a number. -1 without an answer.
        right: Whether the answer is right.
        scores: Scores of its steps; empty if nothing was scored.
        tokens: Number of sampled tokens of its path.
    """

    answer: str | None
    group: int
    right: bool
    scores: tuple[float, ...]
    tokens: int


class Outcome(Struct, frozen=True, kw_only=True):
    """The outcome of a plan on a problem.

    Attributes:
        problem: Id of the problem.
        plan: Name of the plan in its run.
        answer: Winner of the plan's own vote, or None.
        right: Whether that answer is right.
        solutions: All solutions that vote, in the order that breaks ties.
        reason: Reason for which the search ended; "failed" if it could not start.
        detail: The reason as a sentence.
        tokens: Tokens of policy and PRM.
        flops: FLOPs of policy and PRM.
        seconds: Wall time of the search.
        undecided: Number of distinct answers without a verdict; they count as wrong.
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
        """Share of solutions that are right; None if there are no solutions."""
        return sum(one.right for one in self.solutions) / len(self.solutions) if self.solutions else None


def elected(solutions: Sequence[Answered], score: Score, vote: Vote) -> Answered | None:
    """Return the solution that represents the winner of a vote (`tts_tui.answers.voting`); None if none votes.

    Args:
        solutions: Solutions in the order that breaks ties.
        score: Aggregation of step scores into one number.
        vote: Aggregation of solutions into one answer.
    """
    votes = [(one, path_score(one.scores, score)) for one in solutions if one.group >= 0]
    known = [(one, value) for one, value in votes if value is not None]
    if vote == "majority" or not known:
        known = [(one, 1.0) for one, _ in votes]
    if not known:
        return None
    if vote == "prm-max":
        return max(known, key=lambda item: item[1])[0]  # max returns the first of equal items
    weights: dict[int, float] = {}
    for one, value in known:
        weights[one.group] = weights.get(one.group, 0.0) + value
    winner = max(weights, key=weights.__getitem__)
    return max((item for item in known if item[0].group == winner), key=lambda item: item[1])[0]
