"""Calibration from a run's outcomes: every part is fitted, and validated on problems that it was not fitted on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from statistics import fmean
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tts_tui._version import __version__
from tts_tui.controller import priors
from tts_tui.controller.calibration import Calibration, HiddenStateProjection, Point, names_of
from tts_tui.controller.controller import SAMPLING
from tts_tui.controller.difficulty import DifficultyModel, Posterior
from tts_tui.controller.prompt_features import NAMES, features
from tts_tui.errors import UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.plan import Plan, Score, Vote
from tts_tui.protocols import ModelInfo
from tts_tui.training.controller import curve_fit, difficulty_fit
from tts_tui.training.controller.cases import Case, SolutionSet, draws, joined, overhead, pool_of, searched, shuffled
from tts_tui.training.controller.simulation import Played, replayed
from tts_tui.training.controller.validation import forecasts, judged

FEWEST = 20
"""Minimum number of problems to fit a calibration on."""
FOLDS = 5
PROBES = (1, 2, 4)
PRICES = (0.08, 0.05, 0.03, 0.02, 0.014, 0.01, 0.007, 0.005, 0.0035, 0.0025, 0.0015, 0.001)
DIRECTIONS = (0, 8, 16, 24, 32)
"""Numbers of directions of hidden states that are tried."""
ENOUGH = 0.01
"""Maximum loss of accuracy, against the best price, that the default price may cause."""


class CalibratedModels(Struct, frozen=True):
    """The models that a calibration is made for.

    Attributes:
        policy: The policy.
        prm: The PRM; None without one.
        score: Aggregation of step scores that suits the PRM, if known.
        vote: Vote that suits the PRM, if known.
        overhead: Tokens of the PRM that a problem costs once (`tts_tui.training.controller.cases.overhead`).
    """

    policy: ModelInfo
    prm: ModelInfo | None
    score: Score = "last"
    vote: Vote = "prm-max"
    overhead: float = 0.0

    @property
    def weight(self) -> float:
        """Cost of a token of the PRM, in tokens of the policy."""
        return self.prm.parameters / max(1, self.policy.parameters) if self.prm else 0.0


def cases_of(
    items: Sequence[Item],
    outcomes: Mapping[tuple[str, str], Outcome],
    plans: Mapping[str, Plan],
    models: CalibratedModels,
    states: Mapping[str, tuple[float, ...]] | None = None,
) -> list[Case]:
    """Return the sampled problems with all searches that were run on them, without failed ones.

    Args:
        items: The problems.
        outcomes: Outcomes by plan and problem.
        plans: Plans by name.
        models: The models that produced the outcomes.
        states: The policy's hidden states on the prompts, by problem.
    """
    sampling = max((name for name in plans if plans[name].strategy in SAMPLING), key=lambda name: plans[name].n)
    trees = [name for name in plans if plans[name].strategy in ("beam", "dvts")]
    found = []
    for item in items:
        pool = outcomes.get((sampling, item.id))
        if pool is None or pool.reason == "failed" or len(pool.solutions) < 2:
            continue
        done = {name: one for name in trees if (one := outcomes.get((name, item.id))) and one.reason != "failed"}
        priced = (models.weight, models.overhead)
        searches = {plans[name].strategy: searched(one, plans[name], *priced) for name, one in done.items()}
        values, state = tuple(features(item.problem)), (states or {}).get(item.id, ())
        samples = pool_of(pool, *priced)
        found.append(Case(item.id, item.family or item.subject, values, samples, searches, state))
    return found


def overhead_of(items: Sequence[Item], outcomes: Mapping[tuple[str, str], Outcome], plans: Mapping[str, Plan]) -> float:
    """Return the tokens of the PRM that a problem costs once, by comparing samplings with few and many candidates."""
    sampling = sorted((name for name in plans if plans[name].strategy in SAMPLING), key=lambda name: plans[name].n)
    found = [[outcomes.get((name, item.id)) for name in (sampling[0], sampling[-1])] for item in items]
    return overhead([(few, many) for few, many in found if few and many and few.solutions and many.solutions])


def calibrate(
    cases: Sequence[Case],
    models: CalibratedModels,
    source: str,
    m: int = 4,
    tell: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Return the calibration fitted on the cases.

    Args:
        cases: Problems with pools of samples.
        models: The models that were sampled.
        source: The command that sampled them.
        m: Beam width of tree searches.
        tell: Called with a line of text about each stage of the work.

    Raises:
        UsageError: There are too few cases.
    """
    if len(cases) < FEWEST:
        raise UsageError(
            f"{len(cases)} problems with samples are too few to calibrate on: {FEWEST} are the least, 100 and more "
            "are good; raise --limit"
        )
    placed = difficulty_fit.folds(cases, FOLDS)
    apart = []
    for fold in range(FOLDS):
        tell(f"fitting, part {fold + 1} of {FOLDS + 1}")
        apart.append(fit([case for case, at in zip(cases, placed, strict=True) if at != fold], models, source))
    tell(f"fitting, part {FOLDS + 1} of {FOLDS + 1}")
    whole = fit(cases, models, source)
    tell("choosing strategies, on problems that were held out")
    trees = {name for case in cases for name in case.searches}
    played = [at for at, case in enumerate(cases) if trees <= case.searches.keys()] or list(range(len(cases)))
    own, folds = [cases[at] for at in played], [placed[at] for at in played]

    def worth(size: int, names: Sequence[str]) -> float:
        tried = [using(one, names) for one in apart]
        return _worth(_frontier(own, folds, tried, size, m, PRICES[1:9:2], 2), whole.sample_tokens)

    names = max(_choices(whole), key=lambda names: worth(PROBES[1], names))
    tell("choosing the number of first samples, on held-out problems")
    probe = max(PROBES, key=lambda size: worth(size, names))
    apart, whole = [using(one, names) for one in apart], using(whole, names)
    tell("measuring the chosen plans, on held-out problems")
    frontier = _frontier(own, folds, apart, probe, m, PRICES, 3)
    most = max(point.accuracy for point in frontier)
    usual = next(point.price for point in frontier if point.accuracy >= most - ENOUGH)
    early, late = forecasts(cases, [apart[at] for at in placed], min(4, min(len(case.pool) for case in cases) - 1))
    validation: dict[str, Any] = {
        "how": f"{FOLDS}-fold: each problem judged by parts that were fitted without it",
        "before the probe": judged(early),
        "after 4 samples": judged(late),
        "fixed plans": fixed(own, models.score, whole.vote, whole.overhead),
    }
    return replace(whole, probe=probe, price=usual, frontier=tuple(frontier), validation=validation)


