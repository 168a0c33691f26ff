"""Early stopping on recorded samples of a real model, without generating: `python -m benchmarks.controller.rescoring`.

40 problems of MATH-500 with 8 samples of Qwen2.5-1.5B-Instruct each, their tokens, and their mean scores of
Skywork-o1-Open-PRM-1.5B. Samples are seen one after the other; those after the stop are saved. No stopping parameter
was chosen on this file: the belief and its evidence are the priors of a policy and a PRM of this size
(`tts_tui.controller.priors`), and levels are stated tolerances.

- gain: the rest is expected to bring less than 1 % of the accuracy that the priors expect of one sample. The bar.
- change: the probability that the rest changes the answer, right or wrong, is below 5 % or 1 %.
- auto: the controller with priors, at their price of a sample.
- first 4: no stopping rule; half of the samples, whatever their answers.
- fitted: `gain`, with base rate and evidence fitted on the other four fifths of the problems. Not part of the bar,
  since it has seen the file, though never the problem that it is evaluated on.
- hindsight: the fewest tokens at which any level of `gain` keeps 99 %, and those of an oracle that knows in advance
  after which sample the answer stays right, or wrong: a bound that no rule of this kind can beat.

A problem with many different wrong answers changes its answer with almost every sample, without becoming more accurate.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.controller.stopping import Change, changes
from tts_tui.answers.canonical import extract
from tts_tui.answers.grading import Grader
from tts_tui.controller import priors
from tts_tui.controller.calibration import Calibration
from tts_tui.controller.controller import SAMPLING
from tts_tui.controller.difficulty import prior, update
from tts_tui.errors import UsageError
from tts_tui.evaluation.prm.voting_report import wilson
from tts_tui.evaluation.statistics import bootstrap, resampled
from tts_tui.plan import Vote
from tts_tui.protocols import ModelInfo
from tts_tui.training.controller import difficulty_fit
from tts_tui.training.controller.cases import Case, Sample, SolutionSet
from tts_tui.training.controller.simulation import play

SAMPLES = Path("../shared/data/math500-samples.json")
POLICY = ModelInfo("qwen2.5-1.5b-instruct", 1_540_000_000, 32768, "qwen")
PRM = ModelInfo("skywork-1.5b", 1_540_000_000, 32768)
VOTES: tuple[Vote, ...] = ("majority", "prm-vote", "prm-max")
TOLERANCE = 0.01
"""Share of the accuracy that may be lost; the bar is to keep 99 %."""
KEPT, SHARE = 1 - TOLERANCE, 0.6
FOLDS = 5
LEVELS = [0.0005 * 1.3**step for step in range(25)]
"""Levels tried in hindsight."""


class Trace(Struct):
    text: str
    tokens: int
    correct: bool
    prm_score: float


class Record(Struct):
    problem_id: str
    gold: str
    traces: list[Trace]


class Meta(Struct):
    max_tokens: int


class Recorded(Struct):
    meta: Meta
    records: list[Record]


class Run(Struct, frozen=True):
    """A rule on a problem: whether its answer is right, its tokens and samples, and if all samples give it."""

    right: bool
    tokens: float
    samples: int
    same: bool | None


def read(path: Path) -> Recorded:
    """Read the recorded samples.

    Raises:
        UsageError: The file cannot be read, or holds no recorded samples.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recorded)
    except OSError as error:
        raise UsageError(f"cannot read the samples {path}: {error.strerror or error}; give --samples FILE") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} holds no recorded samples: {error}") from error


async def graded(found: Recorded, grader: Grader) -> tuple[list[Case], list[Case]]:
    """Return all problems twice: with the flags of the file, and graded again.

    The file has a flag per sample and no answers. An answer is right by the flags if most of its samples are.
    """
    flagged: list[Case] = []
    anew: list[Case] = []
    for record in found.records:
        written = [extract(one.text, finished=one.tokens < found.meta.max_tokens) for one in record.traces]
        groups = await grader.group(written)
        first = {group: str(text) for text, group in reversed(list(zip(written, groups, strict=True)))}
        same = {group: group >= 0 and await grader.same(text, record.gold) is True for group, text in first.items()}
        flags: dict[int, list[bool]] = {}
        for one, group in zip(record.traces, groups, strict=True):
            flags.setdefault(group, []).append(one.correct)
        most = {group: group >= 0 and 2 * sum(own) > len(own) for group, own in flags.items()}
        for cases, right in ((flagged, most), (anew, same)):
            pool = tuple(
                Sample(str(group) if group >= 0 else None, right[group], (one.prm_score,), float(one.tokens))
                for one, group in zip(record.traces, groups, strict=True)
            )
            cases.append(Case(record.problem_id, "", (), pool, {}))
    return flagged, anew


