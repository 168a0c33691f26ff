r"""Scores of solutions, computed from step scores, and votes among solutions (arXiv 2502.06703, section 3.1).

Scores are PRM-Min, PRM-Last, PRM-Avg and the product; votes are Majority, PRM-Max and PRM-Vote. This differs on purpose
from the authors' code where that is wrong:

- answers are grouped by meaning (by `tts_tui.answers.canonical`, and by the matches that the tree has in addition), so
  `0.5` and `\frac{1}{2}` vote together;
- a solution without an answer that can be extracted does not vote;
- a solution without any score does not take part in a PRM vote. If none has a score, the majority decides.

Ties go to the answer that was seen first; for PRM-Max, to the solution that was seen first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from tts_tui.answers.canonical import canonical
from tts_tui.plan import Score, Vote


class AnswerVotes(Struct, frozen=True):
    """An answer's share of the vote.

    Attributes:
        answer: The answer, as it was written first.
        weight: The number that the vote compares: a count, the best score, or a sum of scores.
        solutions: Ids of the nodes that have the answer; the first one represents it.
    """

    answer: str
    weight: float
    solutions: tuple[int, ...]


class Candidate(Struct, frozen=True):
    """A solution as voting sees it: the id of its node, its answer, and the scores of its steps."""

    node: int
    answer: str | None
    scores: tuple[float, ...]


def path_score(scores: Sequence[float], score: Score) -> float | None:
    """Return one number for the step scores of a path; None if there are none."""
    if not scores:
        return None
    match score:
        case "min":
            return min(scores)
        case "last":
            return scores[-1]
        case "avg":
            return math.fsum(scores) / len(scores)
        case "prod":
            return math.prod(scores)


def tally(
    candidates: Sequence[Candidate], score: Score, vote: Vote, key: Callable[[str], str] = canonical
) -> tuple[AnswerVotes, ...]:
    """Return all answers with their votes, the winner first; empty if no candidate has an answer.

    Args:
        candidates: Solutions in the order that breaks ties.
        score: How the step scores of a path are combined into one number.
        vote: How the answer is chosen among the solutions.
        key: Returns equal strings for answers that mean the same.
    """
    scored = [(c, path_score(c.scores, score)) for c in candidates if c.answer is not None]
    if vote == "majority" or all(value is None for _, value in scored):
        return _rank([(c, 1.0, 0.0) for c, _ in scored], key, best=False)
    known = [(c, value) for c, value in scored if value is not None]
    if vote == "prm-vote":
        return _rank([(c, value, value) for c, value in known], key, best=False)
    return _rank([(c, value, value) for c, value in known], key, best=True)


def _rank(
    votes: list[tuple[Candidate, float, float]], key: Callable[[str], str], *, best: bool
) -> tuple[AnswerVotes, ...]:
    """Group (candidate, weight, standing) by answer, and rank the groups.

    The weight of a group is the sum of its weights, or with `best` the highest one. The candidate of the highest
    standing represents the group.
    """
    groups: dict[str, list[tuple[Candidate, float, float]]] = {}
    for item in votes:
        groups.setdefault(key(item[0].answer or ""), []).append(item)
    order = {item[0].node: place for place, item in enumerate(votes)}
    ranked = []
    for members in groups.values():
        first = max(members, key=lambda item: item[2])[0]  # max keeps the earliest of equals
        weight = max(m[1] for m in members) if best else math.fsum(m[1] for m in members)
        seen = order[first.node] if best else order[members[0][0].node]
        nodes = (first.node, *(m[0].node for m in members if m[0] is not first))
        ranked.append((-weight, seen, AnswerVotes(members[0][0].answer or "", weight, nodes)))
    ranked.sort(key=lambda item: item[:2])
    return tuple(item[2] for item in ranked)