def fit(cases: Sequence[Case], models: CalibratedModels, source: str) -> Calibration:
    """Fit all parts of a calibration except the frontier."""
    usual = priors.calibration(models.policy, models.prm, models.score, models.vote)
    score, vote = usual.score, usual.vote
    reader, cases, (outlook, beliefs) = _prompts(cases)
    reach, reaches = difficulty_fit.reach(
        cases, outlook.names, score, vote
    )  # cases without searches count by their samples alone
    how = difficulty_fit.evidence(cases, beliefs, score, vote, usual.likelihood)
    names = names_of(models.policy, models.prm)
    measured = [at for at, case in enumerate(cases) if case.searches] or list(range(len(cases)))
    return Calibration(
        policy=names[0],
        prm=names[1],
        source=source,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        problems=len(cases),
        samples=max(len(case.pool) for case in cases),
        score=score,
        vote=vote,
        sample_tokens=round(difficulty_fit.mean_sample(cases), 2),
        overhead=round(models.weight * models.overhead, 2),
        projection=reader,
        difficulty=outlook,
        solvability=reach,
        likelihood=how,
        curves=curve_fit.curves(
            [cases[at] for at in measured],
            [beliefs[at] for at in measured],
            [reaches[at] for at in measured],
            how,
            score,
            vote,
            usual.curves,
        ),
    )


