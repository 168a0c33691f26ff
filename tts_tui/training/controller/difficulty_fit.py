"""Fits of the parts of a calibration: hidden-state projection, difficulty model, solvability and likelihood."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import fmean

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln

from tts_tui.controller.calibration import HiddenStateProjection
from tts_tui.controller.difficulty import (
    GRID,
    AnswerLikelihood,
    DifficultyModel,
    KernelNeighbours,
    Posterior,
    prior,
    update,
)
from tts_tui.plan import Score, Vote
from tts_tui.training.controller.cases import Case, SolutionSet, draws, joined, shuffled

SIZES = (1, 2, 4, 8)
"""Numbers of samples in the beginnings from which continuations are learned."""
_STRENGTHS = (0.01, 0.03, 0.1)
_CONCENTRATIONS = (0.3, 0.5, 0.8, 1.2, 2.0)
_WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.3)
_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
_STEPS = (0.4, 0.4, 0.4, 0.5, 0.2, 0.8, -0.2)
"""Initial simplex steps for the fields of `AnswerLikelihood`; Nelder-Mead's default is 5 %, or almost nothing at 0."""
REDRAWS = 4
SHRINKAGE = 2.0
"""Precision of the Gaussian prior on a curve's weights."""


def folds(cases: Sequence[Case], count: int, seed: int = 0) -> list[int]:
    """Assign each case to one of `count` folds, with families spread evenly."""
    order = sorted(
        range(len(cases)), key=lambda at: (cases[at].family, random.Random(f"{seed}{cases[at].id}").random())
    )
    placed = [0] * len(cases)
    for place, at in enumerate(order):
        placed[at] = place % count
    return placed


# -- before any sample -------------------------------------------------------------------------------------------------


def reader(cases: Sequence[Case], count: int) -> HiddenStateProjection | None:
    """Return the `count` directions in which the cases' hidden states vary most; None if there are too few states."""
    states = np.array([case.state for case in cases if case.state], dtype=float)
    if not count or len(states) <= count:
        return None
    centre = states.mean(axis=0)
    _, _, axes = np.linalg.svd(states - centre, full_matrices=False)
    return HiddenStateProjection(_floats(centre), tuple(_floats(axis) for axis in axes[:count]))


def outlook(
    cases: Sequence[Case], names: Sequence[str], seed: int = 0
) -> tuple[DifficultyModel, list[Posterior], float]:
    """Fit the difficulty model; return it, out-of-fold priors of the cases, and their quality."""
    right = np.array([case.right for case in cases], dtype=float)
    total = np.array([len(case.pool) for case in cases], dtype=float)
    found, (a, b), quality = _outlook(cases, names, right, total, seed)
    return found, [prior(float(x / (x + y)), float(x + y)) for x, y in zip(a, b, strict=True)], quality


def reach(cases: Sequence[Case], names: Sequence[str], score: Score, vote: Vote) -> tuple[DifficultyModel, list[float]]:
    """Fit the solvability: how often the largest measured plans are right. Return it and its out-of-fold means."""
    right, total = np.zeros(len(cases)), np.zeros(len(cases))
    for at, case in enumerate(cases):
        for drawn in (case.pool, *(search.solutions for search in case.searches.values())):
            hand = SolutionSet(score, vote)
            hand.add(drawn)
            right[at] += hand.is_right
            total[at] += 1
    found, (a, b), _ = _outlook(cases, names, right, total, 0)
    return found, [float(x / (x + y)) for x, y in zip(a, b, strict=True)]


Counts = tuple[np.ndarray, np.ndarray]
"""Counts of right and of wrong samples, the parameters of one Beta distribution per case."""


