"""Difficulty of a problem for a policy: the prior and the posterior distribution of its pass@1.

The prior is a Beta distribution, predicted from the problem's text and from the results on similar problems
(`DifficultyModel`). For the posterior, each of the samples' answers may be the right one, or none of them is. Every
such hypothesis, combined with every pass@1, gives the samples a likelihood (`AnswerLikelihood`), and Bayes' rule weighs
them. One calculation therefore yields both the difficulty and the probability that each answer is right (`Posterior`):

    P(p, h | samples)  ~  P(p)  x  p^k (1 - p)^(n - k)  x  likelihood ratio of the PRM scores of h, right against wrong
                                x  likelihood of how the other, wrong answers agree

where k of n samples gave answer h. Agreement of wrong answers is modelled as a Chinese restaurant process.
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
"""Values of pass@1 over which distributions are discretised, densest near 0 and 1."""
_LOG, _LOG_NOT = np.log(GRID), np.log1p(-GRID)
_LOG_WIDTH = np.log(np.sin(2 * _ANGLES) * math.pi / (2 * POINTS))
_LOG_END = 2 * math.log(math.sin(math.pi / (2 * POINTS)))
"""Logarithm of the width of the first and of the last cell."""

_EDGE = 1e-3
"""Distance from 0 and 1 to which PRM scores are clipped."""


class Observation(Struct, frozen=True):
    """A solution as an observation for the posterior.

    Attributes:
        group: Index of the answer that it gave, from 0; -1 if none.
        score: Its PRM score in [0, 1]; None if it has none.
        tokens: Its cost in tokens.
        sampled: Whether it is an independent sample of the policy. Only independent samples are evidence of pass@1;
            solutions chosen by a search are still evidence of which answer is right.
    """

    group: int
    score: float | None = None
    tokens: float = 0.0
    sampled: bool = True


class AnswerLikelihood(Struct, frozen=True):
    """Parameters of the likelihood of samples, fitted by a calibration.

    Attributes:
        slope: Slope of the logit of an answer being right over the logit of its score; 0 ignores scores.
        intercept: Logit of an answer being right if its score is 0.5.
        searched_slope: Like `slope`, for solutions chosen by a search under the same PRM, whose scores are optimistic.
        searched_intercept: Like `intercept`, for solutions chosen by a search under the same PRM.
        power: Exponent with which evidence grows with the number n of samples that gave an answer, as n^power, since
            samples of one problem are correlated.
        agreement: Concentration of the Chinese restaurant process; the larger, the less wrong answers agree.
        count: Effective weight of a sample in n and k, since samples of one problem are correlated.
    """

    slope: float = 1.0
    intercept: float = 0.0
    searched_slope: float = 0.7
    searched_intercept: float = -0.5
    power: float = 0.0
    agreement: float = 3.0
    count: float = 1.0

    def of(self, score: float, samples: int, sampled: bool = True) -> float:
        """Return the logit, at even prior odds, of an answer being right.

        Args:
            score: The answer's PRM score.
            samples: Number of solutions that gave the answer.
            sampled: Whether the score is that of an independent sample rather than of a solution chosen by a search.
        """
        clipped = min(max(score, _EDGE), 1 - _EDGE)
        slope = self.slope if sampled else self.searched_slope
        bias = self.intercept if sampled else self.searched_intercept
        return float((slope * math.log(clipped / (1 - clipped)) + bias) * samples**self.power)


class Posterior:
    """A distribution over one problem's pass@1 and over which of its answers is right.

    Args:
        joint: Joint probabilities of shape (answers + 1, POINTS): row g is "answer g is right", the last row is "none
            is".
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
        """Mean of pass@1."""
        return float(self.weights @ GRID)

    def quantile(self, share: float) -> float:
        """Return the pass@1 below which `share` of the probability lies."""
        return float(GRID[min(int(np.searchsorted(np.cumsum(self.weights), share)), POINTS - 1)])

    @property
    def levels(self) -> tuple[float, float, float]:
        """Probabilities that the problem is easy, medium and hard."""
        easy = float(self.weights[GRID >= EASY].sum())
        hard = float(self.weights[GRID <= HARD].sum())
        return easy, max(0.0, 1 - easy - hard), hard

    @cached_property
    def right(self) -> tuple[float, ...]:
        """Probability that each answer is right, by group."""
        return tuple(float(value) for value in self.joint[:-1].sum(axis=1))


