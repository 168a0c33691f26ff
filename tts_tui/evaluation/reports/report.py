"""Results of runs, with comparisons of their plans on the same problems."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from msgspec import Struct

from tts_tui.controller.levels import bounds
from tts_tui.evaluation.loaded_run import LoadedRun
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.reports.figures import Entry, Figure, difficulty, of_entry
from tts_tui.evaluation.statistics import Paired, holm, paired

_NAMED = 5
"""Maximum number of problems named in a note."""
_SOURCE = 60
"""Maximum number of characters of a calibration's source in a note; run.json has all of it."""


class About(Struct, frozen=True):
    """A run of a report, with its progress."""

    run: str
    folder: str
    dataset: str
    policy: str
    prm: str
    problems: int
    done: int
    wanted: int


class Compared(Struct, frozen=True):
    """A comparison of two plans on the same problems; `holm` is the p-value corrected for the number of tests."""

    first: str
    second: str
    paired: Paired
    holm: float


class FailedSearch(Struct, frozen=True):
    """A search that failed."""

    plan: str
    problem: str
    detail: str


class Report(Struct, frozen=True):
    """A report on runs.

    Attributes:
        runs: The runs it covers.
        figures: Figures in display order.
        tests: Comparisons of every two plans.
        failures: Searches that failed.
        notes: Sentences that a reader must know.
        sharing: Names of the runs in which shared work of plans is charged to the plan that came first.
    """

    runs: tuple[About, ...]
    figures: tuple[Figure, ...]
    tests: tuple[Compared, ...]
    failures: tuple[FailedSearch, ...]
    notes: tuple[str, ...]
    sharing: tuple[str, ...] = ()


def make(runs: Sequence[LoadedRun]) -> Report:
    """Create the report of runs.

    Several runs are reported on the problems that every plan of all runs has finished; one run on all that it finished.
    """
    notes = [*_models(runs), *_chosen_by(runs), *_unfinished(runs)]
    shared, said = _shared(runs)
    levels, how = _levels(runs)
    notes += said + how
    entries = []
    for run in runs:
        for plan, known in run.outcomes.items():
            outcomes = tuple(known[id] for id in run.problems if id in known and (shared is None or id in shared))
            if outcomes:
                entries.append(Entry(run, plan, outcomes))
    sharing = [run for run in runs if _share([entry for entry in entries if entry.run is run])]
    notes += _shares(sharing)
    figures = tuple(figure for entry in entries for figure in of_entry(entry, levels.get(entry.run.name, {})))
    failures = tuple(
        FailedSearch(label(runs, entry), one.problem, one.detail)
        for entry in entries
        for one in entry.outcomes
        if one.reason == "failed"
    )
    if failures:
        notes.append(
            "Searches that failed count as they ended, mostly as without an answer; the same `tts-tui eval` tries "
            "them again."
        )
    if unknown := sum(one.undecided for entry in entries for one in entry.outcomes):
        notes.append(
            f"{'1 answer' if unknown == 1 else f'{unknown:,} answers'} could not be compared with the right one and "
            "count as wrong; the same `tts-tui eval` judges them again."
        )
    names = tuple(run.name for run in sharing)
    return Report(tuple(map(_about, runs)), figures, _tests(runs, entries), failures, tuple(notes), names)


def label(runs: Sequence[object], entry: Entry) -> str:
    """Return the name of a plan in a report, prefixed with its run if there are several."""
    return f"{entry.run.name} {entry.plan}" if len(runs) > 1 else entry.plan


def _about(run: LoadedRun) -> About:
    data = run.header.dataset
    name = " ".join(filter(None, (data.name, data.split)))
    return About(run.name, str(run.folder), name, *run.models, len(run.problems), run.done, run.wanted)


# -- comparisons -------------------------------------------------------------------------------------------------------


def _models(runs: Sequence[LoadedRun]) -> list[str]:
    """Return warnings about runs with different models."""
    found = []
    for place, what in enumerate(("policy", "PRM")):
        names = {run.name: run.models[place] for run in runs}
        if len(set(names.values())) > 1:
            each = ", ".join(f"{run} has {name}" for run, name in names.items())
            found.append(f"The runs differ in their {what} ({each}): differences are not the plans' alone.")
    return found


def _chosen_by(runs: Sequence[LoadedRun]) -> list[str]:
    """Return the calibrations by which plans of `auto` chose, each once."""
    users: dict[str, list[str]] = {}
    for run in runs:
        plans: dict[str, list[str]] = {}
        for plan, basis in run.header.calibrations.items():
            if plan in run.outcomes:
                plans.setdefault(basis, []).append(plan)
        for basis, own in plans.items():
            users.setdefault(basis, []).append(f"{' and '.join(own)} in {run.name}")
    return [f"{' and '.join(own)} chose by {_brief(basis)}" for basis, own in users.items()]


def _brief(basis: str) -> str:
    """Return the end of a sentence: a calibration as in run.json, with a long source shortened."""
    date = re.match(r"\d{4}-\d\d-\d\d\S*, ", basis)
    begin = date.end() if date else 0
    source = textwrap.shorten(basis[begin:], _SOURCE, placeholder=" …")
    return f"{basis[:begin]}{source}" + ("" if source.endswith("…") else ".")


