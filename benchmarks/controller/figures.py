"""Figures from outcomes: difficulty, comparisons of plans, and the budget that majority voting would need."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from msgspec.structs import replace

from tts_tui.controller.calibration import Calibration, find
from tts_tui.evaluation.datasets.families import UNSEEN
from tts_tui.evaluation.datasets.families import problem as family_problem
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.prm.voting_report import wilson
from tts_tui.evaluation.statistics import area, bootstrap, paired
from tts_tui.plan import Plan, Vote
from tts_tui.protocols import ModelInfo
from tts_tui.training.controller.calibrate import CalibratedModels, cases_of
from tts_tui.training.controller.cases import Case, Sample, SolutionSet, cost, joined, pool_of, shuffled
from tts_tui.training.controller.validation import Forecast, forecasts, judged

Parts = Mapping[str, tuple[Mapping[str, Plan], Mapping[tuple[str, str], Outcome]]]
PROBE = 4
SIZES = (1, 2, 4, 8, 16)


class Row:
    """A plan with, for each problem, whether it was right, its cost, and the number of sampled tokens in that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.right: list[bool] = []
        self.tokens: list[float] = []
        self.sampled: list[float] = []

    def add(self, right: bool, tokens: float, sampled: float) -> None:
        self.right.append(right)
        self.tokens.append(tokens)
        self.sampled.append(sampled)

    @property
    def accuracy(self) -> float:
        return fmean(self.right)

    @property
    def cost(self) -> float:
        return fmean(self.tokens)


def everything(
    items: Sequence[Item],
    parts: Parts,
    models: tuple[ModelInfo, ModelInfo | None],
    states: Mapping[str, tuple[float, ...]],
) -> tuple[dict[str, Any], list[str]]:
    """Return all figures, and the lines that print them."""
    calibration = find(*models)
    if calibration is None:
        raise SystemExit("there is no calibration of the embedded models: tts-tui calibrate makes one")
    weight = CalibratedModels(*models).weight
    of = CalibratedModels(*models, calibration.score, calibration.vote, calibration.overhead / weight)
    runs = ("samples", "dvts", "dvts-2", "beam")
    cases = cases_of(items, _merged(parts, runs, of.overhead), _plans(parts, runs), of, states)
    fixed = [*runs_rows(items, parts, "greedy", weight), *fixed_rows(cases, calibration)]
    autos = runs_rows(items, parts, "auto", weight)
    difficulty, first = difficulty_figures(cases, calibration)
    plans, second = plan_figures(cases, fixed, autos, calibration)
    votes, third = majority_figures(items, parts, weight)
    figures = {"difficulty": difficulty, "plans": plans, "majority": votes}
    return figures, [*first, "", *second, "", *third]


def _merged(parts: Parts, names: Sequence[str], once: float = 0.0) -> dict[tuple[str, str], Outcome]:
    """Merge the outcomes of these parts; outcomes of one plan under several seeds become those of one larger plan."""
    found: dict[tuple[str, str], Outcome] = {}
    for name in names:
        for key, one in parts[name][1].items():
            found[key] = together(found[key], one, once) if key in found else one
    return found


def _plans(parts: Parts, names: Sequence[str]) -> dict[str, Plan]:
    """Merge the plans of these parts; the candidates of equally named plans add up."""
    found: dict[str, Plan] = {}
    for name in names:
        for key, plan in parts[name][0].items():
            found[key] = replace(plan, n=plan.n + (found[key].n if key in found else 0))
    return found


def together(one: Outcome, more: Outcome, once: float) -> Outcome:
    """Return the solutions and costs of both, less the one-off PRM cost `once`; the answer is not updated."""
    policy, prm = one.tokens.policy, one.tokens.prm
    policy = replace(policy, completion=policy.completion + more.tokens.policy.completion)
    prm = replace(prm, computed=round(prm.computed + more.tokens.prm.computed - once))
    return replace(one, solutions=(*one.solutions, *more.solutions), tokens=replace(one.tokens, policy=policy, prm=prm))


# -- difficulty --------------------------------------------------------------------------------------------------------


