"""Figures from outcomes: accuracies with intervals, areas, calibration, length bias, sensitivity to voting."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.accuracy.runs import SEARCHES, N, Outcome
from tts_tui.answers.voting import path_score
from tts_tui.controller.levels import LEVELS, bounds
from tts_tui.evaluation.datasets.families import FAMILIES
from tts_tui.evaluation.datasets.family_stats import Measured
from tts_tui.evaluation.prm.voting_report import auc, wilson
from tts_tui.plan import SCORES, Score, Vote

Outcomes = Mapping[str, Sequence[Outcome]]
"""Outcomes by strategy, with the problems in the same order."""

VOTES: tuple[Vote, ...] = ("prm-max", "prm-vote")


def families(samples: Sequence[Outcome]) -> dict[str, Measured]:
    """Return the accuracy of the policy alone on every family."""
    found = {}
    for name in FAMILIES:
        own = [outcome for outcome in samples if outcome.problem.family == name]
        if own:
            found[name] = Measured(
                len(own),
                N,
                round(fmean(fmean(outcome.right) for outcome in own), 3),
                round(fmean(outcome.solved("last", "majority") for outcome in own), 3),
                round(fmean(any(outcome.right) for outcome in own), 3),
            )
    return found


def groups(samples: Sequence[Outcome]) -> dict[str, list[int]]:
    """Return the indices of the problems of every group: all, levels, trained and unseen families, each family."""
    known = families(samples)
    found: dict[str, list[int]] = {"all": list(range(len(samples)))}
    for level in LEVELS:
        found[level] = [n for n, one in enumerate(samples) if known[one.problem.family].level == level]
    found["trained families"] = [n for n, one in enumerate(samples) if FAMILIES[one.problem.family].trained]
    found["unseen families"] = [n for n, one in enumerate(samples) if not FAMILIES[one.problem.family].trained]
    found["index 16 and up"] = [n for n, one in enumerate(samples) if one.problem.index >= 16]
    for name in known:
        found[name] = [n for n, one in enumerate(samples) if one.problem.family == name]
    return {name: numbers for name, numbers in found.items() if numbers}


def accuracies(outcomes: Outcomes, numbers: Sequence[int], score: Score, vote: Vote) -> dict[str, Any]:
    """Return a row of the table: shares of right answers with their Wilson intervals."""
    samples = [outcomes["best-of-n"][n] for n in numbers]
    shares = {
        "pass@1": [fmean(one.right) for one in samples],
        "majority": [float(one.solved(score, "majority")) for one in samples],
        "prm-max": [float(one.solved(score, "prm-max")) for one in samples],
        "best-of-n": [float(one.solved(score, vote)) for one in samples],
        **{name: [float(outcomes[name][n].solved(score, vote)) for n in numbers] for name in SEARCHES},
        f"pass@{N}": [float(any(one.right)) for one in samples],
    }
    row: dict[str, Any] = {"problems": len(numbers)}
    for name, right in shares.items():
        row[name] = round(fmean(right), 3)
        row[f"{name} interval"] = [round(end, 3) for end in wilson(sum(right), len(right))]
    row["auc_within"], row["mixed"] = area(samples, score)
    row["auc_answered"] = area(samples, score, answered=True)[0]
    return row


def area(samples: Sequence[Outcome], score: Score, *, answered: bool = False) -> tuple[float | None, int]:
    """Return the mean AUC within problems that have right and wrong samples, and the number of these problems.

    Args:
        samples: Outcomes of the problems.
        score: Aggregation of step scores into one number.
        answered: Whether to leave out solutions without an answer, which are wrong and easily recognized.
    """
    found = []
    for one in samples:
        kept = [n for n, answer in enumerate(one.answers) if answer is not None or not answered]
        values = [path_score(one.scores[n], score) or 0.0 for n in kept]
        flags = [one.right[n] for n in kept]
        right = [value for value, flag in zip(values, flags, strict=True) if flag]
        wrong = [value for value, flag in zip(values, flags, strict=True) if not flag]
        if right and wrong:
            found.append(auc(right, wrong))
    return (round(fmean(found), 3) if found else None), len(found)


def targets(row: Mapping[str, Any]) -> dict[str, float]:
    """Compare the best search with one sample, with the majority, and with the gap to `pass@N`."""
    best = max(row[name] for name in ("best-of-n", *SEARCHES))
    return {
        "best": best,
        "times pass@1": round(best / row["pass@1"], 2),
        "times majority": round(best / row["majority"], 2),
        "of the gap": round((best - row["pass@1"]) / (row[f"pass@{N}"] - row["pass@1"]), 2),
    }


def paired(outcomes: Outcomes, numbers: Sequence[int], score: Score, vote: Vote) -> dict[str, Any]:
    """Compare Best-of-N with each search on the same problems: how often only one was right, and a sign test."""
    found = {}
    for name in SEARCHES:
        pairs = Counter(
            (outcomes["best-of-n"][n].solved(score, vote), outcomes[name][n].solved(score, vote)) for n in numbers
        )
        one, other = pairs[(True, False)], pairs[(False, True)]
        tail = sum(math.comb(one + other, k) for k in range(min(one, other) + 1)) / 2 ** (one + other)
        found[name] = {"only best-of-n": one, "only this": other, "p": round(min(1.0, 2 * tail), 3)}
    return found


def votes(samples: Sequence[Outcome]) -> dict[str, float]:
    """Return the accuracy of every score and vote over the same samples."""
    pairs = {f"{score} {vote}": (score, vote) for score in SCORES for vote in VOTES}
    found = {
        name: round(fmean(one.solved(score, vote) for one in samples), 3)  # type: ignore[arg-type]
        for name, (score, vote) in pairs.items()
    }
    return {**found, "majority": round(fmean(one.solved("last", "majority") for one in samples), 3)}


def calibration(samples: Sequence[Outcome], bins: int = 10) -> dict[str, Any]:
    """Measure whether solutions with last score p are right with probability p: ECE, and the underlying table."""
    held: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for one in samples:
        for scores, right in zip(one.scores, one.right, strict=True):
            held[min(bins - 1, int(scores[-1] * bins))].append((scores[-1], right))
    total = sum(map(len, held.values()))
    table = [
        [round(fmean(p for p, _ in held[b]), 3), round(fmean(r for _, r in held[b]), 3), len(held[b])]
        for b in sorted(held)
    ]
    return {"ece": round(sum(abs(p - r) * count for p, r, count in table) / total, 3), "bins": table}


def length_bias(samples: Sequence[Outcome], score: Score) -> dict[str, float | None]:
    """Return the correlation of score and tokens among equally right solutions of the same problem."""
    found: dict[str, float | None] = {}
    for name, wanted in (("right", True), ("wrong", False)):
        x, y = [], []
        for one in samples:
            own = [
                (float(tokens), path_score(scores, score) or 0.0)
                for tokens, scores, right in zip(one.tokens, one.scores, one.right, strict=True)
                if right is wanted
            ]
            if len(own) > 2:
                mean = (fmean(tokens for tokens, _ in own), fmean(value for _, value in own))
                x += [tokens - mean[0] for tokens, _ in own]
                y += [value - mean[1] for _, value in own]
        spread = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
        found[name] = round(sum(a * b for a, b in zip(x, y, strict=True)) / spread, 3) if spread else None
    return found


def everything(outcomes: Outcomes, score: Score, vote: Vote) -> dict[str, Any]:
    """Return all figures."""
    samples = outcomes["best-of-n"]
    rows = {name: accuracies(outcomes, numbers, score, vote) for name, numbers in groups(samples).items()}
    levels = {name: numbers for name, numbers in groups(samples).items() if name in ("all", *LEVELS)}
    return {
        "n": N,
        "score": score,
        "vote": vote,
        "levels": f"families by pass@1: {bounds()}",
        "rows": rows,
        "targets": targets(rows["all"]),
        "paired": {name: paired(outcomes, numbers, score, vote) for name, numbers in levels.items()},
        "votes": votes(samples),
        "calibration": calibration(samples),
        "length bias": length_bias(samples, score),
        "tokens": {
            name: {
                "sampled a problem": round(fmean(one.sampled for one in own), 1),
                "scored a problem": round(fmean(one.scored for one in own), 1),
            }
            for name, own in outcomes.items()
        },
    }
