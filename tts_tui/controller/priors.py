"""Priors for models without measurements: a calibration derived from the paper's findings.

Data and sources are in `data/priors.toml`. The curves come from randomly drawn problems under stated assumptions
(`python -m tts_tui.training.controller.prior_curves`), because the paper reports which plans are best but not by how
much.
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
"""Kernel width by which policies are weighted, over the difference of their sizes in powers of ten."""


@cache
def stored() -> dict[str, Any]:
    """Return the contents of `data/priors.toml`."""
    return tomllib.loads((files("tts_tui") / "data" / "priors.toml").read_text("utf-8"))


def calibration(policy: ModelInfo, prm: ModelInfo | None, score: Score = "last", vote: Vote = "prm-max") -> Calibration:
    """Return the priors for two models.

    Args:
        policy: The policy; its size determines the priors.
        prm: The PRM; None selects majority voting.
        score, vote: Aggregation of step scores and vote that suit the PRM.
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
    """Return the curves of all strategies that these models allow, raised for those that suit the policy's size."""
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
    """Return the expected accuracy of one sample: a mean of the paper's policies, weighted by similarity in size."""
    size = math.log10(max(parameters, 1))
    known = [(math.log10(row["parameters"]), row["cot"]) for row in stored()["policies"]]
    size = min(max(size, min(at for at, _ in known)), max(at for at, _ in known))
    weights = [math.exp(-(((size - at) / _NEAR) ** 2)) for at, _ in known]
    logit = sum(w * math.log(cot / (1 - cot)) for w, (_, cot) in zip(weights, known, strict=True)) / sum(weights)
    return 1 / (1 + math.exp(-logit))


def _suits(parameters: int, strategy: str) -> float:
    """Return the share of the three difficulty levels on which a strategy is the best one."""
    row = next(row for row in stored()["suits"] if parameters < row["below"])
    return fmean(row[level] == strategy for level in LEVELS)