def _outlook(
    cases: Sequence[Case], names: Sequence[str], right: np.ndarray, total: np.ndarray, seed: int
) -> tuple[DifficultyModel, Counts, float]:
    """Fit a difficulty model, with the regularization chosen by the likelihood of held-out cases.

    Held-out problems have weight 1 and held-out families weight 0.5, as features that only distinguish families are
    worth little.
    """
    values = np.array([case.values for case in cases])
    centre, spread = _scale(values)
    scaled = np.round(_standard(values, centre, spread), 2)
    gaps = ((scaled[:, None] - scaled[None]) ** 2).mean(axis=-1)
    families = sorted({case.family for case in cases})
    family = np.array([families.index(case.family) for case in cases])
    views = [(1.0, np.array(folds(cases, 10, seed)), 1 - np.eye(len(cases)))]
    if len(families) >= 4:
        views.append((0.5, family, (family[:, None] != family[None]).astype(float)))
    best: tuple[float, tuple[float, float, float, float], Counts] | None = None
    for strength in _STRENGTHS:
        means = [_crossed(values, right, total, split, strength) for _, split, _ in views]
        for width, weight, concentration in product(_WIDTHS, _WEIGHTS, _CONCENTRATIONS):
            found = [
                _counts(gaps, mask, right / total, mean, (width, weight, concentration))
                for (_, _, mask), mean in zip(views, means, strict=True)
            ]
            quality = sum(
                trust * _likelihood(right, total, *own) for (trust, _, _), own in zip(views, found, strict=True)
            )
            if best is None or quality > best[0]:
                best = quality, (strength, width, weight, concentration), found[0]
    assert best is not None
    quality, (strength, width, weight, concentration), crossed = best
    weights, bias = _regress(_standard(values, centre, spread), right, total, strength)
    near = _near(scaled, right / total, width, weight)
    return (
        DifficultyModel(
            tuple(names), _floats(centre), _floats(spread), _floats(weights), round(bias, 5), concentration, near
        ),
        crossed,
        quality,
    )


def _counts(
    gaps: np.ndarray, mask: np.ndarray, share: np.ndarray, mean: np.ndarray, settings: tuple[float, float, float]
) -> Counts:
    """Return the Beta counts of every case, given the other cases that the mask makes visible."""
    width, weight, concentration = settings
    near = weight * np.exp(-gaps / width) * mask
    return concentration * mean + near @ share, concentration * (1 - mean) + near @ (1 - share)


def _near(scaled: np.ndarray, share: np.ndarray, width: float, weight: float) -> KernelNeighbours:
    """Return the cases as neighbours, with cases of equal features merged."""
    together: dict[tuple[float, ...], list[float]] = {}
    for row, own in zip(scaled, share, strict=True):
        together.setdefault(tuple(float(value) for value in row), []).append(float(own))
    return KernelNeighbours(
        tuple(together),
        tuple(len(own) for own in together.values()),
        tuple(round(sum(own), 4) for own in together.values()),
        width,
        weight,
    )


