"""Simulation of the controller on cases, from their recorded samples and searches; nothing is generated."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from tts_tui.controller.calibration import Calibration
from tts_tui.controller.controller import SAMPLING, Objective, PlanController
from tts_tui.training.controller.cases import Case, SolutionSet, draws, joined, shuffled


class Played(Struct, frozen=True):
    """The result of simulating the controller on a case.

    Attributes:
        right: Whether the final answer is right.
        tokens: Total cost in tokens.
        sure: Final probability that the answer is right.
        steps: Names of the plans that were run.
    """

    right: bool
    tokens: float
    sure: float
    steps: tuple[str, ...]


def play(case: Case, calibration: Calibration, price: float, m: int, rng: random.Random) -> Played:
    """Simulate one search under the controller on recorded samples.

    It is limited to what was recorded: no more samples than the pool has, no larger searches, and no strategy that the
    case was not searched with.
    """
    known = tuple(curve for curve in calibration.curves if curve.strategy in (*SAMPLING, *case.searches))
    calibration = replace(calibration, curves=known)
    pool = draws(case, rng)
    largest = max([len(pool), *(found.n for found in case.searches.values())])
    scores = calibration.vote != "majority"
    values = calibration.joined(case.values, case.state)
    controller = PlanController(calibration, Objective(largest, m, None, price, scores), values)
    parts = {name: shuffled(found, rng) for name, found in case.searches.items()}
    hand = SolutionSet(calibration.score, calibration.vote)
    spent = calibration.overhead
    done: dict[str, int] = {}
    taken: list[str] = []
    while True:
        elected = hand.elected
        choice = controller.choose(hand.seen, elected, str(elected) if elected >= 0 else None, spent, done)
        if not choice.strategy:
            return Played(hand.is_right, spent, choice.confidence, tuple(taken))
        taken.append(f"{choice.strategy}:{choice.n}")
        had = done.get(choice.strategy, 0)
        if choice.strategy in SAMPLING:
            more = pool[had : choice.n]
            spent += sum(one.tokens for one in more)
        else:
            search = case.searches[choice.strategy]
            more = joined(parts[choice.strategy][had // search.width : choice.n // search.width])
            spent += search.tokens * (choice.n - had) / search.n
        hand.add(more)
        done[choice.strategy] = choice.n


def replayed(cases: Sequence[Case], calibration: Calibration, price: float, m: int, redraws: int = 4) -> list[Played]:
    """Simulate all cases `redraws` times each, every time with their samples in a different order."""
    rng = random.Random(7)
    return [play(case, calibration, price, m, rng) for case in cases for _ in range(redraws)]
