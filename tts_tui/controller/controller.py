"""The controller behind `auto`: it chooses how a search continues, from the difficulty and the value of each plan.

The choice is the paper's compute-optimal one (arXiv 2502.06703, section 3), made per prompt: among all plans that fit
the budget, the one with the highest expected accuracy minus its cost times a price. The price is the gain in accuracy
that a sample must be expected to bring; stopping costs nothing. A user can instead set a target: the most accurate
answer within a mean cost, or the cheapest plan that reaches an accuracy. The calibration then gives the price that
meets the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from tts_tui.controller.calibration import Calibration, ContinueFeatures, Curve, StartFeatures
from tts_tui.controller.difficulty import GRID, Observation, Posterior, update
from tts_tui.errors import PlanError
from tts_tui.tree.events import Considered, PlanChosen

EVEN = 0.5
"""Solvability that is assumed if it is unknown; its logit is 0."""
STOP = "stop"
SAMPLING = ("best-of-n", "majority")
"""Strategies that draw independent samples; samples that already exist count towards them."""

_SURE = 0.99
_FAR = 0.003


class Option(Struct, frozen=True):
    """An option for continuing a search.

    Attributes:
        strategy: The strategy that continues; empty to stop.
        n: Number of its candidates, including existing ones.
        more: Number of candidates added.
        accuracy: Expected accuracy of the answer.
        changes: Probability that it makes a wrong answer right, or a right one wrong.
        samples: Additional cost, in samples.
    """

    strategy: str
    n: int
    more: int
    accuracy: float
    changes: float
    samples: float

    @property
    def name(self) -> str:
        """Name of the plan, such as "beam:16", or "stop"."""
        return f"{self.strategy}:{self.n}" if self.strategy else STOP


class Objective(Struct, frozen=True):
    """The limits and the price under which the controller chooses.

    Attributes:
        most: Maximum number of candidates of a strategy.
        width: Beam width M of tree searches.
        tokens: Token budget of the entire search; None if unlimited.
        price: Expected gain in accuracy required for the tokens of an average sample.
        scores: Whether a PRM scores the steps.
    """

    most: int
    width: int
    tokens: float | None
    price: float
    scores: bool


def price_of(calibration: Calibration, target_tokens: float | None, accuracy: float | None) -> float:
    """Return the price that meets a target, or the calibration's default price if there is none.

    Args:
        calibration: A calibration with a measured frontier.
        target_tokens: Mean cost of a problem in tokens, for which accuracy is maximised.
        accuracy: Accuracy to reach at the lowest cost.

    Raises:
        PlanError: Both targets are given, there is no measured frontier, or the target lies outside it.
    """
    if target_tokens is not None and accuracy is not None:
        raise PlanError("set either target_tokens or target_accuracy, not both")
    if target_tokens is None and accuracy is None:
        return calibration.price
    if not calibration.frontier:
        raise PlanError(
            "a mean cost or an accuracy to reach can be kept only where the models were calibrated: run "
            "tts-tui calibrate first, or leave it out"
        )
    points = sorted(calibration.frontier, key=lambda point: point.tokens)
    if accuracy is not None:
        reached = [point for point in points if point.accuracy >= accuracy]
        if not reached:
            best = max(point.accuracy for point in points)
            raise PlanError(
                f"an accuracy of {accuracy:.0%} is out of reach: the best that was measured with these models is "
                f"{best:.0%}"
            )
        return reached[0].price
    assert target_tokens is not None
    if target_tokens < points[0].tokens * 0.8:
        raise PlanError(
            f"{target_tokens:.0f} tokens a problem are too few for any plan: the least that was measured is "
            f"{points[0].tokens:.0f}"
        )
    below = [point for point in points if point.tokens <= target_tokens] or points[:1]
    above = [point for point in points if point.tokens > target_tokens]
    left = below[-1]
    if not above or left.tokens >= target_tokens:
        return left.price
    right = above[0]
    share = (target_tokens - left.tokens) / (right.tokens - left.tokens)
    return math.exp((1 - share) * math.log(left.price) + share * math.log(right.price))


class PlanController:
    """A controller that chooses plans for one problem.

    Args:
        calibration: The calibration of the models.
        wish: Limits and price of the choice.
        values: Features of the prompt, as the calibration's difficulty model takes them.
    """

    def __init__(self, calibration: Calibration, wish: Objective, values: Sequence[float]) -> None:
        self.calibration = calibration
        self.wish = wish
        self.prior = calibration.difficulty.prior(values)
        self.reach = calibration.solvability.mean(values) if calibration.solvability else EVEN

    def choose(
        self, seen: Sequence[Observation], elected: int, answer: str | None, spent: float, done: dict[str, int]
    ) -> PlanChosen:
        """Choose the next plan.

        Args:
            seen: All solutions so far.
            elected: Group of the answer that currently wins the vote; -1 if there is none.
            answer: The answer that currently wins the vote.
            spent: Tokens spent so far.
            done: Number of candidates that each strategy has had so far.

        Raises:
            PlanError: The budget is too small for any plan.
        """
        belief = update(self.prior, seen, self.calibration.likelihood)
        sure = belief.right[elected] if 0 <= elected < len(belief.right) else 0.0
        cost = self._sample_cost(seen)
        once = 0.0 if seen else self.calibration.overhead
        room = math.inf if self.wish.tokens is None else self.wish.tokens - spent - once
        ways = [way for way in self._ways(belief, sure, done, bool(seen)) if way.samples * cost <= room]
        if not ways and not seen:
            every = self._ways(belief, sure, done, False, spurned=True)  # an excluded strategy is better than none
            ways = [way for way in every if way.samples * cost <= room]
            if not ways:
                raise PlanError(self._no_way(every, cost, once, spent))
        known = self.calibration.sample_tokens
        price = self.wish.price * cost / known if known else self.wish.price
        ways.sort(key=lambda way: (price * way.samples - way.accuracy, way.samples))
        if not seen:
            return self._begin(belief, ways, cost)
        return self._go_on(belief, sure, answer, ways, cost, done)

    def _sample_cost(self, seen: Sequence[Observation]) -> float:
        """Return the tokens of a sample of this problem, PRM included; the calibration's mean counts as two samples.

        Solutions chosen by a search are ignored, since part of their tokens belong to steps that were not chosen. The
        result is 0 while nothing is known.
        """
        known = self.calibration.sample_tokens
        own = [one.tokens for one in seen if one.sampled and one.tokens > 0]
        if not known:
            return fmean(own) if own else 0.0
        return (2 * known + sum(own)) / (2 + len(own))

    # -- options -----------------------------------------------------------------------------------------------------

    def _no_way(self, ways: Sequence[Option], cost: float, once: float, spent: float) -> str:
        """Return an error message that explains why no plan can start."""
        if ways:
            included = f", the {spent:.0f} of the prompt included" if spent else ""
            once += spent
            return (
                f"a budget of {self.wish.tokens:.0f} tokens is too small for any plan: the smallest one takes about "
                f"{min(way.samples for way in ways) * cost + once:.0f}{included}; raise the budget or drop it"
            )
        return (
            f"the calibration knows no plan with{'' if self.wish.scores else 'out'} a reward model for n = "
            f"{self.wish.most} and m = {self.wish.width}: take others, or run tts-tui calibrate with the models of "
            "this search"
        )

    def _ways(
        self, belief: Posterior, sure: float, done: dict[str, int], begun: bool, *, spurned: bool = False
    ) -> list[Option]:
        """Return all options, without strategies that lack a PRM or are not used; `spurned` includes the unused ones.

        If N leaves no room for a tree search, unused strategies are included too: sampling is then the only option.
        """
        ways = [Option("", 0, 0, sure, 0.0, 0.0)] if begun else []
        spurned = spurned or self.wish.most < self.wish.width
        for curve in self.calibration.curves:
            if not (curve.used or spurned) or (curve.strategy in ("best-of-n", "beam", "dvts")) != self.wish.scores:
                continue
            had = done.get(curve.strategy, 0)
            if curve.strategy == "beam" and had:
                continue  # a larger beam search would not contain the smaller one
            for n in self._sizes(curve, had):
                more = n - had
                ways.append(
                    self._after(curve, n, more, sum(done.values()), belief, sure)
                    if begun
                    else self._alone(curve, n, belief)
                )
        return ways

    def _sizes(self, curve: Curve, had: int) -> list[int]:
        """Return sizes above `had`, which grow by the width of a tree search, then by twice that, and so on."""
        more = self.calibration.probe if curve.strategy in SAMPLING and not had else self.wish.width
        sizes: list[int] = []
        measured = max(curve.sizes, default=self.wish.most)
        most = min(self.wish.most, measured)  # no larger size was measured
        while had + more <= most:
            sizes.append(had + more)
            more *= 2
        return sizes or ([most] if curve.strategy in SAMPLING and most > had else [])

    def _alone(self, curve: Curve, n: int, belief: Posterior) -> Option:
        """Return the option of starting a plan from nothing, with its accuracy averaged over the values of pass@1."""
        chances = [cloglog(curve.alone, start(x, n, self.reach)) for x in _LOGITS]
        accuracy = sum(weight * chance for weight, chance in zip(belief.weights, chances, strict=True))
        return Option(curve.strategy, n, n, float(accuracy), 0.0, curve.cost * n)

    def _after(self, curve: Curve, n: int, more: int, had: int, belief: Posterior, sure: float) -> Option:
        """Return the option of continuing the existing solutions with a plan."""
        x = position(belief.pass1, sure, more, had, self.reach)
        won, lost = (1 - sure) * cloglog(curve.win, x), sure * cloglog(curve.lose, x)
        return Option(curve.strategy, n, more, sure + won - lost, won + lost, curve.cost * more)

    # -- choices -----------------------------------------------------------------------------------------------------

    def _begin(self, belief: Posterior, ways: list[Option], cost: float) -> PlanChosen:
        """Choose before any sample: the probe with which all plans start, and the plan that looks best."""
        best = ways[0]
        strategy = "best-of-n" if self.wish.scores else "majority"
        first = min(self.calibration.probe, self.wish.most)
        more = f"the first {first} samples" if first > 1 else "a first sample"
        why = (
            f"one sample in {1 / max(belief.pass1, 0.01):.0f} is expected to be right: {best.name} looks best "
            f"({best.accuracy:.0%}), and {more} will tell more"
            if belief.pass1 < 0.5
            else f"{belief.pass1:.0%} of samples are expected to be right: {more} will tell more"
        )
        return self._chosen(belief, 0, None, 0.0, best, ways, cost, strategy, first, why)

    def _go_on(
        self, belief: Posterior, sure: float, answer: str | None, ways: list[Option], cost: float, done: dict[str, int]
    ) -> PlanChosen:
        best = ways[0] if ways else Option("", 0, 0, sure, 0.0, 0.0)
        count = len(belief.seen)
        said = f"{sure:.0%} sure of {answer}" if answer is not None else "no answer"
        head = f"{said} after {count} sample{'s' if count != 1 else ''}"
        if best.strategy == "":
            rival = max(ways, key=lambda way: way.accuracy, default=best)
            if rival.strategy:
                why = f"{head}: {rival.name} would bring {max(0.0, rival.accuracy - sure):+.1%}, not worth its price"
            else:
                left = "nothing more fits the budget" if self.wish.tokens is not None else "no larger plan is known"
                why = f"{head}: {left}"
            return self._chosen(belief, count, answer, sure, best, ways, cost, "", 0, why)
        why = (
            f"{head}: {best.name} is expected to be right in {best.accuracy:.0%}, "
            f"for about {best.samples * cost:.0f} tokens more"
        )
        n, had, width = best.n, done.get(best.strategy, 0), self.wish.width
        if best.strategy != "beam":  # the others stop after part of it, to choose again
            n = min(n, had + max(width, had // 2 // width * width))
        return self._chosen(belief, count, answer, sure, best, ways, cost, best.strategy, n, why)

    def _chosen(
        self,
        belief: Posterior,
        samples: int,
        answer: str | None,
        sure: float,
        best: Option,
        ways: Sequence[Option],
        cost: float,
        strategy: str,
        n: int,
        why: str,
    ) -> PlanChosen:
        rival = max((way for way in ways if way.strategy), key=lambda way: way.accuracy, default=best)
        once = 0.0 if samples else self.calibration.overhead
        return PlanChosen(
            samples=samples,
            pass1=round(belief.pass1, 4),
            low=round(belief.quantile(0.05), 4),
            high=round(belief.quantile(0.95), 4),
            levels=tuple(round(level, 4) for level in belief.levels),  # type: ignore[arg-type]
            answer=answer,
            confidence=round(sure, 4),
            changes=round(rival.changes, 4),
            considered=tuple(
                Considered(way.name, round(way.accuracy, 4), round(way.samples * cost + once, 1)) for way in ways
            ),
            chosen=best.name,
            strategy=strategy,
            n=n,
            basis=self.calibration.basis,
            why=why,
        )


_LOGITS = [math.log(p / (1 - p)) for p in (float(min(max(q, _FAR), 1 - _FAR)) for q in GRID)]
"""Logits of `GRID`, clipped away from the infinities at its ends."""


def logit(share: float, edge: float) -> float:
    """Return the logit of a share, clipped to at least `edge` away from 0 and 1."""
    clipped = min(max(share, edge), 1 - edge)
    return math.log(clipped / (1 - clipped))


def position(pass1: float, sure: float, more: int, had: int, reach: float) -> ContinueFeatures:
    """Return the features for continuing with `more` candidates after `had` existing ones (`Curve.win`)."""
    return 1.0, logit(pass1, _FAR), logit(sure, 1 - _SURE), math.log2(more), math.log2(1 + had), logit(reach, _FAR)


def start(log_odds: float, n: int, reach: float) -> StartFeatures:
    """Return the features for a plan of `n` candidates that starts from nothing (`Curve.alone`)."""
    size = math.log2(n)
    return 1.0, log_odds, size, log_odds * size, logit(reach, _FAR)


def cloglog(weights: Sequence[float], values: Sequence[float]) -> float:
    """Return the value of a curve, a regression with complementary log-log link: 1 - exp(-exp(weights . values)).

    If n candidates succeed independently, each with a small rate r, at least one succeeds with probability 1 - exp(-n
    r): log n then has weight 1, and no candidates never succeed. Candidates that are correlated make the weight
    smaller.
    """
    total = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return -math.expm1(-math.exp(min(max(total, -20.0), 4.0)))
