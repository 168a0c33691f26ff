"""From outcomes to figures: difficulty, plans against each other, and what majority voting would need."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tts_tui.calibration import Calibration, find
from tts_tui.evaluation.calibrating import Models, cases_of
from tts_tui.evaluation.cases import Case, Drawn, Hand, cost, joined, shuffled
from tts_tui.evaluation.datasets import Item
from tts_tui.evaluation.families import FAMILIES, UNSEEN
from tts_tui.evaluation.families import problem as family_problem
from tts_tui.evaluation.forecasts import Forecast, forecasts, judged
from tts_tui.evaluation.measures import area, bootstrap, paired
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.prm_report import wilson
from tts_tui.plan import Plan, Score, Vote

Parts = Mapping[str, tuple[Mapping[str, Plan], Mapping[tuple[str, str], Outcome]]]
PROBE = 4
SIZES = (1, 2, 4, 8, 16)


class Row:
    """A plan: for each problem whether it was right, and what it cost."""

    def __init__(self, name: str, right: Sequence[bool], tokens: Sequence[float]) -> None:
        self.name, self.right, self.tokens = name, list(right), list(tokens)

    @property
    def accuracy(self) -> float:
        return fmean(self.right)

    @property
    def cost(self) -> float:
        return fmean(self.tokens)


def everything(items: Sequence[Item], parts: Parts) -> tuple[dict[str, Any], list[str]]:
    """All figures, and the lines that say them."""
    from tts_tui.backends.adapter_prm import AdapterPRM
    from tts_tui.backends.embedded import EmbeddedPolicy

    header = infos(parts)
    calibration = find(*header)
    if calibration is None:
        raise SystemExit("there is no calibration of the embedded models: tts-tui calibrate makes one")
    del AdapterPRM, EmbeddedPolicy
    models = Models(*header, calibration.score, calibration.vote)
    cases = cases_of(items, _merged(parts, ("samples", "trees")), _plans(parts, ("samples", "trees")), models)
    fixed = fixed_rows(cases, calibration.score, calibration.vote)
    autos = auto_rows(items, parts, models.weight)
    difficulty, first = difficulty_figures(cases, calibration)
    plans, second = plan_figures(fixed, autos, calibration)
    votes, third = majority_figures(fixed, autos)
    return {"difficulty": difficulty, "plans": plans, "majority": votes}, [*first, "", *second, "", *third]


def infos(parts: Parts) -> tuple[Any, Any]:
    """The models' infos of the embedded pair, without loading them."""
    from benchmarks.controller.runs import header

    found = header()
    return found


def _merged(parts: Parts, names: Sequence[str]) -> dict[tuple[str, str], Outcome]:
    return {key: one for name in names for key, one in parts[name][1].items()}


def _plans(parts: Parts, names: Sequence[str]) -> dict[str, Plan]:
    return {key: plan for name in names for key, plan in parts[name][0].items()}