def difficulty_figures(cases: Sequence[Case], calibration: Calibration) -> tuple[dict[str, Any], list[str]]:
    """Measure forecasts before the probe, after 4 samples, and after the calibration's own probe, by kind of family."""
    kinds = {
        "all": list(cases),
        "families of the calibration": [case for case in cases if case.family not in UNSEEN],
        "unseen families": [case for case in cases if case.family in UNSEEN],
    }
    figures: dict[str, Any] = {}
    head = (
        f"{'Difficulty: area and calibration error':<44}{'n':>5}{'hard':>8}{'easy':>8}{'ECE hard':>10}{'ECE easy':>10}"
    )
    lines = [head]
    for kind, own in kinds.items():
        early, late = forecasts(own, [calibration] * len(own), PROBE)
        rows = {"before the probe": early, f"after {PROBE} samples": late}
        if calibration.probe != PROBE:
            rows[f"after the probe of {calibration.probe}"] = forecasts(
                own, [calibration] * len(own), calibration.probe
            )[1]
        for name, found in rows.items():
            row = {**judged(found), **baseline(own, found)}
            figures[f"{kind}, {name}"] = row
            shown = "".join(f"{_shown(row[key]):>{width}}" for key, width in _AREAS)
            lines.append(f"{kind + ', ' + name:<44}{row['problems']:>5}{shown}")
        base = figures[f"{kind}, after {PROBE} samples"]
        steps = f"{_shown(base['auc hard, steps']):>8}{_shown(base['auc easy, steps']):>8}"
        lines += [
            f"{'  baseline: steps of the right solution':<49}{steps}",
            f"  Brier scores {base['brier hard']:.3f}, {base['brier easy']:.3f}; of the base rate "
            f"{base['brier hard, base rate']:.3f}, {base['brier easy, base rate']:.3f}",
        ]
    return figures, lines


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_AREAS = (("auc hard", 8), ("auc easy", 8), ("ece hard", 10), ("ece easy", 10))


def baseline(cases: Sequence[Case], found: Sequence[Forecast]) -> dict[str, float | None]:
    """Measure how well the number of steps of the right solution, as a human difficulty level, predicts difficulty."""
    steps = [len(_problem(cases[one.at].id).steps) for one in found]
    result: dict[str, float | None] = {}
    for place, (name, sign) in enumerate((("hard", 1), ("easy", -1))):
        yes = [float(sign * count) for count, one in zip(steps, found, strict=True) if one.came[place]]
        no = [float(sign * count) for count, one in zip(steps, found, strict=True) if not one.came[place]]
        value = area(yes, no)
        result[f"auc {name}, steps"] = None if value is None else round(value, 4)
    return result


def _problem(id: str) -> Any:
    split, family, index = id.split("-")
    return family_problem(family, split, int(index))  # type: ignore[arg-type]


# -- plans -------------------------------------------------------------------------------------------------------------


def fixed_rows(cases: Sequence[Case], calibration: Calibration) -> list[Row]:
    """Return the fixed plans, with samples in the order in which they were drawn, and subtrees in a fixed random order.

    Majority voting has no scoring cost.
    """
    found: dict[str, Row] = {}

    def note(name: str, drawn: Sequence[Sample], tokens: float, sampled: float, by: Vote) -> None:
        hand = SolutionSet(calibration.score, by)
        hand.add(drawn)
        found.setdefault(name, Row(name)).add(hand.is_right, tokens, sampled)

    once, vote = calibration.overhead, calibration.vote
    for case in cases:
        for n in SIZES:
            tokens, sampled = (
                sum(values) for values in zip(*((o.tokens, o.length) for o in case.pool[:n]), strict=True)
            )
            note(f"majority:{n}", case.pool[:n], sampled, sampled, "majority")
            note(f"best-of-n:{n}", case.pool[:n], once + tokens, sampled, vote)
        for name, search in sorted(case.searches.items()):
            parts = shuffled(search, random.Random(case.id))
            for count in range(1, len(parts) + 1):
                tokens, sampled = (cost * count / len(parts) for cost in (search.tokens, search.length))
                note(f"{name}:{search.width * count}", joined(parts[:count]), once + tokens, sampled, vote)
    return list(found.values())


def runs_rows(items: Sequence[Item], parts: Parts, kind: str, weight: float) -> list[Row]:
    """Return plans as they ran, from the parts whose names start with `kind`."""
    rows = []
    for part, (plans, outcomes) in parts.items():
        for name in plans if part.startswith(kind) else ():
            row = Row(name)
            for item in items:
                one = outcomes[name, item.id]
                row.add(one.right, cost(one, weight), float(one.tokens.policy.completion))
            rows.append(row)
    return rows