class InOrder(random.Random):
    """A generator that draws nothing: samples stay in the order in which they were recorded."""

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        return list(population)[:k]


class Walked(Struct, frozen=True):
    """A problem, sample by sample: the state after each, and the forecast of the effect of the rest."""

    right: tuple[bool, ...]
    answer: tuple[int, ...]
    tokens: tuple[float, ...]
    ahead: tuple[Change, ...]

    def until(self, enough: Callable[[Change], bool]) -> Run:
        """Return the result of stopping at the first sample at which a rule is satisfied."""
        return self.at(next((k for k, change in enumerate(self.ahead) if enough(change)), len(self.right) - 1))

    def at(self, k: int) -> Run:
        """Return the result of stopping after sample k, from 0."""
        return Run(self.right[k], self.tokens[k], k + 1, self.answer[k] == self.answer[-1])

    @property
    def settled(self) -> int:
        """Index of the sample from which on the answer stays right, or stays wrong."""
        return next(k for k in range(len(self.right)) if len(set(self.right[k:])) == 1)


def walk(pool: Sequence[Sample], calibration: Calibration, draws: int) -> Walked:
    """Process the samples one after the other."""
    prior = calibration.difficulty.prior([])
    hand = SolutionSet(calibration.score, calibration.vote)
    right, answer, tokens, ahead = [], [], [], []
    for k, one in enumerate(pool, 1):
        hand.add([one])
        right.append(hand.is_right)
        answer.append(hand.elected)
        tokens.append(sum(own.tokens for own in pool[:k]))
        if k < len(pool):
            belief = update(prior, hand.seen, calibration.likelihood)
            ahead.append(changes(belief, calibration.likelihood, calibration.vote, len(pool) - k, draws=draws))
    return Walked(tuple(right), tuple(answer), tuple(tokens), tuple(ahead))


def rules(calibration: Calibration) -> dict[str, Callable[[Change], bool]]:
    """Return the stopping rules by name."""
    level = TOLERANCE * calibration.difficulty.prior([]).pass1
    return {
        f"gain < {level:.2%}": lambda change: change.gain < level,
        "change < 5 %": lambda change: change.answer < 0.05,
        "change < 1 %": lambda change: change.answer < 0.01,
    }


def controlled(pool: Sequence[Sample], calibration: Calibration) -> Run:
    """Simulate the controller, which starts with one sample and reconsiders after each few."""
    curves = tuple(curve for curve in calibration.curves if curve.strategy in SAMPLING)  # no search was recorded
    calibration = replace(calibration, curves=curves, probe=1)
    played = play(Case("", "", (), tuple(pool), {}), calibration, calibration.price, 1, InOrder())
    return Run(played.right, played.tokens, int(played.steps[-1].partition(":")[2]), None)


def usual(vote: Vote) -> Calibration:
    """Return the priors of these models."""
    return priors.calibration(POLICY, None if vote == "majority" else PRM, "avg", vote)


def fitted(cases: Sequence[Case], vote: Vote) -> list[Calibration]:
    """Return each case's calibration, with base rate and evidence fitted on the other folds, held near the priors."""
    given, placed, found = usual(vote), difficulty_fit.folds(cases, FOLDS), []
    for fold in range(FOLDS):
        own = [case for case, at in zip(cases, placed, strict=True) if at != fold]
        mean = (sum(case.right for case in own) + 1) / (sum(len(case.pool) for case in own) + 2)
        beliefs = [prior(mean, given.difficulty.concentration)] * len(own)
        outlook = replace(given.difficulty, bias=math.log(mean / (1 - mean)))
        how = difficulty_fit.evidence(own, beliefs, given.score, vote, given.likelihood)
        found.append(replace(given, likelihood=how, difficulty=outlook))
    return [found[at] for at in placed]


