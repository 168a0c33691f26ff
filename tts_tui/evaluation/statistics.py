"""Statistics of evaluations: intervals, paired tests, pass@k, calibration, first errors; all random seeds are fixed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from math import comb
from statistics import fmean
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")

DRAWS = 4000
"""Number of resamples of a bootstrap or of a permutation test."""
_ALPHA = 0.05


def pass_at_k(total: int, right: int, k: int) -> float:
    """Estimate, unbiased, the chance that any of k samples is right, from `right` of `total` (arXiv 2107.03374)."""
    if not 1 <= k <= total:
        raise ValueError(f"pass@{k} needs at least {k} samples, not {total}")
    return 1.0 - comb(total - right, k) / comb(total, k)


# -- paired ------------------------------------------------------------------------------------------------------------


class Paired(Struct, frozen=True):
    """A comparison of two plans on the same problems.

    Attributes:
        problems: Number of problems.
        difference: Accuracy of the first plan minus that of the second.
        low, high: Bounds of its 95 % interval, from resampled problems.
        only_first, only_second: Number of problems that only this plan solved.
        p: p-value of the exact McNemar test: the probability of a split of these that is at least as uneven by chance.
    """

    problems: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two plans, problem by problem."""
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    one, other = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    p = float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0
    differences = [float(a) - float(b) for a, b in pairs]
    low, high = bootstrap(differences)
    return Paired(len(pairs), fmean(differences) if pairs else 0.0, low, high, one, other, p)


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of a mean over problems; (-1, 1) for fewer than two values."""
    import numpy as np

    if len(values) < 2:
        return -1.0, 1.0
    rng, known = np.random.default_rng(seed), np.asarray(values)
    means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [_ALPHA / 2, 1 - _ALPHA / 2])
    return float(low), float(high)


def resampled(
    groups: Sequence[T], measure: Callable[[Sequence[T]], float | None], draws: int = 400
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of any measure of problems; (-1, 1) if it cannot be resampled."""
    import numpy as np

    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws if len(groups) > 1 else 0):
        value = measure([groups[place] for place in rng.integers(0, len(groups), len(groups))])
        if value is not None:
            found.append(value)
    if not found:
        return -1.0, 1.0
    low, high = np.quantile(found, [_ALPHA / 2, 1 - _ALPHA / 2])
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, corrected by Holm's method."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected


def differ(rows: Sequence[Sequence[bool]]) -> float:
    """Return the p-value of the differences between methods: Cochran's Q, by permutation within problems.

    Args:
        rows: For each problem, whether each method solved it.
    """
    import numpy as np

    table = np.asarray([row for row in rows if any(row) and not all(row)], dtype=float)
    if not table.size:
        return 1.0
    rng = np.random.default_rng(0)

    def spread(one: Any) -> float:
        return float(
            one.sum(axis=0).var()
        )  # Q is a multiple of this, by a factor that is invariant under permutations within rows

    wanted = spread(table) - 1e-9
    hits = sum(spread(rng.permuted(table, axis=1)) >= wanted for _ in range(DRAWS))
    return (hits + 1) / (DRAWS + 1)


# -- scores ------------------------------------------------------------------------------------------------------------


def area(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Return the chance that a right one scores above a wrong one, ties counting half; None if a kind is missing."""
    from scipy.stats import rankdata

    if not right or not wrong:
        return None
    ranks = rankdata([*right, *wrong])[: len(right)].sum()
    return float((ranks - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


class ReliabilityCurve(Struct, frozen=True):
    """A comparison of scores with the share of right ones; calibrated scores p are right with probability p.

    Attributes:
        ece: Expected calibration error.
        bins: Mean score, share that is right, and count of every bin.
    """

    ece: float
    bins: tuple[tuple[float, float, int], ...]


def calibration(scored: Iterable[tuple[float, bool]], bins: int = 10) -> ReliabilityCurve:
    """Return the calibration of scores in bins of about equal counts; equal scores always share a bin."""
    pairs = sorted(scored)
    parts: list[list[tuple[float, bool]]] = []
    start = 0
    for number in range(1, bins + 1):
        end = max(start, round(len(pairs) * number / bins))
        while 0 < end < len(pairs) and pairs[end][0] == pairs[end - 1][0]:
            end += 1
        if end > start:
            parts.append(pairs[start:end])
        start = end
    table = tuple((fmean(p for p, _ in part), fmean(right for _, right in part), len(part)) for part in parts)
    error = sum(abs(p - right) * count for p, right, count in table) / len(pairs) if pairs else 0.0
    return ReliabilityCurve(error, table)


def within(groups: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    """Return the correlation of two values within groups, after subtracting each group's means.

    None if no group has two members that differ.
    """
    import numpy as np

    kept = [np.asarray(group, dtype=float) for group in groups if len(group) > 1]
    if not kept:
        return None
    x, y = np.concatenate([group - group.mean(axis=0) for group in kept]).T
    size = float((x * x).sum() * (y * y).sum())
    return float((x * y).sum()) / size**0.5 if size > 1e-18 else None


class Errors(Struct, frozen=True):
    """The accuracy of finding first errors.

    Attributes:
        threshold: Score below which a step is taken as wrong.
        f1: Harmonic mean of the two accuracies, as in ProcessBench (arXiv 2412.06559).
        on_wrong: Share of solutions with an error whose first one is found.
        on_right: Share of solutions without an error in which none is found.
        wrong, right: Number of solutions with and without an error.
    """

    threshold: float
    f1: float
    on_wrong: float
    on_right: float
    wrong: int
    right: int


Labelled = tuple[Sequence[float], int]
"""Scores of a solution's steps, and the index of the first wrong one, or -1."""


def first_errors(solutions: Sequence[Labelled], threshold: float) -> Errors:
    """Measure the accuracy of finding first errors with a threshold."""
    hits: tuple[list[bool], list[bool]] = ([], [])
    for scores, label in solutions:
        found = next((place for place, score in enumerate(scores) if score < threshold), -1)
        hits[label < 0].append(found == label)
    wrong, right = (fmean(own) if own else 0.0 for own in hits)
    f1 = 2 * wrong * right / (wrong + right) if wrong + right else 0.0
    return Errors(threshold, f1, wrong, right, len(hits[0]), len(hits[1]))


def best_threshold(solutions: Sequence[Labelled], most: int = 200) -> float:
    """Return the threshold with the highest F1, the middle one of several; 0.5 if there are no candidates."""
    values = sorted({score for scores, _ in solutions for score in scores})
    cuts = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    step = max(1, len(cuts) // most)
    found = [first_errors(solutions, cut) for cut in cuts[::step]]
    if not found:
        return 0.5
    highest = max(one.f1 for one in found)
    best = [one.threshold for one in found if one.f1 == highest]
    return best[len(best) // 2]
