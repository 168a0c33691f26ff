"""Early stopping on recorded samples of a real model, without generating: `python -m benchmarks.controller.rescoring`.

40 problems of MATH-500 with 8 samples of Qwen2.5-1.5B-Instruct each, their tokens, and their mean scores of
Skywork-o1-Open-PRM-1.5B. Samples are seen one after the other; what is not needed any more is saved. All that decides
when to stop was fixed before this file was looked at: the belief and its evidence are the priors of a policy and a PRM
of this size (`tts_tui.priors`), and levels are stated tolerances.

- gain: more samples are expected to bring less than 1 % of the accuracy that the priors expect of one sample. The bar.
- change: the probability that more samples change the answer, right or wrong, is below 5 % or 1 %.
- auto: what the controller does on priors, at their price of a sample.
- first 4: no stopping rule; half of the samples, whatever they say.

A problem with many different wrong answers changes its answer with almost every sample, and is none the better for it:
therefore `gain` saves where `change` cannot.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct

from tts_tui import priors
from tts_tui.answers import extract
from tts_tui.calibration import Calibration
from tts_tui.contracts import ModelInfo
from tts_tui.controller import SAMPLING
from tts_tui.difficulty import after
from tts_tui.evaluation.cases import Case, Drawn, Hand
from tts_tui.evaluation.measures import bootstrap, resampled
from tts_tui.evaluation.prm_report import wilson
from tts_tui.evaluation.simulating import play
from tts_tui.grading import Grader
from tts_tui.plan import Vote
from tts_tui.stopping import Change, changes

SAMPLES = Path("../shared/data/math500-samples.json")
POLICY = ModelInfo("qwen2.5-1.5b-instruct", 1_540_000_000, 32768, "qwen")
PRM = ModelInfo("skywork-1.5b", 1_540_000_000, 32768)
VOTES: tuple[Vote, ...] = ("majority", "prm-vote", "prm-max")
TOLERANCE = 0.01
"""Share of the accuracy that may be lost: the bar's 99 %."""
KEPT, SHARE = 1 - TOLERANCE, 0.6


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
    """A problem under a rule: whether its answer was right, its tokens, its samples, whether all of them agree."""

    right: bool
    tokens: float
    samples: int
    same: bool


