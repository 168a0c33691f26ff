"""Figures from outcomes: accuracies by group, pass@k, costs, and every score and vote at every smaller budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from statistics import fmean
from typing import get_args

from msgspec import Struct

from tts_tui.controller.levels import LEVELS, level_of
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.loaded_run import LoadedRun
from tts_tui.evaluation.outcomes import Outcome, elected
from tts_tui.evaluation.prm.voting_report import wilson
from tts_tui.evaluation.statistics import pass_at_k
from tts_tui.plan import Score, Vote

DRAWS = 16
"""Number of random subsets of a problem's samples for each smaller budget."""

PAIRS: dict[str, tuple[Score, Vote]] = {
    "majority": ("last", "majority"),
    **{f"{score} {vote}": (score, vote) for score in get_args(Score) for vote in get_args(Vote) if vote != "majority"},
}
"""All ways to vote; a majority ignores scores."""

_COSTS: dict[str, Callable[[Outcome], float]] = {
    "policy prompt computed": lambda one: one.tokens.policy.prompt_computed,
    "policy prompt cached": lambda one: one.tokens.policy.prompt_cached,
    "policy sampled": lambda one: one.tokens.policy.completion,
    "prm computed": lambda one: one.tokens.prm.computed,
    "prm cached": lambda one: one.tokens.prm.cached,
    "tokens": lambda one: _policy_tokens(one) + one.tokens.prm.computed,
    "policy flops": lambda one: one.flops.policy,
    "prm flops": lambda one: one.flops.prm,
    "flops": lambda one: one.flops.policy + one.flops.prm,
    "seconds": lambda one: one.seconds,
}
"""Mean costs per problem; `tokens` includes all computed tokens."""


class Figure(Struct, frozen=True):
    """A number in a report.

    Attributes:
        run, plan: The run and the plan it belongs to.
        group: The group of problems: "all", or for example "difficulty easy", "family add0", "level 3"; "n=4" if only
            that many samples count.
        measure: Name of the measure.
        value: The number.
        low, high: Bounds of its 95 % interval, if it has one.
        n: Number of problems it is computed over.
    """

    run: str
    plan: str
    group: str
    measure: str
    value: float
    low: float | None
    high: float | None
    n: int


class Entry(Struct, frozen=True):
    """A plan of a run, with its outcomes on the reported problems."""

    run: LoadedRun
    plan: str
    outcomes: tuple[Outcome, ...]

    def share(self, group: str, measure: str, right: Sequence[float]) -> Figure:
        """Return a share of problems with its Wilson interval."""
        low, high = wilson(sum(right), len(right))
        return Figure(self.run.name, self.plan, group, measure, fmean(right), low, high, len(right))

    def mean(self, group: str, measure: str, values: Sequence[float]) -> Figure:
        """Return a mean over problems."""
        return Figure(self.run.name, self.plan, group, measure, fmean(values), None, None, len(values))


def difficulty(run: LoadedRun) -> dict[str, str]:
    """Return the difficulty of problems, from the plan with the most independent samples; empty if there is none."""
    if run.reference is None:
        return {}
    return {id: level_of(one.pass1) for id, one in run.outcomes[run.reference].items() if one.pass1 is not None}


def groups(problem: Item, level: str | None) -> Iterator[str]:
    """Yield the groups that a problem belongs to, apart from "all"."""
    if level is not None:
        yield f"difficulty {level}"
    for kind in ("family", "level", "subject"):
        if getattr(problem, kind):
            yield f"{kind} {getattr(problem, kind)}"


def of_entry(entry: Entry, levels: Mapping[str, str]) -> Iterator[Figure]:
    """Yield all figures of a plan.

    Args:
        entry: The plan; it must have outcomes.
        levels: Difficulty of the problems for which it is known, by id.
    """
    outcomes = entry.outcomes
    yield entry.share("all", "accuracy", [one.right for one in outcomes])
    for name, cost in _COSTS.items():
        yield entry.mean("all", name, [cost(one) for one in outcomes])
    members: dict[str, list[float]] = {}
    for one in outcomes:
        for group in groups(entry.run.problems[one.problem], levels.get(one.problem)):
            members.setdefault(group, []).append(one.right)
    for group in sorted(members, key=_order):
        yield entry.share(group, "accuracy", members[group])
    samples = entry.run.samples(entry.plan)
    if samples > 1:
        yield from _passes(entry, samples)
    yield from _votes(entry, samples)


