"""How hard a problem is for a policy: a distribution over its pass@1, before anything is sampled and after.

Before: a Beta distribution by the problem's text, and by what became of problems that are like it (`DifficultyModel`). After:
each of the samples' answers may be the right one, or none of them is; every such hypothesis, together with every
pass@1, explains the samples more or less well (`AnswerLikelihood`), and Bayes' rule weighs them. One calculation therefore
gives both how hard the problem is and how likely each answer is right (`Posterior`):

    P(p, h | samples)  ~  P(p)  x  p^k (1 - p)^(n - k)  x  how PRM scores of right answers look, for h against the rest
                                x  how wrong answers agree with each other, for the rest

where k of n samples gave answer h. Wrong answers are taken to agree as customers of a Chinese restaurant do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from msgspec import Struct

from tts_tui.controller.levels import EASY, HARD

POINTS = 48
_ANGLES = (np.arange(POINTS) + 0.5) / POINTS * (math.pi / 2)
GRID = np.sin(_ANGLES) ** 2
"""Values of pass@1 that a belief weighs, densest near 0 and 1."""
_LOG, _LOG_NOT = np.log(GRID), np.log1p(-GRID)
_LOG_WIDTH = np.log(np.sin(2 * _ANGLES) * math.pi / (2 * POINTS))
_LOG_END = 2 * math.log(math.sin(math.pi / (2 * POINTS)))
"""Logarithm of the width of the first and of the last cell."""

_EDGE = 1e-3
"""A PRM score is never taken as surer than this."""


class Observation(Struct, frozen=True):
    """A sample as a belief sees it.

    Attributes:
        group: Which answer it gave, from 0; -1 if none.
        score: Its PRM score in [0, 1]; None if it has none.
        tokens: What it cost.
        sampled: Whether it is an independent sample of the policy: only these say how often it is right. What a search
            chose still says which answer is.
    """

    group: int
    score: float | None = None
    tokens: float = 0.0
    sampled: bool = True


class AnswerLikelihood(Struct, frozen=True):
    """How samples are read; all of it is fitted by a calibration.

    Attributes:
        slope: Of the log-odds of an answer being right over the log-odds of its score; 0 trusts no score.
        intercept: The same where the score is 0.5.
        searched_slope: The same as `slope` for what a search under the same PRM chose: it looks better than it is.
        searched_intercept: Likewise.
        power: How evidence grows with the samples that gave an answer, as n^power: samples of one problem are alike.
        agreement: Concentration of the Chinese restaurant: the larger, the less wrong answers agree.
        count: How much of a sample a sample counts for in n and k: samples of one problem are alike.
    """

    slope: float = 1.0
    intercept: float = 0.0
    searched_slope: float = 0.7
    searched_intercept: float = -0.5
    power: float = 0.0
    agreement: float = 3.0
    count: float = 1.0

    def of(self, score: float, samples: int, sampled: bool = True) -> float:
        """Log-odds that an answer of `samples` solutions and this score is right, against wrong, at even odds."""
        clipped = min(max(score, _EDGE), 1 - _EDGE)
        slope = self.slope if sampled else self.searched_slope
        bias = self.intercept if sampled else self.searched_intercept
        return float((slope * math.log(clipped / (1 - clipped)) + bias) * samples**self.power)


class Posterior:
    """What is known of one problem.

    Args:
        joint: Probabilities of shape (answers + 1, POINTS): row g is "answer g is right", the last row "none is".
        seen: The samples so far.
    """

    def __init__(self, joint: np.ndarray, seen: Sequence[Observation] = ()) -> None:
        self.joint = joint
        self.seen = tuple(seen)

    @cached_property
    def weights(self) -> np.ndarray:
        """Probability of each pass@1 of `GRID`."""
        return np.asarray(self.joint.sum(axis=0))

    @property
    def pass1(self) -> float:
        """Its mean."""
        return float(self.weights @ GRID)

    def quantile(self, share: float) -> float:
        """The pass@1 below which `share` of the probability lies."""
        return float(GRID[min(int(np.searchsorted(np.cumsum(self.weights), share)), POINTS - 1)])

    @property
    def levels(self) -> tuple[float, float, float]:
        """Probabilities of easy, medium and hard."""
        easy = float(self.weights[GRID >= EASY].sum())
        hard = float(self.weights[GRID <= HARD].sum())
        return easy, max(0.0, 1 - easy - hard), hard

    @cached_property
    def right(self) -> tuple[float, ...]:
        """Probability of each answer being right, by group."""
        return tuple(float(value) for value in self.joint[:-1].sum(axis=1))


def prior(mean: float, concentration: float) -> Posterior:
    """The belief before any sample: a Beta distribution of pass@1.

    Args:
        mean: Of pass@1, in (0, 1).
        concentration: How sure that is, in samples.
    """
    a, b = mean * concentration, (1 - mean) * concentration
    log = (a - 1) * _LOG + (b - 1) * _LOG_NOT + _LOG_WIDTH
    # In the outermost cells the density may grow beyond all bounds: there p^(a - 1) alone is integrated.
    log[0], log[-1] = a * _LOG_END - math.log(a), b * _LOG_END - math.log(b)
    weights = np.exp(log - log.max())
    return Posterior((weights / weights.sum())[None, :])


def update(prior: Posterior, seen: Sequence[Observation], evidence: AnswerLikelihood) -> Posterior:
    """The belief after samples.

    Args:
        prior: That before any sample.
        seen: All samples so far.
        evidence: How they are read.
    """
    groups = max((one.group for one in seen), default=-1) + 1
    gave = np.zeros(groups + 1)
    drew = np.zeros(groups + 1)
    best: list[tuple[float, bool] | None] = [None] * groups  # of equal scores a sample's tells more
    for one in seen:
        if one.group >= 0:
            gave[one.group] += 1
            drew[one.group] += one.sampled
            if one.score is not None:
                best[one.group] = max(best[one.group] or (-1.0, False), (one.score, one.sampled))
    own = [0.0 if top is None else evidence.of(top[0], int(gave[group]), top[1]) for group, top in enumerate(best)]
    rest = [_agreement(np.delete(gave[:groups], group), evidence.agreement) for group in range(groups)]
    bonus = np.array([*map(sum, zip(own, rest, strict=True)), _agreement(gave[:groups], evidence.agreement)])
    right = evidence.count * drew[:, None]
    total = evidence.count * sum(one.sampled for one in seen)
    log = np.log(prior.weights + 1e-300) + right * _LOG + (total - right) * _LOG_NOT + bonus[:, None]
    joint = np.exp(log - log.max())
    return Posterior(joint / joint.sum(), seen)


def _agreement(sizes: np.ndarray, concentration: float) -> float:
    """Log-probability that wrong answers fall into groups of these sizes."""
    total = float(sizes.sum())
    return (
        len(sizes) * math.log(concentration)
        + sum(math.lgamma(size) for size in sizes)
        + math.lgamma(concentration)
        - math.lgamma(concentration + total)
    )


class KernelNeighbours(Struct, frozen=True):
    """Prompts that were sampled: one that is like them is as hard as they were, one that is not learns nothing of them.

    Attributes:
        rows: Their standardized features, those of equal prompts once.
        problems: How many prompts each row stands for.
        shares: Sum of the shares of right answers over these.
        width: How alike counts: with a mean squared difference d of the features a row weighs exp(-d / width).
        weight: How many samples a problem of a row is worth at most.
    """

    rows: tuple[tuple[float, ...], ...]
    problems: tuple[int, ...]
    shares: tuple[float, ...]
    width: float
    weight: float

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.problems) == len(self.shares) or self.width <= 0 or self.weight < 0:
            raise ValueError("sampled prompts have a count and a share a row, and a width greater than 0")

    def counts(self, values: Sequence[float]) -> tuple[float, float]:
        """Samples that the rows are worth for a prompt: right ones, wrong ones."""
        gaps = ((np.array(self.rows) - np.array(values)) ** 2).mean(axis=1)
        weights = self.weight * np.exp(-gaps / self.width)
        right = float(weights @ np.array(self.shares))
        return right, float(weights @ np.array(self.problems)) - right


class DifficultyModel(Struct, frozen=True):
    """What is expected of a prompt: a Beta distribution of pass@1 by its features.

    Its mean is a logistic regression on what holds for all prompts, which is held back strongly; to that come the
    counts of prompts that were sampled and are like this one.

    Attributes:
        names: Of the features that it was fitted on.
        centre: Their means.
        spread: Their standard deviations.
        weights: One each.
        bias: Log-odds of the mean where all features are average.
        concentration: How sure the regression's mean is, in samples.
        near: The sampled prompts; None without any.
    """

    names: tuple[str, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    concentration: float
    neighbours: KernelNeighbours | None = None

    def __post_init__(self) -> None:
        sizes = {len(values) for values in (self.names, self.centre, self.spread, self.weights)}
        if len(sizes) > 1 or (
            self.neighbours is not None and any(len(row) not in sizes for row in self.neighbours.rows)
        ):
            raise ValueError("an outlook has as many names as means, deviations, weights, and values a row")
        if self.concentration <= 0 or any(spread <= 0 for spread in self.spread):
            raise ValueError("concentration and deviations of an outlook are greater than 0")

    def counts(self, values: Sequence[float]) -> tuple[float, float]:
        """The Beta distribution of a prompt with these features, as right and wrong samples.

        Raises:
            ValueError: There are more or fewer values than features.
        """
        total, scaled = self.bias, []
        for value, centre, spread, weight in zip(values, self.centre, self.spread, self.weights, strict=True):
            scaled.append(min(max((value - centre) / spread, -3.0), 3.0))  # beyond what it was fitted on it is blind
            total += weight * scaled[-1]
        mean = min(max(1 / (1 + math.exp(-total)), 0.002), 0.998)
        right, wrong = (0.0, 0.0) if self.neighbours is None else self.neighbours.counts(scaled)
        return self.concentration * mean + right, self.concentration * (1 - mean) + wrong

    def mean(self, values: Sequence[float]) -> float:
        """The mean of pass@1 for a prompt with these features."""
        right, wrong = self.counts(values)
        return right / (right + wrong)

    def prior(self, values: Sequence[float]) -> Posterior:
        """The belief before any sample."""
        right, wrong = self.counts(values)
        return prior(right / (right + wrong), right + wrong)
