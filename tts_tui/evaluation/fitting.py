"""Fits the parts of a calibration to cases: outlook, evidence, curves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln

from tts_tui.calibration import Curve, Place, Start
from tts_tui.controller import SAMPLING, odds, position, start
from tts_tui.difficulty import GRID, Belief, Evidence, Outlook, after
from tts_tui.evaluation.cases import Case, Drawn, Hand, draws, joined, shuffled
from tts_tui.plan import SCORES, Score, Vote

SIZES = (1, 2, 4, 8)
"""Sizes of the beginnings that searches are learnt to go on from."""
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_CONCENTRATIONS = tuple(float(value) for value in np.geomspace(0.3, 12.0, 16))
_REDRAWS = 4
_SHRINKAGE = 2.0
"""How much a prior weighs, as the precision of a curve's weights."""


def folds(cases: Sequence[Case], count: int, seed: int = 0) -> list[int]:
    """Which fold each case is in: `count` of them, families spread evenly."""
    order = sorted(
        range(len(cases)), key=lambda at: (cases[at].family, random.Random(f"{seed}{cases[at].id}").random())
    )
    placed = [0] * len(cases)
    for place, at in enumerate(order):
        placed[at] = place % count
    return placed


# -- score and vote ----------------------------------------------------------------------------------------------------


