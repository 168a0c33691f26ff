"""What is expected of models of which nothing was measured: a calibration made of the paper's findings.

Data and sources are in `data/priors.toml`. The curves come from problems drawn at random under stated assumptions
(`python -m tts_tui.training.controller.prior_curves`): the paper published which plans are best, and not by how much.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from tts_tui.controller.calibration import Calibration, Curve, names_of
from tts_tui.controller.difficulty import AnswerLikelihood, DifficultyModel
from tts_tui.controller.levels import LEVELS
from tts_tui.plan import Score, Vote
from tts_tui.protocols import ModelInfo

_NEAR = 0.35
"""Policies count by the distance of their sizes, in powers of ten: this is where they count a half or so."""


@cache
def stored() -> dict[str, Any]:
    """All of the data."""
    return tomllib.loads((files("tts_tui") / "data" / "priors.toml").read_text("utf-8"))


def calibration(policy: ModelInfo, prm: ModelInfo | None, score: Score = "last", vote: Vote = "prm-max") -> Calibration:
    """The priors for two models.

    Args:
        policy: Its size decides.
        prm: None has the majority vote.
        score, vote: What suits the PRM.
    """
    data = stored()
    mean = _pass1(policy.parameters)
    names = names_of(policy, prm)
    evidence = data["evidence"]
    how = AnswerLikelihood(**{key: value for key, value in evidence.items() if key != "source"})
    if prm is None:
        how = AnswerLikelihood(0.0, 0.0, 0.0, 0.0, how.power, how.agreement, how.count)
    return Calibration(
        policy=names[0],
        prm=names[1],
        source="priors from arXiv 2502.06703 (data/priors.toml)",
        score=score,
        vote=vote if prm is not None else "majority",
        difficulty=DifficultyModel(
            (), (), (), (), round(math.log(mean / (1 - mean)), 4), data["assumed"]["concentration"]
        ),
        likelihood=how,
        curves=curves(policy, prm),
        price=data["assumed"]["price"],
    )


def curves(policy: ModelInfo, prm: ModelInfo | None) -> tuple[Curve, ...]:
    """The curves of all strategies that these models allow; those that suit the policy's size are raised."""
    data = stored()
    found = []
    for name, own in data["curves"].items():
        if (name == "majority") != (prm is None):
            continue
        raised = data["assumed"]["bonus"] * _suits(policy.parameters, name)
        alone, win = list(own["alone"]), list(own["win"])
        alone[0] += raised
        win[0] += raised
        found.append(
            Curve(strategy=name, alone=tuple(alone), win=tuple(win), lose=tuple(own["lose"]), cost=own["cost"])
        )
    return tuple(found)


def _pass1(parameters: int) -> float:
    """Expected accuracy of one sample: the paper's policies, the nearer in size the more."""
    size = math.log10(max(parameters, 1))
    known = [(math.log10(row["parameters"]), row["cot"]) for row in stored()["policies"]]
    size = min(max(size, min(at for at, _ in known)), max(at for at, _ in known))
    weights = [math.exp(-(((size - at) / _NEAR) ** 2)) for at, _ in known]
    logit = sum(w * math.log(cot / (1 - cot)) for w, (_, cot) in zip(weights, known, strict=True)) / sum(weights)
    return 1 / (1 + math.exp(-logit))


def _suits(parameters: int, strategy: str) -> float:
    """On which share of the three difficulties a strategy is the best one."""
    row = next(row for row in stored()["suits"] if parameters < row["below"])
    return fmean(row[level] == strategy for level in LEVELS)
