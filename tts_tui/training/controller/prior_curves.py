"""Script that prints the curves of `data/priors.toml`, fitted on randomly drawn problems.

Run it with `python -m tts_tui.training.controller.prior_curves`.

Assumptions: pass@1 is spread as on MATH-500, from never to always (Beta, concentration 1, mean 0.5); a PRM's scores
rank a right above a wrong sample in 80 % of pairs; wrong answers agree as in a Chinese restaurant process with
concentration 3; a part of a tree search is the best of M samples by score, and of the same quality as those. A
calibration from measurements replaces all of these.
"""

from __future__ import annotations

import random
import sys

import numpy as np

from tts_tui.controller.calibration import Curve
from tts_tui.controller.difficulty import AnswerLikelihood, prior
from tts_tui.training.controller.cases import Case, Sample, SearchOutcome
from tts_tui.training.controller.curve_fit import curves
from tts_tui.training.controller.difficulty_fit import evidence

PROBLEMS, POOL, WIDTH, PARTS = 400, 16, 4, 4
CONCENTRATION, AGREEMENT = 1.0, 3.0
APART = 1.19
"""Distance between the mean logits of right and of wrong scores, in standard deviations: an AUC of 0.80."""


def case(number: int, rng: random.Random) -> Case:
    """Draw one random problem with its samples and a DVTS outcome."""
    pass1 = rng.betavariate(CONCENTRATION / 2, CONCENTRATION / 2)
    wrong: list[int] = []

    def drawn(sampled: bool = True) -> Sample:
        right = rng.random() < pass1
        odds = rng.gauss(APART / 2 if right else -APART / 2, 1.0)
        answer = "right"
        if not right:
            new = rng.random() < AGREEMENT / (AGREEMENT + len(wrong))
            wrong.append(max(wrong, default=0) + 1 if new else rng.choice(wrong))
            answer = f"wrong {wrong[-1]}"
        return Sample(answer, right, (1 / (1 + np.exp(-odds)),), 1.0, sampled)

    def part() -> tuple[Sample, ...]:
        best = max((drawn(False) for _ in range(WIDTH)), key=lambda one: one.scores)
        return (best,)

    search = SearchOutcome(WIDTH * PARTS, tuple(part() for _ in range(PARTS)), float(WIDTH * PARTS))
    return Case(str(number), "", (), tuple(drawn() for _ in range(POOL)), {"dvts": search})


def main() -> None:
    """Print the tables of `data/priors.toml`."""
    rng = random.Random(0)
    cases = [case(number, rng) for number in range(PROBLEMS)]
    priors = [prior(0.5, CONCENTRATION)] * len(cases)
    out = sys.stdout.write
    usual = AnswerLikelihood(slope=1.0, searched_slope=1.0, searched_intercept=-1.0, power=0.2)
    how = evidence(cases, priors, "last", "prm-max", usual)
    out("\n[evidence]\n")
    for name in how.__struct_fields__:
        out(f"{name} = {getattr(how, name)}\n")
    for vote, names in (("prm-max", ("best-of-n", "dvts")), ("majority", ("majority",))):
        start = [Curve(strategy=name, alone=(0,) * 5, win=(-2, *(0,) * 5), lose=(-3, *(0,) * 5)) for name in names]
        for curve in curves(cases, priors, [0.5] * len(cases), how, "last", vote, start):  # type: ignore[arg-type]
            for name in (curve.strategy, "beam") if curve.strategy == "dvts" else (curve.strategy,):
                out(f"\n[curves.{name}]\n")
                for key in ("alone", "win", "lose"):
                    out(f"{key} = {[round(float(x), 3) for x in getattr(curve, key)]}\n")
                out("cost = 1.0\n")


if __name__ == "__main__":
    main()
