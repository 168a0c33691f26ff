"""What calibrations learn from: problems with a pool of independent samples, and with what searches came to."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from msgspec import Struct

from tts_tui.answers.canonical import canonical
from tts_tui.answers.voting import path_score
from tts_tui.controller.difficulty import Observation
from tts_tui.evaluation.outcomes import Answered, Outcome
from tts_tui.plan import Plan, Score, Vote


class Sample(Struct, frozen=True):
    """A solution.

    Attributes:
        answer: Its answer in canonical form; None where there is none.
        right: Whether that is right.
        scores: Scores of its steps.
        tokens: Its cost in tokens of the policy, scoring included by the size of the PRM.
        sampled: Whether it is an independent sample of the policy, and not the choice of a search.
        length: Tokens that were sampled for it.
    """

    answer: str | None
    right: bool
    scores: tuple[float, ...]
    tokens: float
    sampled: bool = True
    length: float = 0.0


class Case(Struct, frozen=True):
    """A problem.

    Attributes:
        id: Of the problem.
        family: What it is alike to; empty if nothing is known.
        values: Features of its prompt's text.
        pool: Independent samples.
        searches: By strategy, the plan and its solutions.
        state: The policy's hidden state on its prompt (`Reading.state`); empty where it showed none.
    """

    id: str
    family: str
    values: tuple[float, ...]
    pool: tuple[Sample, ...]
    searches: Mapping[str, SearchOutcome]
    state: tuple[float, ...] = ()

    @property
    def right(self) -> int:
        """How many of the pool are right."""
        return sum(one.right for one in self.pool)


class SearchOutcome(Struct, frozen=True):
    """What a tree search came to.

    Attributes:
        n: Its candidates.
        parts: Solutions of its independent parts: of each subtree of DVTS, of all of a beam search.
        tokens: Its whole cost.
        length: Tokens that were sampled for it.
    """

    n: int
    parts: tuple[tuple[Sample, ...], ...]
    tokens: float
    length: float = 0.0

    @property
    def width(self) -> int:
        """Candidates of a part."""
        return self.n // len(self.parts)

    @property
    def solutions(self) -> tuple[Sample, ...]:
        """All of them."""
        return tuple(one for part in self.parts for one in part)


def cost(outcome: Outcome, weight: float, once: float = 0.0) -> float:
    """Cost of an outcome in tokens of the policy.

    Args:
        outcome: With its counts.
        weight: Parameters of the PRM over those of the policy.
        once: What the PRM computes of a problem however much is sampled, which is left out.
    """
    return outcome.tokens.policy.completion + weight * max(0.0, outcome.tokens.prm.computed - once)


def overhead(pairs: Sequence[tuple[Outcome, Outcome]]) -> float:
    """Tokens of the PRM that a problem costs once, however much of it is sampled: its question above all.

    Scoring takes these and as many again for every token that is sampled; two numbers of samples tell both apart.

    Args:
        pairs: What one sample of a problem came to, under a PRM that had not read it, and what many samples did.
    """
    if not pairs:
        return 0.0
    sampled = [fmean(sum(one.tokens for one in own.solutions) for own in side) for side in zip(*pairs, strict=True)]
    read = [fmean(own.tokens.prm.computed for own in side) for side in zip(*pairs, strict=True)]
    if sampled[0] >= sampled[1]:
        return 0.0
    rise = (read[1] - read[0]) / (sampled[1] - sampled[0])
    return min(max(0.0, read[0] - rise * sampled[0]), read[0])


def pool_of(outcome: Outcome, weight: float, once: float = 0.0) -> tuple[Sample, ...]:
    """The independent samples of an outcome; each bears a share of the scoring by its length (see `cost`)."""
    total = sum(one.tokens for one in outcome.solutions) or 1
    scoring = weight * max(0.0, outcome.tokens.prm.computed - once) / total
    return tuple(_drawn(one, one.tokens * (1 + scoring), one.tokens) for one in outcome.solutions)


def searched(outcome: Outcome, plan: Plan, weight: float, once: float = 0.0) -> SearchOutcome:
    """What a tree search came to; its parts bear equal shares of the cost."""
    whole, length = cost(outcome, weight, once), float(outcome.tokens.policy.completion)
    many = max(1, len(outcome.solutions))
    found = [_drawn(one, whole / many, length / many, sampled=False) for one in outcome.solutions]
    if plan.strategy != "dvts":
        return SearchOutcome(plan.n, (tuple(found),), whole, length)
    subtrees = plan.n // plan.m
    alone = [(one,) for one in found[:subtrees]]
    return SearchOutcome(plan.n, (*alone, *[()] * (subtrees - len(alone))), whole, length)


def _drawn(one: Answered, tokens: float, length: float, sampled: bool = True) -> Sample:
    answer = canonical(one.answer) if one.answer is not None else None
    return Sample(answer, one.right, one.scores, tokens, sampled, length)


class SolutionSet:
    """Solutions so far in a case, as the controller would see them.

    Args:
        score: How step scores become one number.
        vote: How solutions become one answer.
    """

    def __init__(self, score: Score, vote: Vote) -> None:
        self.score: Score = score
        self.vote: Vote = vote
        self.drawn: list[Sample] = []
        self.seen: list[Observation] = []
        self._groups: dict[str, int] = {}

    def add(self, drawn: Iterable[Sample]) -> None:
        """More solutions."""
        for one in drawn:
            group = -1 if one.answer is None else self._groups.setdefault(one.answer, len(self._groups))
            self.drawn.append(one)
            self.seen.append(Observation(group, path_score(one.scores, self.score), one.tokens, one.sampled))

    @property
    def elected(self) -> int:
        """Group of the answer that the vote takes; -1 without one."""
        return elect(self.seen, self.vote)

    @property
    def right_group(self) -> int:
        """Group of the right answer; -1 if nobody gave it."""
        return next((seen.group for one, seen in zip(self.drawn, self.seen, strict=True) if one.right), -1)

    @property
    def is_right(self) -> bool:
        """Whether the vote takes the right answer."""
        return self.elected >= 0 and self.elected == self.right_group


def elect(seen: Sequence[Observation], vote: Vote) -> int:
    """Group of the answer that a vote takes, by the rules of `tts_tui.answers.voting`; -1 if nobody votes."""
    known = [(one.group, one.score) for one in seen if one.group >= 0]
    scored = [(group, score) for group, score in known if score is not None]
    if vote == "majority" or not scored:
        scored = [(group, 1.0) for group, _ in known]
        vote = "majority"
    if not scored:
        return -1
    if vote == "prm-max":
        return max(scored, key=lambda item: item[1])[0]
    weights: dict[int, float] = {}
    for group, score in scored:
        weights[group] = weights.get(group, 0.0) + score
    return max(weights, key=weights.__getitem__)


def draws(case: Case, rng: random.Random) -> list[Sample]:
    """The pool in a random order: prefixes of it are random subsets."""
    return rng.sample(case.pool, len(case.pool))


def shuffled(search: SearchOutcome, rng: random.Random) -> list[tuple[Sample, ...]]:
    """Its parts in a random order."""
    return rng.sample(search.parts, len(search.parts))


def joined(parts: Sequence[tuple[Sample, ...]]) -> list[Sample]:
    """Solutions of several parts."""
    return [one for part in parts for one in part]
