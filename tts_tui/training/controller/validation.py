"""Validation of difficulty forecasts, before the probe and after it: AUC, calibration error, baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from tts_tui.controller.calibration import Calibration
from tts_tui.controller.difficulty import Posterior, update
from tts_tui.controller.levels import Level, level_of
from tts_tui.evaluation.statistics import area
from tts_tui.evaluation.statistics import calibration as reliability
from tts_tui.training.controller.cases import Case
from tts_tui.training.controller.difficulty_fit import beginnings, predictive

ENDS: tuple[Level, ...] = ("hard", "easy")
"""The levels that are forecast; medium is the remainder."""


class Forecast(Struct, frozen=True):
    """A forecast for a case, and the actual result.

    Attributes:
        at: Index of the case.
        chances: Probabilities that the other samples show it to be hard, and easy.
        came: Whether the other samples do show it to be hard, and easy.
        sure: Probability that the answer of the probe is right.
        right: Whether that answer is right.
    """

    at: int
    chances: tuple[float, float]
    came: tuple[bool, bool]
    sure: float
    right: bool


def forecasts(
    cases: Sequence[Case], calibrations: Sequence[Calibration], size: int, redraws: int = 8
) -> tuple[list[Forecast], list[Forecast]]:
    """Return forecasts before the probe, and after `size` samples; those samples are never used to judge them.

    Args:
        cases: Cases with pools larger than the probe.
        calibrations: For each case, a calibration that was fitted without it.
        size: Number of samples in the probe.
        redraws: Number of random draws for each case.
    """
    early, late = [], []
    usual = calibrations[0]
    priors = [
        one.difficulty.prior(one.joined(case.values, case.state)) for one, case in zip(calibrations, cases, strict=True)
    ]
    for begun in beginnings(cases, usual.score, usual.vote, (size,), redraws, seed=11, searches=False):
        prior, how = priors[begun.at], calibrations[begun.at].likelihood
        came = tuple(level_of(begun.right / begun.rest) == level for level in ENDS)
        belief = update(prior, begun.hand.seen, how)
        elected = begun.hand.elected
        sure = belief.right[elected] if elected >= 0 else 0.0
        early.append(Forecast(begun.at, _chances(prior, begun.rest), came, 0.0, False))  # type: ignore[arg-type]
        late.append(Forecast(begun.at, _chances(belief, begun.rest), came, sure, begun.hand.is_right))  # type: ignore[arg-type]
    return early, late


def _chances(belief: Posterior, rest: int) -> tuple[float, float]:
    """Return the probabilities that `rest` further samples show a hard, and an easy problem."""
    spread = predictive(belief, rest)
    shares = np.arange(rest + 1) / rest
    return tuple(float(spread[[level_of(share) == level for share in shares]].sum()) for level in ENDS)  # type: ignore[return-value]


def judged(found: Sequence[Forecast]) -> dict[str, Any]:
    """Return AUC, expected calibration error and Brier score of forecasts."""
    figures: dict[str, Any] = {"forecasts": len(found), "problems": len({one.at for one in found})}
    for place, name in enumerate(ENDS):
        chances = [one.chances[place] for one in found]
        came = [one.came[place] for one in found]
        yes = [chance for chance, flag in zip(chances, came, strict=True) if flag]
        no = [chance for chance, flag in zip(chances, came, strict=True) if not flag]
        figures[f"auc {name}"] = _rounded(area(yes, no))
        figures[f"ece {name}"] = _rounded(reliability(zip(chances, came, strict=True)).ece)
        base = float(np.mean(came)) if came else 0.0
        figures[f"brier {name}"] = round(float(np.mean((np.array(chances) - np.array(came)) ** 2)), 4)
        figures[f"brier {name}, base rate"] = round(base * (1 - base), 4)
    sure = [one.sure for one in found]
    right = [one.right for one in found]
    if any(sure):
        yes = [chance for chance, flag in zip(sure, right, strict=True) if flag]
        no = [chance for chance, flag in zip(sure, right, strict=True) if not flag]
        figures["auc sure"] = _rounded(area(yes, no))
        figures["ece sure"] = _rounded(reliability(zip(sure, right, strict=True)).ece)
    return figures


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