def table(title: str, cases: Sequence[Case], pools: Sequence[Sequence[Sequence[Sample]]], draws: int) -> None:
    """Print the results of all rules; each case has one or more pools, in the orders in which they are seen."""
    print(f"\n{title}")
    print("vote      rule           accuracy         kept of all 8's         tokens          samples  same answer")
    for vote in VOTES:
        given = usual(vote)
        walks = [[walk(pool, given, draws) for pool in own] for own in pools]
        runs = {name: [[path.until(rule) for path in own] for own in walks] for name, rule in rules(given).items()}
        runs["auto"] = [[controlled(pool, given) for pool in own] for own in pools]
        runs["first 4"] = [[path.at(3) for path in own] for own in walks]
        usually = next(iter(rules(given).values()))
        runs["fitted"] = [
            [walk(pool, calibration, draws).until(usually) for pool in own]
            for calibration, own in zip(fitted(cases, vote), pools, strict=True)
        ]
        whole = [[path.at(len(path.right) - 1) for path in own] for own in walks]
        right = sum(fmean(run.right for run in own) for own in whole)
        low, high = wilson(right, len(cases))
        print(f"{vote:<8}  {'all 8':<13}  {right / len(cases):5.1%} ({low:.0%}-{high:.0%})")
        for name, found in runs.items():
            print(f"{vote:<8}  {name:<13}  {line(found, whole)}")
        print(f"{vote:<8}  {'hindsight':<13}  {hindsight(walks, whole)}")


def line(found: Sequence[Sequence[Run]], whole: Sequence[Sequence[Run]]) -> str:
    """Format the results of one rule against all samples, with 95 % intervals over problems."""
    means = [(*mean(own), *mean(full)) for own, full in zip(found, whole, strict=True)]
    right, tokens, all_right, all_tokens = (sum(column) for column in zip(*means, strict=True))
    low, high = wilson(right, len(means))
    kept = resampled(means, lambda some: sum(one[0] for one in some) / max(sum(one[2] for one in some), 1e-9))
    share = resampled(means, lambda some: sum(one[1] for one in some) / sum(one[3] for one in some))
    said = [run.same for own in found for run in own if run.same is not None]
    met = "  meets the bar" if right >= KEPT * all_right and tokens <= SHARE * all_tokens else ""
    return (
        f"{right / len(means):5.1%} ({low:.0%}-{high:.0%})"
        f"  {right / all_right:6.1%} ({kept[0]:6.1%}-{kept[1]:6.1%})"
        f"  {tokens / all_tokens:5.1%} ({share[0]:.0%}-{share[1]:.0%})"
        f"  {fmean(run.samples for own in found for run in own):7.2f}"
        f"  {f'{fmean(said):.0%}' if said else '':>11}{met}"
    )