def prior(mean: float, concentration: float) -> Posterior:
    """Return the prior, a Beta distribution of pass@1.

    Args:
        mean: Mean of pass@1, in (0, 1).
        concentration: Beta concentration, in samples.
    """
    a, b = mean * concentration, (1 - mean) * concentration
    log = (a - 1) * _LOG + (b - 1) * _LOG_NOT + _LOG_WIDTH
    # The density may be unbounded in the outermost cells: there only p^(a - 1) is integrated.
    log[0], log[-1] = a * _LOG_END - math.log(a), b * _LOG_END - math.log(b)
    weights = np.exp(log - log.max())
    return Posterior((weights / weights.sum())[None, :])


def update(prior: Posterior, seen: Sequence[Observation], evidence: AnswerLikelihood) -> Posterior:
    """Return the posterior after samples.

    Args:
        prior: The prior, before any sample.
        seen: All samples so far.
        evidence: The likelihood of samples.
    """
    groups = max((one.group for one in seen), default=-1) + 1
    gave = np.zeros(groups + 1)
    drew = np.zeros(groups + 1)
    best: list[tuple[float, bool] | None] = [None] * groups  # of equal scores, an independent sample's wins
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
    """Return the log-probability that wrong answers fall into groups of these sizes."""
    total = float(sizes.sum())
    return (
        len(sizes) * math.log(concentration)
        + sum(math.lgamma(size) for size in sizes)
        + math.lgamma(concentration)
        - math.lgamma(concentration + total)
    )


class KernelNeighbours(Struct, frozen=True):
    """Sampled prompts with a kernel over their features: similar prompts share evidence, dissimilar ones do not.

    Attributes:
        rows: Their standardized features, one row for each set of prompts with equal features.
        problems: Number of prompts that each row stands for.
        shares: Sum of these prompts' shares of right answers.
        width: Kernel width: at a mean squared difference d of the features, a row has weight exp(-d / width).
        weight: Maximum number of samples that a prompt of a row counts for.
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
        """Return the pseudo-counts of right and wrong samples that the rows contribute to a prompt."""
        gaps = ((np.array(self.rows) - np.array(values)) ** 2).mean(axis=1)
        weights = self.weight * np.exp(-gaps / self.width)
        right = float(weights @ np.array(self.shares))
        return right, float(weights @ np.array(self.problems)) - right


class DifficultyModel(Struct, frozen=True):
    """A model that predicts the prior of a prompt: a Beta distribution of pass@1, from its features.

    Its mean is a strongly regularized logistic regression over all prompts, to which the pseudo-counts of similar
    sampled prompts are added.

    Attributes:
        names: Names of the features that it was fitted on.
        centre: Means of the features.
        spread: Standard deviations of the features.
        weights: Weights of the standardized features.
        bias: Logit of the regression's mean if all features are average.
        concentration: Beta concentration of the regression's mean, in samples.
        neighbours: The sampled prompts; None without any.
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
        """Return the Beta distribution of a prompt with these features, as counts of right and wrong samples.

        Raises:
            ValueError: The number of values differs from the number of features.
        """
        total, scaled = self.bias, []
        for value, centre, spread, weight in zip(values, self.centre, self.spread, self.weights, strict=True):
            scaled.append(min(max((value - centre) / spread, -3.0), 3.0))  # no extrapolation beyond the fitted range
            total += weight * scaled[-1]
        mean = min(max(1 / (1 + math.exp(-total)), 0.002), 0.998)
        right, wrong = (0.0, 0.0) if self.neighbours is None else self.neighbours.counts(scaled)
        return self.concentration * mean + right, self.concentration * (1 - mean) + wrong

    def mean(self, values: Sequence[float]) -> float:
        """Return the expected pass@1 of a prompt with these features."""
        right, wrong = self.counts(values)
        return right / (right + wrong)

    def prior(self, values: Sequence[float]) -> Posterior:
        """Return the prior of a prompt with these features."""
        right, wrong = self.counts(values)
        return prior(right / (right + wrong), right + wrong)