def read(path: Path) -> Recorded:
    """The samples, or one sentence."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recorded)
    except OSError as error:
        sys.exit(f"cannot read the samples {path}: {error.strerror or error}; --samples says where they are")
    except msgspec.DecodeError as error:
        sys.exit(f"{path} holds no recorded samples: {error}")


async def graded(found: Recorded, grader: Grader) -> tuple[list[Case], list[Case]]:
    """All problems twice: with the flags of the file, and graded anew.

    The file has a flag a sample and no answers. An answer is right by the flags if most of its samples are.
    """
    flagged, anew = [], []
    for record in found.records:
        written = [extract(one.text, finished=one.tokens < found.meta.max_tokens) for one in record.traces]
        groups = await grader.group(written)
        first = {group: str(text) for text, group in reversed(list(zip(written, groups, strict=True)))}
        same = {group: group >= 0 and await grader.same(text, record.gold) for group, text in first.items()}
        flags: dict[int, list[bool]] = {}
        for one, group in zip(record.traces, groups, strict=True):
            flags.setdefault(group, []).append(one.correct)
        most = {group: group >= 0 and 2 * sum(own) > len(own) for group, own in flags.items()}
        for cases, right in ((flagged, most), (anew, same)):
            pool = tuple(
                Drawn(str(group) if group >= 0 else None, right[group], (one.prm_score,), float(one.tokens))
                for one, group in zip(record.traces, groups, strict=True)
            )
            cases.append(Case(record.problem_id, "", (), pool, {}))
    return flagged, anew


class InOrder(random.Random):
    """Draws nothing: samples stay in the order in which they were recorded."""

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        return list(population)[:k]


class Path8(Struct, frozen=True):
    """A problem, sample by sample: the standing after each, and what the rest would do."""

    right: tuple[bool, ...]
    answer: tuple[int, ...]
    tokens: tuple[float, ...]
    ahead: tuple[Change, ...]

    def until(self, enough: Callable[[Change], bool]) -> Run:
        at = next((k for k, change in enumerate(self.ahead) if enough(change)), len(self.right) - 1)
        return Run(self.right[at], self.tokens[at], at + 1, self.answer[at] == self.answer[-1])


def walk(pool: Sequence[Drawn], calibration: Calibration, draws: int) -> Path8:
    """Sees one sample after the other."""
    prior = calibration.outlook.belief([])
    hand = Hand(calibration.score, calibration.vote)
    right, answer, tokens, ahead = [], [], [], []
    for k, one in enumerate(pool, 1):
        hand.add([one])
        right.append(hand.is_right)
        answer.append(hand.elected)
        tokens.append(sum(own.tokens for own in pool[:k]))
        if k < len(pool):
            belief = after(prior, hand.seen, calibration.evidence)
            ahead.append(changes(belief, calibration.evidence, calibration.vote, len(pool) - k, draws=draws))
    return Path8(tuple(right), tuple(answer), tuple(tokens), tuple(ahead))


def rules(calibration: Calibration) -> dict[str, Callable[[Change], bool]]:
    """When to stop."""
    level = TOLERANCE * calibration.outlook.belief([]).pass1
    return {
        f"gain < {level:.2%}": lambda change: change.gain < level,
        "change < 5 %": lambda change: change.answer < 0.05,
        "change < 1 %": lambda change: change.answer < 0.01,
    }


def controlled(case: Case, calibration: Calibration, rng: random.Random) -> Run:
    """What the controller does; it begins with one sample and looks again after each few."""
    curves = tuple(curve for curve in calibration.curves if curve.strategy in SAMPLING)  # no search was recorded
    calibration = msgspec.structs.replace(calibration, curves=curves)
    played = play(case, calibration, calibration.price, 1, rng)
    samples = int(played.steps[-1].partition(":")[2])
    return Run(played.right, played.tokens, samples, played.right)


def table(title: str, cases: Sequence[Case], orders: Sequence[random.Random], draws: int) -> None:
    """Prints what all rules come to, over all orders."""
    print(f"\n{title}")
    print("vote      rule           accuracy         kept of all 8's         tokens                samples  same answer")
    for vote in VOTES:
        prm = None if vote == "majority" else PRM
        calibration = msgspec.structs.replace(priors.calibration(POLICY, prm, "avg", vote), probe=1)
        runs: dict[str, list[list[Run]]] = {}
        for case in cases:
            walks = [walk(rng.sample(case.pool, len(case.pool)), calibration, draws) for rng in orders]
            own: dict[str, list[Run]] = {"all 8": [path.until(lambda _: False) for path in walks]}
            for name, rule in rules(calibration).items():
                own[name] = [path.until(rule) for path in walks]
            own["auto"] = [controlled(case, calibration, rng) for rng in orders]
            own["first 4"] = [Run(p.right[3], p.tokens[3], 4, p.answer[3] == p.answer[-1]) for p in walks]
            for name, found in own.items():
                runs.setdefault(name, []).append(found)
        for name, found in runs.items():
            print(f"{vote:<8}  {name:<13}  {line(found, runs['all 8'], name)}")


def line(found: Sequence[Sequence[Run]], whole: Sequence[Sequence[Run]], name: str) -> str:
    """One rule, against all samples; intervals are of 95 % over problems."""
    pairs = [
        (fmean(r.right for r in own), fmean(r.right for r in full), fmean(r.tokens for r in own), fmean(r.tokens for r in full))
        for own, full in zip(found, whole, strict=True)
    ]
    right, full, tokens, total = (sum(column) for column in zip(*pairs, strict=True))
    low, high = wilson(right, len(pairs))
    said = f"{right / len(pairs):5.1%} ({low:.0%}-{high:.0%})"
    if name == "all 8":
        return said
    kept = resampled(pairs, lambda some: sum(p[0] for p in some) / max(sum(p[1] for p in some), 1e-9))
    share = resampled(pairs, lambda some: sum(p[2] for p in some) / sum(p[3] for p in some))
    met = "  meets the bar" if right / full >= KEPT and tokens / total <= SHARE else ""
    agree = "" if name == "auto" else f"{fmean(r.same for own in found for r in own):>7.0%}"
    return (
        f"{said}  {right / full:6.1%} ({kept[0]:.1%}-{kept[1]:.1%})  {tokens / total:5.1%} ({share[0]:.0%}-{share[1]:.0%})"
        f"  {fmean(r.samples for own in found for r in own):6.2f}  {agree:>7}{met}"
    )


def reliability(cases: Sequence[Case], orders: Sequence[random.Random], draws: int) -> None:
    """Prints whether the probabilities are calibrated on these problems."""
    print("\nwhat the rest of 8 does, forecast and seen (random orders)")
    print("vote      after  answer changes      wrong becomes right   right becomes wrong")
    for vote in VOTES:
        prm = None if vote == "majority" else PRM
        calibration = priors.calibration(POLICY, prm, "avg", vote)
        walks = [[walk(rng.sample(c.pool, len(c.pool)), calibration, draws) for rng in orders] for c in cases]
        for k in (1, 2, 4, 6):
            row = [
                (lambda p: p.ahead[k - 1].answer, lambda p: p.answer[k - 1] != p.answer[-1]),
                (lambda p: p.ahead[k - 1].gained, lambda p: not p.right[k - 1] and p.right[-1]),
                (lambda p: p.ahead[k - 1].lost, lambda p: p.right[k - 1] and not p.right[-1]),
            ]
            said = []
            for forecast, seen in row:
                means = [fmean(seen(p) for p in own) for own in walks]
                low, high = bootstrap(means)
                said.append(f"{fmean(forecast(p) for own in walks for p in own):4.0%} {fmean(means):4.0%} ({low:.0%}-{high:.0%})")
            print(f"{vote:<8}  {k:>5}  " + "  ".join(f"{one:<18}" for one in said))


async def measure(path: Path, orders: int, draws: int) -> None:
    """Prints everything."""
    found = read(path)
    async with Grader() as grader:
        flagged, anew = await graded(found, grader)
    count = len(found.records)
    differ = sum(a.right != b.right for case, own in zip(flagged, anew, strict=True) for a, b in zip(case.pool, own.pool, strict=True))
    own = sum(
        one.right != trace.correct
        for record, case in zip(found.records, flagged, strict=True)
        for trace, one in zip(record.traces, case.pool, strict=True)
    )
    blank = sum(one.answer is None for case in anew for one in case.pool)
    print(f"{count} problems, {sum(len(case.pool) for case in anew)} samples, {blank} of them without an answer")
    print(f"grading anew differs from the flags in {differ} samples; {own} flags differ from most of their answer's")
    for name, cases in (("graded by the file's flags", flagged), ("graded by tts-tui", anew)):
        table(f"{name}, in the recorded order", cases, [InOrder()], draws)
    shuffles = [random.Random(seed) for seed in range(orders)]
    table(f"graded by the file's flags, mean of {orders} random orders", flagged, shuffles, draws)
    shuffles = [random.Random(seed) for seed in range(orders)]
    table(f"graded by tts-tui, mean of {orders} random orders", anew, shuffles, draws)
    reliability(anew, [random.Random(seed) for seed in range(orders)], draws)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=SAMPLES, help=f"the recorded samples [default: {SAMPLES}]")
    parser.add_argument("--orders", type=int, default=20, help="random orders [default: 20]")
    parser.add_argument("--draws", type=int, default=4000, help="futures that are played out [default: 4000]")
    options = parser.parse_args()
    asyncio.run(measure(options.samples, options.orders, options.draws))


if __name__ == "__main__":
    main()
