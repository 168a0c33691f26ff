"""Quality of a PRM's scores on solutions with known outcomes, measured as in arXiv 2502.06703 and 2412.06559."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean
from typing import get_args

from msgspec import Struct

from tts_tui.answers.voting import path_score
from tts_tui.controller.levels import LEVELS, bounds, level_of
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.prm.labelled import Judged
from tts_tui.evaluation.prm.voting_report import wilson
from tts_tui.evaluation.reports.figures import PAIRS, voted
from tts_tui.evaluation.statistics import (
    area,
    best_threshold,
    bootstrap,
    calibration,
    differ,
    first_errors,
    paired,
    resampled,
    within,
)
from tts_tui.plan import Score, Vote

SCORES: tuple[Score, ...] = get_args(Score)
_LEAST = 10
"""Minimum number of solutions of a kind for a measurement."""
_HALVED = 4
"""Minimum number of problems for splitting them into halves."""


class Value(Struct, frozen=True):
    """A measure, with its 95 % interval if it has one; counts are ints."""

    name: str
    value: float | str
    low: float | None = None
    high: float | None = None


class Section(Struct, frozen=True):
    """Measures of one kind, with a note on the method; without measures, the note is a clause that states why."""

    name: str
    values: tuple[Value, ...]
    note: str


class Findings(Struct, frozen=True):
    """All measurements of a PRM.

    Attributes:
        sections: Sections in display order.
        score: The best score for the PRM.
        vote: The best vote; None if no problem has several solutions to vote.
        biases: Sentences that a user must know, by key.
        problems: Number of problems measured on.
    """

    sections: tuple[Section, ...]
    score: Score
    vote: Vote | None
    biases: dict[str, str]
    problems: int


def measure(
    solutions: Sequence[Judged], labelled: Sequence[Judged], outcomes: Sequence[Outcome], unit: str, unknown: str = ""
) -> Findings:
    """Measure a PRM.

    Args:
        solutions: Scored solutions.
        labelled: Solutions with known step labels.
        outcomes: Outcomes of a plan with several solutions per problem, for votes; empty if there are none.
        unit: Unit of `Judged.size`.
        unknown: Reason for which no step labels are known, if so.
    """
    sections = []
    biases = {}
    votes = _Votes(outcomes) if outcomes else None
    chosen = votes.best if votes is not None else None
    score: Score = chosen[0] if chosen else max(SCORES, key=lambda name: _pooled(solutions, name) or 0.0)
    groups = grouped(solutions)
    sections.append(_solutions(groups, score))
    if labelled:
        sections += [_steps(grouped(labelled)), _errors(grouped(labelled))]
    else:
        sections.append(Section("steps and first errors", (), unknown or "nothing is known about the steps."))
    length, biases["length"] = _length(groups, score, unit)
    sections.append(length)
    if votes is not None:
        sections += [votes.section(), votes.by_difficulty()]
        biases["votes"] = votes.said()
    else:
        why = "solutions of a file have no answers that could vote; those in a run of `tts-tui eval` have."
        sections.append(Section("votes", (), why))
    ece, biases["calibration"] = _calibration(solutions)
    sections.append(ece)
    vote = chosen[1] if chosen else None
    return Findings(tuple(sections), score, vote, {k: v for k, v in biases.items() if v}, len(groups))


def grouped(solutions: Iterable[Judged]) -> list[list[Judged]]:
    """Group solutions by their problem."""
    found: dict[str, list[Judged]] = {}
    for one in solutions:
        found.setdefault(one.problem, []).append(one)
    return list(found.values())


def halves(groups: Sequence[list[Judged]]) -> tuple[list[Judged], list[Judged]]:
    """Return the solutions of two random halves of the problems; the split is deterministic."""
    order = sorted(range(len(groups)), key=lambda place: groups[place][0].problem)
    random.Random(0).shuffle(order)
    middle = len(order) // 2
    first, second = ([one for place in part for one in groups[place]] for part in (order[:middle], order[middle:]))
    return first, second


def _mean(name: str, values: Sequence[float]) -> Value:
    """Return a mean over problems, without an interval for fewer than three."""
    return Value(name, fmean(values), *(bootstrap(values) if len(values) > 2 else ()))


def _value(one: Judged, score: Score) -> float:
    return path_score(one.scores, score) or 0.0


# -- areas -------------------------------------------------------------------------------------------------------------


def _pooled(solutions: Iterable[Judged], score: Score) -> float | None:
    parts: tuple[list[float], list[float]] = ([], [])
    for one in solutions:
        parts[not one.right].append(_value(one, score))
    return area(*parts)


def _pooled_groups(groups: Iterable[Iterable[Judged]], score: Score) -> float | None:
    return _pooled((one for group in groups for one in group), score)


def _solutions(groups: Sequence[list[Judged]], score: Score) -> Section:
    """Measure whether right solutions score above wrong ones."""
    count = sum(map(len, groups))
    right = sum(one.right for group in groups for one in group)
    values = [Value("solutions", count), Value("right", right / count)]
    for name in SCORES:
        inside = [found for group in groups if (found := _pooled(group, name)) is not None]
        if inside:
            values.append(_mean(f"AUC within problems, {name}", inside))
        pooled = _pooled_groups(groups, name)
        if pooled is not None:
            spread = resampled(groups, partial(_pooled_groups, score=name))
            values.append(Value(f"AUC of all solutions, {name}", pooled, *spread))
    mixed = sum(len({one.right for one in group}) == 2 for group in groups)
    values.insert(2, Value("problems with right and wrong ones", mixed))
    note = (
        "The chance that a right solution scores above a wrong one: of the same problem, and of any. Easy and hard "
        f"problems make the second look better. The score that suits best is {score}."
    )
    return Section("solutions", tuple(values), note)


def _step_scores(group: Iterable[Judged]) -> tuple[list[float], list[float]]:
    """Return the scores of steps known to be right, and of first wrong ones."""
    right: list[float] = []
    wrong: list[float] = []
    for one in group:
        right += one.scores[: one.known]
        if one.error is not None and one.error >= 0:
            wrong.append(one.scores[one.error])
    return right, wrong


def _steps(groups: Sequence[list[Judged]]) -> Section:
    """Measure whether right steps score above first wrong ones."""
    right, wrong = _step_scores(one for group in groups for one in group)
    if min(len(right), len(wrong)) < _LEAST:
        known = f"right steps ({len(right)}) or first wrong ones ({len(wrong)})"
        return Section("steps", (), f"too few {known} are known: it takes {_LEAST} of each.")
    inside = [found for group in groups if (found := area(*_step_scores(group))) is not None]
    pooled = area(right, wrong)
    spread = resampled(groups, lambda some: area(*_step_scores(one for group in some for one in group)))
    sure = calibration([(score, True) for score in right] + [(score, False) for score in wrong])
    values = [
        Value("right steps", len(right)),
        Value("first wrong steps", len(wrong)),
        Value("AUC of all steps", pooled or 0.0, *spread),
        Value("mean score of right steps", fmean(right)),
        Value("mean score of first wrong steps", fmean(wrong)),
        Value("calibration error", sure.ece),
    ]
    if inside:
        values.insert(3, _mean("AUC within problems", inside))
    note = "The chance that a right step scores above a first wrong one. Steps behind the first error count nowhere."
    return Section("steps", tuple(values), note)


def _errors(groups: Sequence[list[Judged]]) -> Section:
    """Measure how well first errors are found, as in ProcessBench."""
    known = [kept for group in groups if (kept := [one for one in group if one.error is not None])]
    labels = [one.error for group in known for one in group]
    right = labels.count(-1)
    if min(right, len(labels) - right) < _LEAST or len(known) < _HALVED:
        kinds = f"with a known first error ({len(labels) - right}) or without any ({right})"
        least = f"it takes {_LEAST} of each, and {_HALVED} problems (here {len(known)})"
        return Section("first errors", (), f"there are too few solutions {kinds}: {least}.")
    first, second = ([(one.scores, one.error if one.error is not None else -1) for one in h] for h in halves(known))
    threshold = best_threshold(first)
    found, before, half = (first_errors(second, threshold), first_errors(first, threshold), first_errors(second, 0.5))
    values = (
        Value("F1", found.f1),
        Value("of solutions with an error", found.on_wrong, *wilson(found.on_wrong * found.wrong, found.wrong)),
        Value("of solutions without", found.on_right, *wilson(found.on_right * found.right, found.right)),
        Value("threshold", threshold),
        Value("F1 where the threshold was chosen", before.f1),
        Value("F1 with a threshold of 0.5", half.f1),
    )
    note = (
        "The harmonic mean of two shares: solutions whose first wrong step is found, and those without one in which "
        f"none is. A step below the threshold is taken as wrong. It was chosen on {len(first)} solutions of one half "
        f"of the problems, and measured on {len(second)} of the other ({found.wrong} with an error, {found.right} "
        "without)."
    )
    return Section("first errors", values, note)


# -- length ------------------------------------------------------------------------------------------------------------


def _length(groups: Sequence[list[Judged]], score: Score, unit: str) -> tuple[Section, str]:
    """Measure whether longer solutions score lower at equal correctness."""
    values: list[Value] = []
    said, few = [], []
    alike = not any(
        len([one for one in group if one.right is wanted]) > 1 for group in groups for wanted in (True, False)
    )
    for word, wanted in (("right", True), ("wrong", False)):
        parts = [[(float(o.size), _value(o, score)) for o in group if o.right is wanted] for group in groups]
        parts = [[pair for part in parts for pair in part]] if alike else [part for part in parts if len(part) > 1]
        size = sum(map(len, parts))
        correlation = within(parts) if size >= _LEAST else None
        if correlation is None:
            few.append(word)
            continue
        units: list[list[tuple[float, float]]] = parts
        spread = resampled(units, within) if not alike else _pairs_resampled(parts[0])
        values.append(Value(f"correlation among {word} ones", correlation, *spread))
        gaps = [gap for part in parts if (gap := _gap(part)) is not None]
        if gaps:
            values.append(_mean(f"short less long, {word} ones", gaps))
        said.append(f"{word} ones {correlation:+.2f} ({spread[0]:+.2f} to {spread[1]:+.2f})")
    where = "of all problems, since none has two" if alike else "of the same problem"
    note = (
        f"The score {score} against {unit}, among equally right solutions {where}; below 0, longer ones score "
        "lower. Short less long is the mean score of the shorter half less that of the longer half."
    )
    if few:
        several = "" if alike else " on problems that have two or more of these"
        why = f"it takes {_LEAST}{several}, not all as long or as good as each other."
        left = f"there are too few {' or '.join(few)} solutions: {why}"
        note = f"{note} Not measured for {few[0]} ones, since {left}" if values else left
    sentence = f"Correlation of the score {score} with {unit} at equal correctness: {', '.join(said)}." if said else ""
    return Section("length", tuple(values), note), sentence


def _pairs_resampled(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return resampled(pairs, lambda some: within([some]))


def _gap(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return the mean score of the shorter half minus that of the longer one; None if all are equally long."""
    ordered = sorted(size for size, _ in pairs)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    short = [score for size, score in pairs if size < middle]
    long = [score for size, score in pairs if size > middle]
    return fmean(short) - fmean(long) if short and long else None