def mean(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the share of right answers, and the mean number of tokens."""
    return fmean(run.right for run in runs), fmean(run.tokens for run in runs)


def hindsight(walks: Sequence[Sequence[Walked]], whole: Sequence[Sequence[Run]]) -> str:
    """Describe the fewest tokens that keep 99 %: for any level of gain, and for an oracle."""
    flat = [path for own in walks for path in own]
    right = sum(run.right for own in whole for run in own)
    total = sum(run.tokens for own in whole for run in own)
    best = 1.0
    for level in LEVELS:
        runs = [path.until(lambda change, level=level: change.gain < level) for path in flat]  # type: ignore[misc]
        if sum(run.right for run in runs) >= KEPT * right:
            best = min(best, sum(run.tokens for run in runs) / total)
    knowing = sum(path.tokens[path.settled] for path in flat) / total
    return f"no level of gain keeps 99 % at less than {best:.1%} of the tokens; somebody who knows, at {knowing:.1%}"


def classes(cases: Sequence[Case], pools: Sequence[Sequence[Sequence[Sample]]], draws: int) -> None:
    """Print the distribution of tokens: problems by the number of their right samples."""
    total = sum(one.tokens for case in cases for one in case.pool)
    print(
        "\nwhere the tokens go: problems by how many of 8 are right; samples until `gain` stops, its forecast after 4"
    )
    print("right  problems  share of all tokens  " + "  ".join(f"{vote:>17}" for vote in VOTES))
    walks = {vote: [[walk(pool, usual(vote), draws) for pool in own] for own in pools] for vote in VOTES}
    for low, high in ((0, 0), (1, 3), (4, 6), (7, 8)):
        own = [place for place, case in enumerate(cases) if low <= case.right <= high]
        share = sum(one.tokens for place in own for one in cases[place].pool) / total
        said = []
        for vote in VOTES:
            rule = next(iter(rules(usual(vote)).values()))
            flat = [path for place in own for path in walks[vote][place]]
            samples = fmean(path.until(rule).samples for path in flat)
            said.append(f"{samples:.1f} samples, {fmean(path.ahead[3].gain for path in flat):.1%}")
        name = f"{low}-{high}" if high else "0"
        print(f"{name:<5}  {len(own):>8}  {share:>19.0%}  " + "  ".join(f"{one:>17}" for one in said))


def reliability(pools: Sequence[Sequence[Sequence[Sample]]], draws: int) -> None:
    """Print forecast and observed probabilities on these problems."""
    print("\nwhat the rest of 8 does: forecast, and seen with an interval of 95 %")
    print("vote      after  answer changes      wrong becomes right  right becomes wrong")
    for vote in VOTES:
        walks = [[walk(pool, usual(vote), draws) for pool in own] for own in pools]
        for k in (0, 1, 3, 5):
            forecast = [path.ahead[k] for own in walks for path in own]
            rows = (
                ([one.answer for one in forecast], [[p.answer[k] != p.answer[-1] for p in own] for own in walks]),
                ([one.gained for one in forecast], [[p.right[-1] > p.right[k] for p in own] for own in walks]),
                ([one.lost for one in forecast], [[p.right[-1] < p.right[k] for p in own] for own in walks]),
            )
            said = []
            for forecasts, seen in rows:
                means = [fmean(own) for own in seen]
                low, high = bootstrap(means)
                said.append(f"{fmean(forecasts):4.0%} {fmean(means):4.0%} ({low:.0%}-{high:.0%})")
            print(f"{vote:<8}  {k + 1:>5}  " + "  ".join(f"{one:<19}" for one in said))


async def measure(path: Path, orders: int, draws: int) -> None:
    """Print all tables."""
    found = read(path)
    async with Grader() as grader:
        flagged, anew = await graded(found, grader)
        if grader.unsettled:
            print(f"{len(grader.unsettled)} pairs of answers could not be compared and count as different")
    print(f"{len(anew)} problems, {sum(len(case.pool) for case in anew)} samples")
    print(f"{sum(one.answer is None for case in anew for one in case.pool)} samples have no answer")
    pairs = [(a, b) for case, own in zip(flagged, anew, strict=True) for a, b in zip(case.pool, own.pool, strict=True)]
    flags = [trace.correct for record in found.records for trace in record.traces]
    print(f"{sum(a.right != flag for (a, _), flag in zip(pairs, flags, strict=True))} flags differ from their answer's")
    differ = sum(a.right != b.right for a, b in pairs)
    print(f"{differ} samples are graded otherwise by tts-tui than by the file's flags")
    gradings = {"graded by tts-tui": anew, "graded by the file's flags": flagged}
    if not differ:
        gradings = {"by both gradings": anew}
    for name, cases in gradings.items():
        table(f"{name}, in the recorded order", cases, [[case.pool] for case in cases], draws)
        table(f"{name}, mean of {orders} random orders", cases, shuffled(cases, orders), draws)
    classes(anew, shuffled(anew, orders), draws)
    reliability(shuffled(anew, orders), draws)


def shuffled(cases: Sequence[Case], orders: int) -> list[list[list[Sample]]]:
    """Return each case's samples in `orders` random orders."""
    return [
        [random.Random(f"{case.id}/{at}").sample(case.pool, len(case.pool)) for at in range(orders)] for case in cases
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=SAMPLES, help=f"the recorded samples [default: {SAMPLES}]")
    parser.add_argument("--orders", type=int, default=20, help="random orders [default: 20]")
    parser.add_argument("--draws", type=int, default=4000, help="futures that are played out [default: 4000]")
    options = parser.parse_args()
    try:
        asyncio.run(measure(options.samples, options.orders, options.draws))
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
