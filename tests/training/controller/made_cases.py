"""Problems drawn at random from the model that beliefs assume, so that the truth of what is fitted is known."""

from __future__ import annotations

import math
import random

from tts_tui.training.controller.cases import Case, Sample, SearchOutcome

AGREEMENT = 3.0


def pooled(
    number: int,
    rng: random.Random,
    pass1: float,
    *,
    count: int = 16,
    apart: float = 1.2,
    values: tuple[float, ...] = (),
    family: str = "",
    parts: int = 0,
) -> Case:
    """One problem.

    Args:
        number: Its id.
        rng: Draws all of it.
        pass1: How often a sample is right.
        count: Samples.
        apart: By how much scores of right samples are higher, in log-odds, with a standard deviation of 1; by this
            model it is also the slope of their evidence.
        values: Features.
        family: Its family.
        parts: Of a tree search of width 4, each as good as the best of four samples by score.
    """
    wrong: list[int] = []

    def drawn(sampled: bool = True) -> Sample:
        right = rng.random() < pass1
        answer = "right"
        if not right:
            new = rng.random() < AGREEMENT / (AGREEMENT + len(wrong))
            wrong.append(max(wrong, default=0) + 1 if new else rng.choice(wrong))
            answer = f"wrong {wrong[-1]}"
        odds = rng.gauss(apart / 2 if right else -apart / 2, 1.0)
        return Sample(answer, right, (0.5, 1 / (1 + math.exp(-odds))), 100.0, sampled)

    def part() -> tuple[Sample, ...]:
        return (max((drawn(False) for _ in range(4)), key=lambda one: one.scores),)

    searches = {"dvts": SearchOutcome(4 * parts, tuple(part() for _ in range(parts)), 320.0 * parts)} if parts else {}
    return Case(str(number), family, values, tuple(drawn() for _ in range(count)), searches)


def uniform(problems: int, seed: int = 0, **settings: object) -> list[Case]:
    """Problems whose pass@1 is spread evenly."""
    rng = random.Random(seed)
    return [pooled(number, rng, rng.random(), **settings) for number in range(problems)]  # type: ignore[arg-type]