def _unfinished(runs: Sequence[LoadedRun]) -> list[str]:
    found = []
    for run in runs:
        if run.done < run.wanted:
            known = f"{run.done} of {run.wanted} searches are done"
            found.append(f"The run {run.name} is not finished: {known}, and the figures are of these.")
        data = run.header.dataset
        if data.left_out:
            notes = f"{_counted(len(data.left_out))} of {data.name} without an answer"
            found.append(f"Left out of {run.name}: {notes}: {_names(data.left_out)}.")
        if data.unreadable:
            known = f"answers of {_counted(len(data.unreadable))} can only be compared as text"
            found.append(f"In {run.name}, {known}: {_names(data.unreadable)}.")
    return found


def _shared(runs: Sequence[LoadedRun]) -> tuple[set[str] | None, list[str]]:
    """Return the problems finished by all plans if several runs are compared, and notes on the other problems."""
    if len(runs) == 1:
        return None, []
    notes = []
    common = set.intersection(*(set(run.problems) for run in runs))
    others = {id for id in common if len({(run.problems[id].problem, run.problems[id].answer) for run in runs}) > 1}
    if others:
        named = _names(sorted(others))
        notes.append(f"The data differ: the same id stands for different problems, which are left out: {named}.")
    common -= others
    if not common:
        return None, [*notes, "The runs share no problem: each is reported for itself, and nothing is compared."]
    for run in runs:
        more = [id for id in run.problems if id not in common]
        if more:
            notes.append(f"Only {run.name} has {_counted(len(more))}: {_names(more)}.")
    done = {id for id in common if all(id in known for run in runs for known in run.outcomes.values())}
    size = f"{_counted(len(common))} {'is' if len(common) == 1 else 'are'} shared by all runs"
    if not done:
        return None, [*notes, f"{size}, but none is done by every plan: each run is reported on what it has done."]
    left = f", {len(done)} of them done by every plan" if len(done) < len(common) else ""
    return done, [*notes, f"{size}{left}; all figures are of these."]


def _share(entries: Sequence[Entry]) -> bool:
    """Return whether plans of a run had a problem in common, and computations for it were reused."""
    worked = [one for entry in entries for one in entry.outcomes if _took(one)]
    plans = Counter(one.problem for one in worked)
    return any(plans[one.problem] > 1 and (one.tokens.policy.prompt_cached or one.tokens.prm.cached) for one in worked)


def _took(one: Outcome) -> bool:
    """Return whether anything was computed for an outcome, by any plan; a search that could not start took nothing."""
    policy, prm = one.tokens.policy, one.tokens.prm
    return any((policy.prompt_computed, policy.prompt_cached, policy.completion, prm.computed, prm.cached))


def _shares(runs: Sequence[LoadedRun]) -> list[str]:
    """Return a note that shared work makes plans look cheaper than they are alone."""
    if not runs:
        return []
    steps = ", and steps of the same text, which the PRM reads once" if any(run.header.prm for run in runs) else ""
    return [
        f"Plans of one run share what they have in common on a problem (its prompt, which the policy keeps{steps}): in "
        f"{' and '.join(run.name for run in runs)}, that is counted for the plan that came first, so that others may "
        "look cheaper in tokens and FLOPs than they are alone; sampled tokens are exact, and a folder of its own for "
        "each plan (`tts-tui eval --out`) gives what it costs alone."
    ]


def _counted(count: int) -> str:
    return "1 problem" if count == 1 else f"{count} problems"


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more


def _levels(runs: Sequence[LoadedRun]) -> tuple[dict[str, Mapping[str, str]], list[str]]:
    """Return the difficulty of the problems of every run, and notes on its source."""
    found: dict[str, Mapping[str, str]] = {}
    notes = []
    for run in runs:
        others = [other for other in runs if other.models[0] == run.models[0] and other.reference is not None]
        source = max(others, key=lambda other: (other is run, other.samples(other.reference or "")), default=None)
        if run.reference is not None:
            source = run
        if source is None or source.reference is None:
            why = "no plan of it has independent samples, as majority:8 and best-of-n:8 have"
            notes.append(f"How hard the problems of {run.name} are is not known: {why}.")
            continue
        found[run.name] = difficulty(source)
        whose = "" if source is run else f" of {source.name}"
        notes.append(
            f"Difficulty in {run.name} is the policy's own pass@1, from {source.samples(source.reference)} samples a "
            f"problem by {source.reference}{whose}: {bounds()}. These samples also count in "
            f"the accuracy of that plan."
        )
    return found, notes


def _tests(runs: Sequence[LoadedRun], entries: Sequence[Entry]) -> tuple[Compared, ...]:
    """Compare every two plans on the identical problems that both have finished."""
    found = []
    for one, other in combinations(entries, 2):
        second = {outcome.problem: outcome for outcome in other.outcomes}
        pairs = [
            (own.right, second[own.problem].right) for own in one.outcomes if _same(one, other, own.problem, second)
        ]
        if pairs:
            names = label(runs, one), label(runs, other)
            found.append((*names, paired([a for a, _ in pairs], [b for _, b in pairs])))
    corrected = holm([result.p for _, _, result in found])
    return tuple(Compared(*known, p) for known, p in zip(found, corrected, strict=True))


def _same(one: Entry, other: Entry, id: str, second: Mapping[str, object]) -> bool:
    if id not in second:
        return False
    first, again = one.run.problems[id], other.run.problems[id]
    return (first.problem, first.answer) == (again.problem, again.answer)
