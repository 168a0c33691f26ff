"""Fits how often plans end right: from nothing, and on top of what is there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np
from msgspec import Struct
from scipy.optimize import minimize

from tts_tui.controller.calibration import ContinueFeatures, Curve, StartFeatures
from tts_tui.controller.controller import SAMPLING, logit, position, start
from tts_tui.controller.difficulty import AnswerLikelihood, Posterior, update
from tts_tui.plan import Score, Vote
from tts_tui.training.controller.cases import Case, Sample, SolutionSet, draws, joined, shuffled
from tts_tui.training.controller.difficulty_fit import REDRAWS, SHRINKAGE, SIZES


class Step(Struct, frozen=True):
    """One way on from a beginning: where it began, whether it was right, whether it is right afterwards."""

    strategy: str
    place: ContinueFeatures
    was: bool
    now: bool


class Stand(Struct, frozen=True):
    """A beginning, and what may come after it.

    Attributes:
        hand: Its solutions.
        had: Candidates that they took.
            samples: Further samples.
        parts: Further parts of every search.
    """

    hand: SolutionSet
    had: int
    pass1: float
    sure: float
    reach: float
    samples: Sequence[Sample]
    parts: Mapping[str, Sequence[tuple[Sample, ...]]]

    def step(self, strategy: str, more: int, drawn: Sequence[Sample]) -> Step:
        """What becomes of it with `drawn`, which took `more` candidates."""
        longer = SolutionSet(self.hand.score, self.hand.vote)
        longer.add([*self.hand.drawn, *drawn])
        place = position(self.pass1, self.sure, more, self.had, self.reach)
        return Step(strategy, place, self.hand.is_right, longer.is_right)


def steps(
    cases: Sequence[Case],
    priors: Sequence[Posterior],
    reaches: Sequence[float],
    how: AnswerLikelihood,
    score: Score,
    vote: Vote,
) -> Iterator[Step]:
    """What going on from random beginnings came to, by every strategy that was measured."""
    sampling = "majority" if vote == "majority" else "best-of-n"
    for case, prior, reach in zip(cases, priors, reaches, strict=True):
        for stand in _stands(case, prior, reach, how, SolutionSet(score, vote)):
            for end in _ends(len(case.pool) - len(stand.samples), len(case.pool)):
                more = end - (len(case.pool) - len(stand.samples))
                yield stand.step(sampling, more, stand.samples[:more])
            for name, left in stand.parts.items():
                for count in range(1, len(left) + 1):
                    yield stand.step(name, case.searches[name].width * count, joined(left[:count]))


def _stands(case: Case, prior: Posterior, reach: float, how: AnswerLikelihood, empty: SolutionSet) -> Iterator[Stand]:
    """Random beginnings of a case, of all sizes that leave samples over."""
    rng = random.Random(f"1{case.id}")
    for size in SIZES:
        for _ in range(REDRAWS if size < len(case.pool) else 0):
            order = draws(case, rng)
            parts = {name: shuffled(found, rng) for name, found in case.searches.items()}
            hand = SolutionSet(empty.score, empty.vote)
            hand.add(order[:size])
            had, begun = size, _some(case, parts, rng)
            for name, count in begun.items():
                hand.add(joined(parts[name][:count]))
                had += count * case.searches[name].width
            belief = update(prior, hand.seen, how)
            sure = belief.right[hand.elected] if hand.elected >= 0 else 0.0
            left = {name: own[begun.get(name, 0) :] for name, own in parts.items()}
            yield Stand(hand, had, belief.pass1, sure, reach, order[size:], left)


def _some(case: Case, parts: Mapping[str, Sequence[tuple[Sample, ...]]], rng: random.Random) -> dict[str, int]:
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


def curves(
    cases: Sequence[Case],
    priors: Sequence[Posterior],
    reaches: Sequence[float],
    how: AnswerLikelihood,
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
                alone=ridge(  # type: ignore[arg-type]
                    [x for x, _ in alone], [y for _, y in alone], curve.alone, len(alone) / count
                ),
                win=ridge(  # type: ignore[arg-type]
                    [s.place for s in own if not s.was], [s.now for s in own if not s.was], curve.win, each
                ),
                lose=ridge(  # type: ignore[arg-type]
                    [s.place for s in own if s.was], [not s.now for s in own if s.was], curve.lose, each
                ),
                cost=round(cost, 4),
                sizes=tuple(sizes),
                problems=count,
            )
        )
    return tuple(found)


def _alone(
    cases: Sequence[Case], reaches: Sequence[float], strategy: str, score: Score, vote: Vote
) -> tuple[list[tuple[StartFeatures, bool]], list[int], float, int]:
    """What plans came to from nothing: places and results, sizes, cost of a candidate in samples, problems."""
    rng = random.Random(2)
    found: list[tuple[StartFeatures, bool]] = []
    sizes: set[int] = set()
    costs: list[tuple[float, float]] = []
    for case, far in zip(cases, reaches, strict=True):
        x = logit((case.right + 0.3) / (len(case.pool) + 0.6), 0.003)
        sample = fmean(one.tokens for one in case.pool)
        taken: dict[int, Sequence[Sample]] = {}
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
            hand = SolutionSet(score, vote)
            hand.add(drawn)
            found.append((start(x, n, far), hand.is_right))
            sizes.add(n)
        costs.append(whole)
    total = sum(sample for _, sample in costs)
    return found, sorted(sizes), sum(own for own, _ in costs) / total if total else 1.0, len(costs)


def ridge(
    places: Sequence[Sequence[float]], results: Sequence[bool], centre: Sequence[float], each: float
) -> tuple[float, ...]:
    """Weights of a curve (`tts_tui.controller.controller.chance`) that are drawn to `centre` rather than to 0.

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
        value = float((rate * (1 - y) - y * np.log(chance)).sum()) / each + SHRINKAGE / 2 * float(pull @ pull)
        error = rate * ((1 - y) - y * np.exp(-rate) / chance)
        return value, x.T @ error / each + SHRINKAGE * pull

    best = minimize(loss, about, jac=True, method="L-BFGS-B")
    return tuple(round(float(value), 4) for value in best.x)