def _order(group: str) -> tuple[int, str]:
    kinds = [f"difficulty {level}" for level in LEVELS]
    return (kinds.index(group), "") if group in kinds else (len(kinds), group)


def budgets(samples: int) -> list[int]:
    """Return the powers of two below `samples`, and `samples`."""
    return [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]


def _passes(entry: Entry, samples: int) -> Iterator[Figure]:
    for k in budgets(samples):
        counts = [(len(one.solutions), sum(own.right for own in one.solutions)) for one in entry.outcomes]
        values = [pass_at_k(total, right, k) for total, right in counts if total >= k]
        if values:
            yield entry.share("all", f"pass@{k}", values)


# -- votes -------------------------------------------------------------------------------------------------------------


def ways(outcomes: Sequence[Outcome]) -> dict[str, tuple[Score, Vote]]:
    """Return the ways to vote that these solutions allow: without scores, only the majority."""
    scored = any(own.scores for one in outcomes for own in one.solutions)
    return PAIRS if scored else {"majority": PAIRS["majority"]}


def voted(outcome: Outcome, score: Score, vote: Vote, k: int | None = None) -> float:
    """Return 1 if a vote elects the right answer, else 0; with `k`, the mean over subsets of `k` solutions."""
    solutions = outcome.solutions
    if k is None or k >= len(solutions):
        winner = elected(solutions, score, vote)
        return float(winner is not None and winner.right)
    chosen = _subsets(outcome.problem, len(solutions), k)
    winners = [elected([solutions[place] for place in subset], score, vote) for subset in chosen]
    return fmean(winner is not None and winner.right for winner in winners)


@lru_cache(maxsize=8192)
def _subsets(problem: str, total: int, k: int) -> list[tuple[int, ...]]:
    """Return subsets of `k` of `total` places, in order: all of them if there are few, else a fixed random choice."""
    if comb(total, k) <= DRAWS:
        return list(combinations(range(total), k))
    rng = random.Random(f"{problem} {k}")
    return [tuple(sorted(rng.sample(range(total), k))) for _ in range(DRAWS)]


def _votes(entry: Entry, samples: int) -> Iterator[Figure]:
    """Yield the accuracy of every vote over all solutions and, if they are independent, over fewer, with costs."""
    known = ways(entry.outcomes)
    for name, pair in known.items():
        yield entry.share("all", f"accuracy {name}", [voted(one, *pair) for one in entry.outcomes])
    for k in budgets(samples) if samples > 1 else ():
        outcomes = [one for one in entry.outcomes if len(one.solutions) >= k]
        for name, pair in known.items() if outcomes else ():
            yield entry.share(f"n={k}", f"accuracy {name}", [voted(one, *pair, k) for one in outcomes])
        for name, cost in _part_costs(k).items() if outcomes else ():
            yield entry.mean(f"n={k}", name, [cost(one) for one in outcomes])


def _part_costs(k: int) -> dict[str, Callable[[Outcome], float]]:
    """Return the mean costs of `k` samples: the full prompt, and a proportional part of the rest."""

    def policy(one: Outcome) -> float:
        return one.tokens.policy.prompt_computed + one.tokens.policy.completion * k / len(one.solutions)

    def prm(value: float, one: Outcome) -> float:
        return value * k / len(one.solutions)

    def flops(one: Outcome) -> float:
        whole = _policy_tokens(one)
        return one.flops.policy * policy(one) / whole if whole else 0.0

    return {
        "policy tokens": policy,
        "tokens": lambda one: policy(one) + prm(one.tokens.prm.computed, one),
        "policy flops": flops,
        "flops": lambda one: flops(one) + prm(one.flops.prm, one),
    }


def _policy_tokens(one: Outcome) -> int:
    return one.tokens.policy.prompt_computed + one.tokens.policy.completion