def best_vote(cases: Sequence[Case], usual: tuple[Score, Vote], margin: float = 0.01) -> tuple[Score, Vote]:
    """The score and the vote that suit the pool best; the usual pair unless another is better by `margin`."""
    rng = random.Random(0)
    halves = [draws(case, rng)[: max(1, len(case.pool) // 2)] for case in cases for _ in range(_REDRAWS)]
    pairs: list[tuple[Score, Vote]] = [(score, vote) for score in SCORES for vote in ("prm-max", "prm-vote")]
    found = {}
    for score, vote in pairs:
        hands = []
        for half in halves:
            hand = Hand(score, vote)
            hand.add(half)
            hands.append(hand.is_right)
        found[score, vote] = fmean(hands)
    best = max(pairs, key=lambda pair: found[pair])
    return best if found[best] > found.get(usual, 0.0) + margin else usual


# -- before any sample -------------------------------------------------------------------------------------------------


def outlook(cases: Sequence[Case], names: Sequence[str], seed: int = 0) -> tuple[Outlook, list[float]]:
    """The outlook, and what it would have said of each case had it not been fitted on it.

    How strongly weights are held back is chosen by the likelihood of problems, and of whole families, that a fit has
    not seen: what only tells families apart is worth little.
    """
    right = np.array([case.right for case in cases], dtype=float)
    total = np.array([len(case.pool) for case in cases], dtype=float)
    return _outlook(cases, names, right, total, seed)


def reach(cases: Sequence[Case], names: Sequence[str], score: Score, vote: Vote) -> tuple[Outlook, list[float]]:
    """From a prompt to how often the largest plans that were measured are right; likewise crossed."""
    right, total = np.zeros(len(cases)), np.zeros(len(cases))
    for at, case in enumerate(cases):
        for drawn in (case.pool, *(search.solutions for search in case.searches.values())):
            hand = Hand(score, vote)
            hand.add(drawn)
            right[at] += hand.is_right
            total[at] += 1
    return _outlook(cases, names, right, total, 0)


def _outlook(
    cases: Sequence[Case], names: Sequence[str], right: np.ndarray, total: np.ndarray, seed: int
) -> tuple[Outlook, list[float]]:
    values = np.array([case.values for case in cases])
    by_problem = np.array(folds(cases, 10, seed))
    families = sorted({case.family for case in cases})
    splits = [by_problem]
    if len(families) >= 4:
        splits.append(np.array([families.index(case.family) for case in cases]))
    best: tuple[float, float, float, np.ndarray] | None = None
    for strength in _STRENGTHS:
        means = [_crossed(values, right, total, split, strength) for split in splits]
        fits = [max((_likelihood(right, total, mean, c), c) for c in _CONCENTRATIONS) for mean in means]
        quality = fmean(fit[0] for fit in fits)
        if best is None or quality > best[0]:
            best = quality, strength, fits[0][1], means[0]
    assert best is not None
    _, strength, concentration, crossed = best
    centre, spread = _scale(values)
    weights, bias = _regress(_standard(values, centre, spread), right, total, strength)
    found = Outlook(
        tuple(names), _floats(centre), _floats(spread), _floats(weights), round(float(bias), 5), round(concentration, 3)
    )
    return found, [float(value) for value in crossed]


def _standard(values: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.clip((values - centre) / spread, -3.0, 3.0)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations; 1 where a feature is always the same."""
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread < 0.01, 1.0, spread)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def _regress(values: np.ndarray, right: np.ndarray, total: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression on shares, each problem counting once."""
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
    """Means of pass@1 that fits on the other parts of the split say."""
    means = np.zeros(len(values))
    for part in np.unique(split):
        own = split == part
        centre, spread = _scale(values[~own])
        weights, bias = _regress(_standard(values[~own], centre, spread), right[~own], total[~own], strength)
        means[own] = expit(_standard(values[own], centre, spread) @ weights + bias)
    return np.clip(means, 0.002, 0.998)


def _likelihood(right: np.ndarray, total: np.ndarray, mean: np.ndarray, concentration: float) -> float:
    """Mean log-likelihood of the counts under Beta-binomial distributions."""
    a, b = mean * concentration, (1 - mean) * concentration
    ways = gammaln(total + 1) - gammaln(right + 1) - gammaln(total - right + 1)
    return float((ways + betaln(right + a, total - right + b) - betaln(a, b)).mean())


# -- after samples -----------------------------------------------------------------------------------------------------


class Beginning(Struct, frozen=True):
    """Some samples of a case, and what of it they do not show.

    Attributes:
        at: Place of the case.
        hand: The samples.
        right: How many of the other samples are right.
        rest: How many others there are.
    """

    at: int
    hand: Hand
    right: int
    rest: int


def beginnings(
    cases: Sequence[Case],
    score: Score,
    vote: Vote,
    sizes: Sequence[int] = SIZES,
    redraws: int = _REDRAWS,
    seed: int = 0,
    *,
    searches: bool = True,
) -> Iterator[Beginning]:
    """Random beginnings of all sizes that leave others over; with `searches` most have some of what one chose."""
    rng = random.Random(seed)
    for at, case in enumerate(cases):
        for size in sizes:
            for _ in range(redraws if size < len(case.pool) else 0):
                order = draws(case, rng)
                hand = Hand(score, vote)
                hand.add(order[:size])
                if searches and case.searches and rng.random() < 0.6:
                    search = rng.choice(list(case.searches.values()))
                    hand.add(joined(shuffled(search, rng)[: rng.randint(1, len(search.parts))]))
                yield Beginning(at, hand, sum(one.right for one in order[size:]), len(order) - size)


def evidence(
    cases: Sequence[Case], priors: Sequence[Belief], score: Score, vote: Vote, usual: Evidence, effort: int = 220
) -> Evidence:
    """How samples are to be read: what makes right answers, and the other samples, most likely."""
    found = list(beginnings(cases, score, vote, redraws=2))
    scored = any(seen.score is not None for one in found for seen in one.hand.seen)

    def unpack(x: np.ndarray) -> Evidence:
        trust = 1.0 if scored else 0.0
        return Evidence(
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
            belief = after(priors[one.at], one.hand.seen, how)
            total -= float(np.log(belief.joint[one.hand.right_group].sum() + 1e-9))
            total -= float(np.log(predictive(belief, one.rest)[one.right] + 1e-9))
        return (total + _SHRINKAGE * float(((x - start) ** 2).sum())) / len(found)

    start = np.array([getattr(usual, name) for name in usual.__struct_fields__], dtype=float)
    best = minimize(loss, start, method="Nelder-Mead", options={"maxfev": effort})
    how = unpack(best.x)
    rounded = {name: round(float(getattr(how, name)), 4) for name in how.__struct_fields__}
    return replace(how, **rounded)


def predictive(belief: Belief, total: int) -> np.ndarray:
    """Probabilities of 0 … `total` right ones among as many further samples."""
    right = np.arange(total + 1)[:, None]
    ways = gammaln(total + 1) - gammaln(right + 1) - gammaln(total - right + 1)
    chances = np.exp(ways + right * np.log(GRID) + (total - right) * np.log1p(-GRID))
    return np.asarray(chances @ belief.weights)


# -- curves ------------------------------------------------------------------------------------------------------------


class Step(Struct, frozen=True):
    """One way on from a beginning: where it began, whether it was right, whether it is right afterwards."""

    strategy: str
    place: Place
    was: bool
    now: bool


def steps(
    cases: Sequence[Case],
    priors: Sequence[Belief],
    reaches: Sequence[float],
    how: Evidence,
    score: Score,
    vote: Vote,
) -> Iterator[Step]:
    """What going on from random beginnings came to, by every strategy that was measured."""
    sampling = "majority" if vote == "majority" else "best-of-n"
    rng = random.Random(1)
    for at, case in enumerate(cases):
        for size in SIZES:
            for _ in range(_REDRAWS if size < len(case.pool) else 0):
                order = draws(case, rng)
                parts = {name: shuffled(found, rng) for name, found in case.searches.items()}
                hand = Hand(score, vote)
                hand.add(order[:size])
                had, begun = size, _some(case, parts, rng)
                for name, count in begun.items():
                    hand.add(joined(parts[name][:count]))
                    had += count * case.searches[name].width
                belief = after(priors[at], hand.seen, how)
                sure = belief.right[hand.elected] if hand.elected >= 0 else 0.0
                was = hand.is_right

                def step(strategy: str, more: int, drawn: Sequence[Drawn]) -> Step:
                    place = position(belief.pass1, sure, more, had, reaches[at])
                    return Step(strategy, place, was, _longer(hand, drawn))

                for end in _ends(size, len(order)):
                    yield step(sampling, end - size, order[size:end])
                for name, search in case.searches.items():
                    left = parts[name][begun.get(name, 0) :]
                    for count in range(1, len(left) + 1):
                        yield step(name, search.width * count, joined(left[:count]))


def _some(case: Case, parts: Mapping[str, Sequence[tuple[Drawn, ...]]], rng: random.Random) -> dict[str, int]:
    """How many parts of a search a beginning has already; mostly none, and never all."""
    divided = [name for name, search in case.searches.items() if len(search.parts) > 1]
    if not divided or rng.random() < 0.4:
        return {}
    name = rng.choice(divided)
    return {name: rng.randint(1, len(parts[name]) - 1)}


def _ends(size: int, most: int) -> list[int]:
    """Doubled sizes up to `most`, which is always one of them."""
    found = []
    while (size := max(1, size * 2)) < most:
        found.append(size)
    return [*found, most]


def _longer(hand: Hand, more: Sequence[Drawn]) -> bool:
    copied = Hand(hand.score, hand.vote)
    copied.add([*hand.drawn, *more])
    return copied.is_right


def curves(
    cases: Sequence[Case],
    priors: Sequence[Belief],
    reaches: Sequence[float],
    how: Evidence,
    score: Score,
    vote: Vote,
    usual: Sequence[Curve],
) -> tuple[Curve, ...]:
    """The curves of all strategies that were measured, held near the usual ones where little was."""
    taken: dict[str, list[Step]] = {}
    for step in steps(cases, priors, reaches, how, score, vote):
        taken.setdefault(step.strategy, []).append(step)
    found = []
    for curve in usual:
        own = taken.get(curve.strategy, [])
        alone, sizes, cost, count = _alone(cases, reaches, curve.strategy, score, vote)
        if not own or not count:
            continue
        each = len(own) / count  # steps of one problem are not independent: together they weigh as some problems
        found.append(
            Curve(
                strategy=curve.strategy,
                alone=ridge([x for x, _ in alone], [y for _, y in alone], curve.alone, len(alone) / count),
                win=ridge([s.place for s in own if not s.was], [s.now for s in own if not s.was], curve.win, each),
                lose=ridge([s.place for s in own if s.was], [not s.now for s in own if s.was], curve.lose, each),
                cost=round(cost, 4),
                sizes=tuple(sizes),
                problems=count,
            )
        )
    return tuple(found)


def _alone(
    cases: Sequence[Case], reaches: Sequence[float], strategy: str, score: Score, vote: Vote
) -> tuple[list[tuple[Start, bool]], list[int], float, int]:
    """What plans came to from nothing: places and results, sizes, cost of a candidate in samples, problems."""
    rng = random.Random(2)
    found: list[tuple[Start, bool]] = []
    sizes: set[int] = set()
    costs: list[tuple[float, float]] = []
    for case, far in zip(cases, reaches, strict=True):
        x = odds((case.right + 0.3) / (len(case.pool) + 0.6), 0.003)
        sample = fmean(one.tokens for one in case.pool)
        taken: dict[int, Sequence[Drawn]] = {}
        if strategy in SAMPLING:
            order, whole = draws(case, rng), (sample, sample)
            taken = {n: order[:n] for n in (1, *_ends(1, len(order)))}
        elif strategy in case.searches:
            search = case.searches[strategy]
            parts, whole = shuffled(search, rng), (search.tokens / search.n, sample)
            taken = {search.width * count: joined(parts[:count]) for count in range(1, len(parts) + 1)}
        else:
            continue
        for n, drawn in taken.items():
            hand = Hand(score, vote)
            hand.add(drawn)
            found.append((start(x, n, far), hand.is_right))
            sizes.add(n)
        costs.append(whole)
    total = sum(sample for _, sample in costs)
    return found, sorted(sizes), sum(own for own, _ in costs) / total if total else 1.0, len(costs)


def ridge(
    places: Sequence[Sequence[float]], results: Sequence[bool], centre: Sequence[float], each: float
) -> tuple[float, ...]:
    """Weights of a curve (`tts_tui.controller.chance`) that are drawn to `centre` rather than to 0.

    Args:
        places: Of shape (results, 4).
        results: What was seen.
        centre: The prior's weights.
        each: How many results are about as much evidence as one problem.
    """
    about = np.array(centre)
    if not results:
        return tuple(float(value) for value in about)
    x, y = np.array(places), np.array(results, dtype=float)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        rate = np.exp(np.clip(x @ weights, -20.0, 4.0))
        chance = -np.expm1(-rate) + 1e-12
        pull = weights - about
        value = float((rate * (1 - y) - y * np.log(chance)).sum()) / each + _SHRINKAGE / 2 * float(pull @ pull)
        error = rate * ((1 - y) - y * np.exp(-rate) / chance)
        return value, x.T @ error / each + _SHRINKAGE * pull

    best = minimize(loss, about, jac=True, method="L-BFGS-B")
    return tuple(round(float(value), 4) for value in best.x)


def mean_sample(cases: Sequence[Case]) -> float:
    """Mean cost of a sample in tokens."""
    return fmean(fmean(one.tokens for one in case.pool) for case in cases)


__all__ = ["beginnings", "best_vote", "curves", "evidence", "folds", "mean_sample", "outlook", "predictive"]