def plan_figures(
    cases: Sequence[Case], fixed: Sequence[Row], autos: Sequence[Row], calibration: Calibration
) -> tuple[dict[str, Any], list[str]]:
    """Return accuracy and cost of every plan, and compare the controller with fixed plans and the     oracle."""
    lines = [f"{'Plan':<30}{'accuracy':>10}{'95 %':>16}{'tokens a problem':>18}{'sampled':>10}"]
    figures: dict[str, Any] = {"plans": {}, "against": []}
    for row in sorted([*fixed, *autos], key=lambda row: row.cost):
        low, high = wilson(sum(row.right), len(row.right))
        said = {"accuracy": row.accuracy, "low": low, "high": high, "tokens": row.cost, "sampled": fmean(row.sampled)}
        figures["plans"][row.name] = said
        shown = f"{row.cost:>18.0f}{said['sampled']:>10.0f}"
        lines.append(f"{row.name:<30}{row.accuracy:>10.3f}{f'{low:.3f}-{high:.3f}':>16}{shown}")
    measured = calibration.validation["fixed plans"]
    chosen = max(
        (name for name in measured if any(row.name == name for row in fixed)), key=lambda name: measured[name][0]
    )
    lines += ["", f"Best fixed plan on the calibration's own problems: {chosen}"]
    best = next(row for row in fixed if row.name == chosen)
    for auto in autos:
        for row in fixed:
            if not row.name.startswith("majority") and row.cost >= 0.8 * auto.cost:
                test = paired(auto.right, row.right)
                low, high = bootstrap([float(a) - float(b) for a, b in zip(auto.right, row.right, strict=True)])
                figures["against"].append(
                    {"auto": auto.name, "plan": row.name, "difference": auto.accuracy - row.accuracy, "low": low,
                     "high": high, "p": test.p, "tokens": auto.cost / row.cost}
                )  # fmt: skip
                gap = auto.accuracy - row.accuracy
                lines.append(
                    f"{auto.name} against {row.name:<14} {gap:+.3f} ({low:+.3f} to {high:+.3f}, p {test.p:.3f}) "
                    f"with {auto.cost / row.cost:.0%} of its tokens"
                )
    for auto in autos:
        for kind, unseen in (("families of the calibration", False), ("unseen families", True)):
            own = [at for at, case in enumerate(cases) if (case.family in UNSEEN) == unseen]
            right, tokens = (fmean(values[at] for at in own) for values in (auto.right, auto.tokens))
            figures[f"{auto.name}, {kind}"] = {"problems": len(own), "accuracy": right, "tokens": tokens}
            lines.append(f"{auto.name} on {len(own)} of {kind}: {right:.3f} at {tokens:.0f} tokens")
    oracle = fmean(any(row.right[at] for row in fixed) for at in range(len(best.right)))
    for auto in autos:
        share = (auto.accuracy - best.accuracy) / (oracle - best.accuracy) if oracle > best.accuracy else 0.0
        figures[f"share of the oracle's gain, {auto.name}"] = share
        lines.append(f"oracle {oracle:.3f}: {auto.name} keeps {share:+.0%} of its gain over {best.name}")
    figures["oracle"] = oracle
    return figures, lines


# -- majority voting ---------------------------------------------------------------------------------------------------


def majority_figures(items: Sequence[Item], parts: Parts, weight: float) -> tuple[dict[str, Any], list[str]]:
    """Return the tokens that majority voting needs for the controller's accuracy, relative to the controller's own.

    Only one in several problems is sampled often enough for this, and only these are used. The others just have the
    16 samples of all problems.
    """
    votes = ["samples", *(part for part in parts if part.startswith("votes"))]
    runs = [(parts[part][1], name) for part in votes for name in parts[part][0]]
    some = [item for item in items if all((name, item.id) in outcomes for outcomes, name in runs)]
    if len(runs) < len(votes) or not some:
        return {}, ["Majority voting: nothing was sampled for it"]
    pools = [[one for outcomes, name in runs for one in pool_of(outcomes[name, item.id], 0.0)] for item in some]
    curve: dict[int, tuple[float, float]] = {}
    most = max(map(len, pools))
    for n in (*_doubled(most), most):
        curve[n] = (
            fmean(_votes(pool[:n]) for pool in pools),
            fmean(sum(one.tokens for one in pool[:n]) for pool in pools),
        )
    figures: dict[str, Any] = {"problems": len(some), "curve": curve}
    said = ", ".join(f"{right:.3f} at {tokens:.0f} ({n} samples)" for n, (right, tokens) in curve.items())
    lines = [f"Majority voting on {len(some)} problems: {said}"]
    for auto in runs_rows(some, parts, "auto", weight):
        enough = [tokens for right, tokens in curve.values() if right >= auto.accuracy]
        ratio = (enough[0] if enough else max(tokens for _, tokens in curve.values())) / auto.cost
        figures[auto.name] = {"ratio": ratio, "reached": bool(enough), "accuracy": auto.accuracy, "tokens": auto.cost}
        lines.append(
            f"{auto.name} on the same: {auto.accuracy:.3f} at {auto.cost:.0f} tokens; majority needs "
            f"{'' if enough else 'more than '}{ratio:.1f} times that"
        )
    return figures, lines


def _doubled(most: int) -> list[int]:
    """Return the powers of two below `most`."""
    return [1 << power for power in range(most.bit_length()) if 1 << power < most]


def _votes(pool: Sequence[Sample]) -> bool:
    """Return whether the majority answer is right."""
    hand = SolutionSet("last", "majority")
    hand.add(pool)
    return hand.is_right