def using(calibration: Calibration, names: Sequence[str]) -> Calibration:
    """Return a copy of the calibration that chooses only from the strategies with these names."""
    curves = tuple(replace(curve, used=curve.strategy in names) for curve in calibration.curves)
    return replace(calibration, curves=curves)


def _choices(calibration: Calibration) -> list[tuple[str, ...]]:
    """Return all sets of strategies to choose from, the largest first, so that it wins a tie."""
    names = [curve.strategy for curve in calibration.curves]
    return [chosen for size in range(len(names), 0, -1) for chosen in combinations(names, size)]


def _prompts(
    cases: Sequence[Case],
) -> tuple[HiddenStateProjection | None, list[Case], tuple[DifficultyModel, list[Posterior]]]:
    """Fit the difficulty model on text and hidden states, with the number of directions that is best on held-out cases.

    The cases are returned with the features that the model takes.
    """
    best: (
        tuple[float, tuple[HiddenStateProjection | None, list[Case], tuple[DifficultyModel, list[Posterior]]]] | None
    ) = None
    for count in DIRECTIONS:
        reader = difficulty_fit.reader(cases, count)
        if reader is None and count:
            continue
        own = [replace(case, values=(*case.values, *reader.values(case.state))) for case in cases] if reader else cases
        outlook, beliefs, quality = difficulty_fit.outlook(own, (*NAMES, *(reader.names if reader else ())))
        if best is None or quality > best[0]:
            best = quality, (reader, list(own), (outlook, beliefs))
    assert best is not None
    return best[1]


def _frontier(
    cases: Sequence[Case],
    placed: Sequence[int],
    apart: Sequence[Calibration],
    probe: int,
    m: int,
    prices: Sequence[float],
    redraws: int,
) -> list[Point]:
    """Return the cost and accuracy of choosing at every price, each case under a calibration fitted without it."""
    points = []
    for price in prices:
        played: list[Played] = []
        for fold, calibration in enumerate(apart):
            own = [case for case, at in zip(cases, placed, strict=True) if at == fold]
            played += replayed(own, replace(calibration, probe=probe), price, m, redraws)
        points.append(
            Point(price, round(fmean(one.tokens for one in played), 1), round(fmean(one.right for one in played), 4))
        )
    return points


def _worth(points: Sequence[Point], sample_tokens: float) -> float:
    """Return the quality of a frontier: the mean over prices of accuracy minus price times cost in samples."""
    return fmean(point.accuracy - point.price * point.tokens / sample_tokens for point in points)


def fixed(cases: Sequence[Case], score: Score, vote: Vote, once: float = 0.0) -> dict[str, list[float]]:
    """Return accuracy and mean cost of fixed plans on the cases, by name of the plan.

    Args:
        cases: The problems.
        score: Aggregation of step scores, for all plans except majority voting, which costs no scoring.
        vote: Vote, for all plans except majority voting.
        once: Cost of scoring a problem that does not depend on how much is sampled.
    """
    rng = random.Random(3)
    found: dict[str, list[tuple[bool, float]]] = {}

    def note(name: str, drawn: Sequence[Any], tokens: float, by: Vote) -> None:
        hand = SolutionSet(score, by)
        hand.add(drawn)
        found.setdefault(name, []).append((hand.is_right, tokens))

    for case in cases:
        for _ in range(4):
            order = draws(case, rng)
            n = 1
            while n <= len(order):
                note(f"majority:{n}", order[:n], sum(one.length for one in order[:n]), "majority")
                if vote != "majority":
                    note(f"best-of-n:{n}", order[:n], once + sum(one.tokens for one in order[:n]), vote)
                n *= 2
            for name, search in case.searches.items():
                parts = shuffled(search, rng)
                for count in range(1, len(parts) + 1):
                    tokens = once + search.tokens * count / len(parts)
                    note(f"{name}:{search.width * count}", joined(parts[:count]), tokens, vote)
    return {
        name: [round(fmean(right for right, _ in own), 4), round(fmean(tokens for _, tokens in own), 1)]
        for name, own in found.items()
    }
