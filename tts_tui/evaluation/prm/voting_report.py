"""Quality of a PRM's scores within problems and as votes, with intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from msgspec import Struct

from tts_tui.answers.voting import Candidate, path_score, tally
from tts_tui.evaluation.datasets.families import FAMILIES, TRAINED, UNSEEN
from tts_tui.evaluation.samples import Sampled
from tts_tui.plan import SCORES, Score, Vote

DRAWS = 32


class Scored(Struct, frozen=True):
    """A problem's solutions with the scores of their steps, and whether each is right."""

    sampled: Sampled
    scores: tuple[tuple[float, ...], ...]
    right: tuple[bool, ...]


def wilson(right: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson interval of a share; `right` may be a sum of shares."""
    if not total:
        return 0.0, 1.0
    share, square = right / total, z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the probability that a right one scores above a wrong one, ties counting half (Mann-Whitney)."""
    ordered = sorted([(score, True) for score in right] + [(score, False) for score in wrong])
    wins, below, at = 0.0, 0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        losers = sum(not flag for _, flag in ordered[at:end])
        wins += (end - at - losers) * (below + losers / 2)
        below, at = below + losers, end
    return wins / (len(right) * len(wrong))


def _parts(problem: Scored, score: Score) -> tuple[list[float], list[float]]:
    """Return the scores of right and of wrong solutions."""
    values = [path_score(scores, score) or 0.0 for scores in problem.scores]
    flags = problem.right
    right = [value for value, flag in zip(values, flags, strict=True) if flag]
    return right, [value for value, flag in zip(values, flags, strict=True) if not flag]


def auc_within(problems: Iterable[Scored], score: Score) -> tuple[float, int]:
    """Return the mean AUC over problems with both right and wrong solutions, and the number of these problems."""
    found = [auc(*parts) for problem in problems if all(parts := _parts(problem, score))]
    return (fmean(found) if found else float("nan")), len(found)


def auc_pooled(problems: Iterable[Scored], score: Score) -> float:
    """Return the AUC over all solutions at once, which a mix of easy and hard families inflates."""
    right: list[float] = []
    wrong: list[float] = []
    for problem in problems:
        good, bad = _parts(problem, score)
        right += good
        wrong += bad
    return auc(right, wrong) if right and wrong else float("nan")


def voted_right(problem: Scored, score: Score, vote: Vote, chosen: Sequence[int] | None = None) -> bool:
    """Return whether a vote over the solutions (or the `chosen` ones) elects the right answer."""
    solutions = problem.sampled.solutions
    numbers = range(len(solutions)) if chosen is None else chosen
    ranked = tally([Candidate(n, solutions[n].answer, problem.scores[n]) for n in numbers], score, vote)
    return bool(ranked) and problem.right[ranked[0].solutions[0]]


def choose(problems: Sequence[Scored], seed: int = 0) -> tuple[Score, Vote, dict[str, float]]:
    """Return the score and vote with the highest accuracy, and the accuracy of every pair.

    Each pair's accuracy is the mean over `DRAWS` random halves of every problem's solutions, which separates pairs
    better than one vote per problem.
    """
    rng = random.Random(seed)
    halves = [
        (problem, rng.sample(range(len(problem.scores)), max(1, len(problem.scores) // 2)))
        for problem in problems
        for _ in range(DRAWS)
    ]
    votes: tuple[Vote, ...] = ("prm-max", "prm-vote")
    table = {
        f"{score} {vote}": fmean(voted_right(problem, score, vote, half) for problem, half in halves)  # type: ignore[arg-type]
        for score in SCORES
        for vote in votes
    }
    table["majority"] = fmean(voted_right(problem, "last", "majority", half) for problem, half in halves)
    best = max((pair for pair in table if pair != "majority"), key=table.__getitem__)
    score, vote = best.split()
    return score, vote, table  # type: ignore[return-value]


def figures(problems: Sequence[Scored], score: Score) -> dict[str, Any]:
    """Return the figures of one row of a results table, over all `problems`."""
    count = len(problems)
    flags = [problem.right for problem in problems]
    shares = {
        "pass@1": sum(fmean(own) for own in flags),
        "majority": sum(voted_right(problem, score, "majority") for problem in problems),
        "prm-max": sum(voted_right(problem, score, "prm-max") for problem in problems),
        "prm-vote": sum(voted_right(problem, score, "prm-vote") for problem in problems),
        "pass@k": sum(any(own) for own in flags),
    }
    within, mixed = auc_within(problems, score)
    row: dict[str, Any] = {"problems": count, "mixed": mixed, "auc_within": _rounded(within)}
    row["auc_pooled"] = _rounded(auc_pooled(problems, score))
    for name, right in shares.items():
        row[name] = _rounded(right / count if count else float("nan"))
        row[f"{name} interval"] = [_rounded(end) for end in wilson(right, count)]
    return row


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def report(problems: Sequence[Scored], score: Score) -> dict[str, Any]:
    """Return figures over all problems, over trained and unseen families, and for every family and file of problems."""
    kinds = {
        "all": list(problems),
        "trained families": [p for p in problems if p.sampled.problem.family in TRAINED],
        "unseen families": [p for p in problems if p.sampled.problem.family in UNSEEN],
    }
    for name in dict.fromkeys([*FAMILIES, *(p.sampled.problem.family for p in problems)]):
        kinds[name] = [p for p in problems if p.sampled.problem.family == name]
    return {name: figures(members, score) for name, members in kinds.items() if members}
