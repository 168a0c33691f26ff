"""Whether more samples would change the answer: a probability, by playing them out under a belief.

The belief says which answer may be right and how often the policy gives it. A further sample gives the right answer or
a wrong one; wrong ones agree as customers of a Chinese restaurant do, and none at all come as often as they came. Its
score falls into each gap between the scores that were seen with the same chance, which is what follows from their being
exchangeable and from nothing else; gaps are then weighed by what a score there says of being right (`AnswerLikelihood`).
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from tts_tui.controller.difficulty import GRID, POINTS, AnswerLikelihood, Observation, Posterior
from tts_tui.plan import Vote

DRAWS = 4000
"""Futures that are played out."""

_LEAST = 1e-9
"""A vote of score 0 is still a vote."""


class Change(Struct, frozen=True):
    """What further samples would do to the answer.

    Attributes:
        answer: Probability that the vote takes another answer than now.
        gained: Probability that it is wrong now and right then.
        lost: Probability that it is right now and wrong then.
    """

    answer: float
    gained: float
    lost: float

    @property
    def gain(self) -> float:
        """Expected accuracy that they bring."""
        return self.gained - self.lost


def changes(
    belief: Posterior, evidence: AnswerLikelihood, vote: Vote, more: int, *, draws: int = DRAWS, seed: int = 0
) -> Change:
    """What `more` further independent samples would do to the winner of the vote.

    Args:
        belief: After the samples so far, which it knows.
        evidence: How it reads them.
        vote: How solutions become one answer.
        more: How many come.
        draws: Futures that are played out.
        seed: Of these; the same gives the same.
    """
    rng = np.random.default_rng(seed)
    scores = np.array([one.score for one in belief.seen if one.score is not None and one.sampled], dtype=float)
    if not len(scores):  # then only searches have scores, or nobody has
        scores = np.array([one.score for one in belief.seen if one.score is not None], dtype=float)
    votes = vote if len(scores) else "majority"
    groups = len(belief.joint) - 1
    standing = _standing(belief.seen, votes, groups, more)
    future = _Future(belief, evidence, groups, more, draws, rng)
    levels = np.tile(np.sort(np.clip(scores, 0, 1)), (draws, 1))
    now = int(standing.argmax()) if standing.max() > 0 else -1
    weights = np.tile(standing, (draws, 1))
    rows = np.arange(draws)
    for _ in range(more):
        answer, right, known = future.next()
        value = np.ones(draws)
        if votes != "majority":
            value = np.maximum(_score(levels, right, evidence, rng), _LEAST)
            levels = np.sort(np.column_stack([levels, value]), axis=1)
        at, column, value = rows[known], answer[known], value[known]
        weights[at, column] = (
            np.maximum(weights[at, column], value) if votes == "prm-max" else weights[at, column] + value
        )
    then = np.where(weights.max(axis=1) > 0, weights.argmax(axis=1), -1)
    was, will = future.right == now, future.right == then
    return Change(float((then != now).mean()), float((~was & will).mean()), float((was & ~will).mean()))


def _standing(seen: tuple[Observation, ...], vote: Vote, groups: int, more: int) -> np.ndarray:
    """Votes so far by answer: those that were seen, the right one if it was not, and wrong ones that may come."""
    weights = np.zeros(groups + 1 + more)
    for one in seen:
        if one.group < 0 or (vote != "majority" and one.score is None):
            continue
        value = 1.0 if vote == "majority" or one.score is None else max(one.score, _LEAST)
        old = weights[one.group]
        weights[one.group] = max(old, value) if vote == "prm-max" else old + value
    return weights


def _score(levels: np.ndarray, right: np.ndarray, evidence: AnswerLikelihood, rng: np.random.Generator) -> np.ndarray:
    """Scores of the next samples, one a row, after those of the row's sorted `levels`."""
    edges = np.column_stack([np.zeros(len(levels)), levels, np.ones(len(levels))])
    middle = np.clip((edges[:, 1:] + edges[:, :-1]) / 2, 1e-3, 1 - 1e-3)
    log = evidence.slope * np.log(middle / (1 - middle)) + evidence.intercept
    chance = 1 / (1 + np.exp(np.where(right[:, None], -log, log)))
    total = chance.cumsum(axis=1)
    gap = (total <= (rng.random(len(levels)) * total[:, -1])[:, None]).sum(axis=1)
    rows = np.arange(len(levels))
    low, high = edges[rows, gap], edges[rows, gap + 1]
    return np.asarray(low + (high - low) * rng.random(len(levels)))


class _Future:
    """Many futures of a problem at once: in each another answer may be right, as often as the belief says.

    Attributes:
        right: The column of the right answer.
    """

    def __init__(
        self,
        belief: Posterior,
        evidence: AnswerLikelihood,
        groups: int,
        more: int,
        draws: int,
        rng: np.random.Generator,
    ) -> None:
        place = np.searchsorted(np.cumsum(belief.joint), (np.arange(draws) + rng.random()) / draws)  # evenly spaced
        place = rng.permutation(np.minimum(place, belief.joint.size - 1))
        self.right = place // POINTS
        self._chance = GRID[place % POINTS]
        self._rng = rng
        self._concentration = evidence.agreement
        gave = np.zeros(groups + 1 + more)
        for one in belief.seen:
            if one.group >= 0:
                gave[one.group] += 1
        self._wrong = np.tile(gave, (draws, 1))
        self._wrong[np.arange(draws), self.right] = 0
        blank = sum(one.group < 0 for one in belief.seen)
        self._blank = blank / (blank + self._wrong.sum(axis=1) + 1)
        self._fresh = np.full(draws, groups + 1)

    def next(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next sample of each future: its answer's column, whether it is right, whether it has an answer."""
        count = len(self.right)
        right = self._rng.random(count) < self._chance
        known = right | (self._rng.random(count) >= self._blank)
        total = self._wrong.cumsum(axis=1)
        seat = self._rng.random(count) * (total[:, -1] + self._concentration)
        new = seat >= total[:, -1]
        wrong = np.where(new, self._fresh, (total <= seat[:, None]).sum(axis=1))
        answer = np.where(right, self.right, wrong)
        at = np.flatnonzero(known & ~right)
        self._wrong[at, answer[at]] += 1
        self._fresh += known & ~right & new
        return answer, right, known
