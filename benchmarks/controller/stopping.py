"""The probability that more samples would change the answer, by simulation under a belief.

The belief is a distribution over the right answer and the rate at which the policy gives it. A further sample gives the
right answer or a wrong one; wrong ones agree as in a Chinese restaurant process, and samples without an answer keep
their observed rate. Its score falls into each gap between the observed scores with equal probability, which follows
from exchangeability alone; gaps are then weighted by the likelihood of being right there
(`AnswerLikelihood`).
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from tts_tui.controller.difficulty import GRID, POINTS, AnswerLikelihood, Observation, Posterior
from tts_tui.plan import Vote

DRAWS = 4000
"""Number of simulated futures."""

_LEAST = 1e-9
"""Minimum weight of a vote, so that a vote of score 0 still counts."""


class Change(Struct, frozen=True):
    """The effect of further samples on the answer.

    Attributes:
        answer: Probability that the answer changes.
        gained: Probability that it is wrong now and becomes right.
        lost: Probability that it is right now and becomes wrong.
    """

    answer: float
    gained: float
    lost: float

    @property
    def gain(self) -> float:
        """Expected gain in accuracy."""
        return self.gained - self.lost


def changes(
    belief: Posterior, evidence: AnswerLikelihood, vote: Vote, more: int, *, draws: int = DRAWS, seed: int = 0
) -> Change:
    """Estimate the effect of `more` further independent samples on the winner of the vote.

    Args:
        belief: Posterior after the samples so far, which it contains.
        evidence: Likelihood of answers and scores.
        vote: Aggregation of solutions into one answer.
        more: Number of further samples.
        draws: Number of simulated futures.
        seed: Random seed of the simulation; results are deterministic.
    """
    rng = np.random.default_rng(seed)
    scores = np.array([one.score for one in belief.seen if one.score is not None and one.sampled], dtype=float)
    if not len(scores):  # then only searches have scores, or no solution has
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
    """Return the votes so far by answer: observed ones, the right one if unobserved, and wrong ones that may follow."""
    weights = np.zeros(groups + 1 + more)
    for one in seen:
        if one.group < 0 or (vote != "majority" and one.score is None):
            continue
        value = 1.0 if vote == "majority" or one.score is None else max(one.score, _LEAST)
        old = weights[one.group]
        weights[one.group] = max(old, value) if vote == "prm-max" else old + value
    return weights


def _score(levels: np.ndarray, right: np.ndarray, evidence: AnswerLikelihood, rng: np.random.Generator) -> np.ndarray:
    """Draw scores of the next samples, one per row, given the row's sorted `levels`."""
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
    """A batch of simulated futures of a problem, in which the right answer is drawn from the belief.

    Attributes:
        right: Column of the right answer, for each future.
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
        """Draw the next sample of each future: its answer's column, whether it is right, whether it has an answer."""
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