# -- votes -------------------------------------------------------------------------------------------------------------


class _Votes:
    """The accuracy of all ways to turn scores into votes."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = [one for one in outcomes if any(own.scores for own in one.solutions)]
        self.full = {name: [voted(one, *pair) for one in self.outcomes] for name, pair in PAIRS.items()}
        self.half = {
            name: [voted(one, *pair, max(1, len(one.solutions) // 2)) for one in self.outcomes]
            for name, pair in PAIRS.items()
        }
        self.ways = [name for name in PAIRS if name != "majority"]
        self.name = self._pick(range(len(self.outcomes)))
        self.p = differ([[bool(self.full[name][place]) for name in self.ways] for place in range(len(self.outcomes))])

    @property
    def best(self) -> tuple[Score, Vote]:
        """The score and vote with the highest accuracy."""
        return PAIRS[self.name]

    def _pick(self, places: Sequence[int]) -> str:
        """Return the best pair on some problems, by votes over halves of the solutions, which separate pairs better."""
        return max(self.ways, key=lambda name: fmean(self.half[name][place] for place in places) if places else 0.0)

    def section(self) -> Section:
        """Return the accuracy of every score and vote."""
        values = []
        for name, right in self.full.items():
            values.append(Value(name, fmean(right), *wilson(sum(right), len(right))))
        own, majority = ([bool(right) for right in self.full[name]] for name in (self.name, "majority"))
        gain = paired(own, majority)
        values += [
            Value("best pair", self.name),
            Value("best less majority", gain.difference, gain.low, gain.high),
            Value("p of best against majority", gain.p),
            Value("p that pairs differ", self.p),
        ]
        values += self._held_out()
        most = max(len(one.solutions) for one in self.outcomes)
        note = (
            f"Accuracy of votes over up to {most} solutions of {len(self.outcomes)} problems. The best pair is that of "
            "random halves of the solutions; whether pairs differ is Cochran's Q with its distribution by permutation."
        )
        return Section("votes", tuple(values), note)

    def _held_out(self) -> list[Value]:
        """Return the accuracy of the majority, and of the pair chosen on one half of the problems, on the other."""
        order = sorted(range(len(self.outcomes)), key=lambda place: self.outcomes[place].problem)
        random.Random(0).shuffle(order)
        middle = len(order) // 2
        first, second = order[:middle], order[middle:]
        if not first:
            return []
        name = self._pick(first)
        found = []
        for said, way in ((f"held out, best pair of one half ({name})", name), ("held out, majority", "majority")):
            right = [self.full[way][place] for place in second]
            found.append(Value(said, fmean(right), *wilson(sum(right), len(right))))
        return found

    def by_difficulty(self) -> Section:
        """Return the accuracy of majority and PRM votes on easy, medium and hard problems."""
        values = []
        for level in LEVELS:
            places = [
                p for p, one in enumerate(self.outcomes) if one.pass1 is not None and level_of(one.pass1) == level
            ]
            if not places:
                continue
            values.append(Value(f"{level} problems", len(places)))
            for vote in ("majority", *(f"{self.best[0]} {vote}" for vote in ("prm-max", "prm-vote"))):
                right = [self.full[vote][place] for place in places]
                values.append(Value(f"{level}, {vote}", fmean(right), *wilson(sum(right), len(right))))
        note = f"Accuracy by the share of solutions that are right: {bounds()}."
        return Section("votes by difficulty", tuple(values), note)

    def said(self) -> str:
        """Describe in sentences how much the choice of score and vote matters for the PRM."""
        right = self.full[self.name]
        low, high = wilson(sum(right), len(right))
        values = [fmean(self.full[name]) for name in self.ways]
        verdict = "differ more than by chance" if self.p < 0.05 else "do not differ more than by chance"
        return (
            f"{self.name} {fmean(right):.3f} ({low:.3f} to {high:.3f}), majority {fmean(self.full['majority']):.3f}; "
            f"PRM votes range from {min(values):.3f} to {max(values):.3f} and {verdict} (p {self.p:.2g})."
        )


# -- calibration -------------------------------------------------------------------------------------------------------


def _calibration(solutions: Sequence[Judged]) -> tuple[Section, str]:
    """Measure whether solutions with score p are right with probability p."""
    found = {name: calibration((_value(one, name), one.right) for one in solutions).ece for name in SCORES}
    values = tuple(Value(f"calibration error, {name}", error) for name, error in found.items())
    best = min(found, key=found.__getitem__)
    note = "Expected calibration error of a score as the chance that the solution is right, in 10 bins of as many each."
    return Section("calibration", values, note), f"Expected calibration error {found[best]:.3f} (score {best})."