def _standard(values: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.clip((values - centre) / spread, -3.0, 3.0)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations; the latter are 1 if a feature is constant up to rounding."""
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread < 1e-6, 1.0, spread)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def _regress(values: np.ndarray, right: np.ndarray, total: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Return weights and bias of a logistic regression on shares, with each problem counted once."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=1000)
    share = right / total
    both = np.concatenate([share, 1 - share]) + 1e-9
    labels = np.concatenate([np.ones(len(share)), np.zeros(len(share))])
    model.fit(np.vstack([values, values]), labels, sample_weight=both)
    return model.coef_[0], float(model.intercept_[0])


def _crossed(
    values: np.ndarray, right: np.ndarray, total: np.ndarray, split: np.ndarray, strength: float
) -> np.ndarray:
    """Return out-of-fold predictions of the mean of pass@1."""
    means = np.zeros(len(values))
    for part in np.unique(split):
        own = split == part
        centre, spread = _scale(values[~own])
        weights, bias = _regress(_standard(values[~own], centre, spread), right[~own], total[~own], strength)
        means[own] = expit(_standard(values[own], centre, spread) @ weights + bias)
    return np.clip(means, 0.002, 0.998)


def _likelihood(right: np.ndarray, total: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean log-likelihood of the counts under Beta-binomial distributions."""
    ways = gammaln(total + 1) - gammaln(right + 1) - gammaln(total - right + 1)
    return float((ways + betaln(right + a, total - right + b) - betaln(a, b)).mean())


# -- after samples -----------------------------------------------------------------------------------------------------


class Beginning(Struct, frozen=True):
    """Some samples of a case, and the result of its other samples.

    Attributes:
        at: Index of the case.
        hand: The samples.
        right: Number of right ones among the other samples.
        rest: Number of other samples.
    """

    at: int
    hand: SolutionSet
    right: int
    rest: int


def beginnings(
    cases: Sequence[Case],
    score: Score,
    vote: Vote,
    sizes: Sequence[int] = SIZES,
    redraws: int = REDRAWS,
    seed: int = 0,
    *,
    searches: bool = True,
) -> Iterator[Beginning]:
    """Yield random beginnings of all sizes that leave samples over; `searches` adds parts of a search to most."""
    rng = random.Random(seed)
    for at, case in enumerate(cases):
        for size in sizes:
            for _ in range(redraws if size < len(case.pool) else 0):
                order = draws(case, rng)
                hand = SolutionSet(score, vote)
                hand.add(order[:size])
                if searches and case.searches and rng.random() < 0.6:
                    search = rng.choice(list(case.searches.values()))
                    hand.add(joined(shuffled(search, rng)[: rng.randint(1, len(search.parts))]))
                yield Beginning(at, hand, sum(one.right for one in order[size:]), len(order) - size)


def evidence(
    cases: Sequence[Case],
    priors: Sequence[Posterior],
    score: Score,
    vote: Vote,
    usual: AnswerLikelihood,
    effort: int = 220,
) -> AnswerLikelihood:
    """Fit the likelihood: maximise the posterior of right answers and the likelihood of the other samples."""
    found = list(beginnings(cases, score, vote, redraws=2))
    scored = any(seen.score is not None for one in found for seen in one.hand.seen)

    def unpack(x: np.ndarray) -> AnswerLikelihood:
        trust = 1.0 if scored else 0.0
        return AnswerLikelihood(
            slope=trust * abs(x[0]),
            intercept=trust * x[1],
            searched_slope=trust * abs(x[2]),
            searched_intercept=trust * x[3],
            power=float(np.clip(x[4], 0, 1)),
            agreement=abs(x[5]) + 0.05,
            count=float(np.clip(abs(x[6]), 0.2, 1)),
        )

    def loss(x: np.ndarray) -> float:
        how = unpack(x)
        total = 0.0
        for one in found:
            belief = update(priors[one.at], one.hand.seen, how)
            total -= float(np.log(belief.joint[one.hand.right_group].sum() + 1e-9))
            total -= float(np.log(predictive(belief, one.rest)[one.right] + 1e-9))
        return (total + SHRINKAGE * float(((x - start) ** 2).sum())) / len(found)

    start = np.array([getattr(usual, name) for name in usual.__struct_fields__], dtype=float)
    first = np.vstack([start, start + np.diag(_STEPS)])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxfev": effort, "initial_simplex": first})
    how = unpack(best.x)
    rounded = {name: round(float(getattr(how, name)), 4) for name in how.__struct_fields__}
    return replace(how, **rounded)


def predictive(belief: Posterior, total: int) -> np.ndarray:
    """Return the posterior predictive probabilities of 0 … `total` right ones among `total` further samples."""
    right = np.arange(total + 1)[:, None]
    ways = gammaln(total + 1) - gammaln(right + 1) - gammaln(total - right + 1)
    chances = np.exp(ways + right * np.log(GRID) + (total - right) * np.log1p(-GRID))
    return np.asarray(chances @ belief.weights)


def mean_sample(cases: Sequence[Case]) -> float:
    """Return the mean cost of a sample in tokens."""
    return fmean(fmean(one.tokens for one in case.pool) for case in cases)
