"""Training data of calibrations: problems with a pool of independent samples, and with the outcomes of searches."""

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
    """A solution of a case.

    Attributes:
        answer: Its answer in canonical form; None if it has none.
        right: Whether the answer is right.
        scores: Scores of its steps.
        tokens: Its cost in tokens of the policy, including scoring, weighted by the size of the PRM.
        sampled: Whether it is an independent sample of the policy rather than the choice of a search.
        length: Number of tokens generated for it.
    """

    answer: str | None
    right: bool
    scores: tuple[float, ...]
    tokens: float
    sampled: bool = True
    length: float = 0.0


class Case(Struct, frozen=True):
    """A problem with its samples and searches.

    Attributes:
        id: Id of the problem.
        family: Group of similar problems that it belongs to; empty if unknown.
        values: Features of its prompt's text.
        pool: Independent samples.
        searches: Outcomes of tree searches, by strategy.
        state: The policy's hidden state on its prompt (`PromptEncoding.hidden_state`); empty if it exposes none.
    """

    id: str
    family: str
    values: tuple[float, ...]
    pool: tuple[Sample, ...]
    searches: Mapping[str, SearchOutcome]
    state: tuple[float, ...] = ()

    @property
    def right(self) -> int:
        """Number of right solutions in the pool."""
        return sum(one.right for one in self.pool)


class SearchOutcome(Struct, frozen=True):
    """The outcome of a tree search.

    Attributes:
        n: Number of its candidates.
        parts: Solutions of its independent parts: one part for each subtree of DVTS, a single part for a beam search.
        tokens: Its total cost.
        length: Number of tokens generated for it.
    """

    n: int
    parts: tuple[tuple[Sample, ...], ...]
    tokens: float
    length: float = 0.0

    @property
    def width(self) -> int:
        """Number of candidates in a part."""
        return self.n // len(self.parts)

    @property
    def solutions(self) -> tuple[Sample, ...]:
        """Solutions of all parts."""
        return tuple(one for part in self.parts for one in part)


def cost(outcome: Outcome, weight: float, once: float = 0.0) -> float:
    """Return the cost of an outcome in tokens of the policy.

    Args:
        outcome: The outcome, with its token counts.
        weight: Parameters of the PRM divided by those of the policy.
        once: Tokens that the PRM computes for a problem however much is sampled; they are excluded.
    """
    return outcome.tokens.policy.completion + weight * max(0.0, outcome.tokens.prm.computed - once)


def overhead(pairs: Sequence[tuple[Outcome, Outcome]]) -> float:
    """Return the tokens of the PRM that a problem costs once, however much of it is sampled: above all, its question.

    Scoring takes this overhead plus an amount proportional to the tokens sampled; two numbers of samples separate the
    two.

    Args:
        pairs: For each problem, the outcome with one sample, under a PRM that had not read it before, and the outcome
            with many samples.
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
    """Return the independent samples of an outcome; the scoring is split among them by length (see `cost`)."""
    total = sum(one.tokens for one in outcome.solutions) or 1
    scoring = weight * max(0.0, outcome.tokens.prm.computed - once) / total
    return tuple(_drawn(one, one.tokens * (1 + scoring), one.tokens) for one in outcome.solutions)


def searched(outcome: Outcome, plan: Plan, weight: float, once: float = 0.0) -> SearchOutcome:
    """Return the outcome of a tree search for a case; its solutions bear equal shares of the cost."""
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
    """The solutions so far in a case, as the controller would observe them.

    Args:
        score: Aggregation of step scores into one number.
        vote: Aggregation of solutions into one answer.
    """

    def __init__(self, score: Score, vote: Vote) -> None:
        self.score: Score = score
        self.vote: Vote = vote
        self.drawn: list[Sample] = []
        self.seen: list[Observation] = []
        self._groups: dict[str, int] = {}

    def add(self, drawn: Iterable[Sample]) -> None:
        """Add more solutions."""
        for one in drawn:
            group = -1 if one.answer is None else self._groups.setdefault(one.answer, len(self._groups))
            self.drawn.append(one)
            self.seen.append(Observation(group, path_score(one.scores, self.score), one.tokens, one.sampled))

    @property
    def elected(self) -> int:
        """Group of the answer that wins the vote; -1 if there is none."""
        return elect(self.seen, self.vote)

    @property
    def right_group(self) -> int:
        """Group of the right answer; -1 if no solution gave it."""
        return next((seen.group for one, seen in zip(self.drawn, self.seen, strict=True) if one.right), -1)

    @property
    def is_right(self) -> bool:
        """True if the right answer wins the vote."""
        return self.elected >= 0 and self.elected == self.right_group


def elect(seen: Sequence[Observation], vote: Vote) -> int:
    """Return the group of the answer that wins a vote, by the rules of `tts_tui.answers.voting`; -1 without answers."""
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
    """Return the pool in a random order; prefixes of it are random subsets."""
    return rng.sample(case.pool, len(case.pool))


def shuffled(search: SearchOutcome, rng: random.Random) -> list[tuple[Sample, ...]]:
    """Return the parts of a search in a random order."""
    return rng.sample(search.parts, len(search.parts))


def joined(parts: Sequence[tuple[Sample, ...]]) -> list[Sample]:
    """Return the solutions of several parts in one list."""
    return [one for part in parts for one in part]
