"""Runs of strategies on test problems, with stored outcomes: one file per problem and strategy."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tts_tui import Solver
from tts_tui.answers.canonical import same
from tts_tui.answers.voting import Candidate, tally
from tts_tui.backends.adapter.lora import fingerprint
from tts_tui.backends.adapter.reward_model import AdapterPRM
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.concurrency import concurrently
from tts_tui.evaluation.datasets.families import FAMILIES, Problem, problems
from tts_tui.evaluation.samples import SampleCache, SamplingSettings, sample_all
from tts_tui.plan import Score, Vote
from tts_tui.protocols import ScoreRequest

SKIPPED = 8
"""Number of leading test problems of each family to leave out, since they were used during development."""
N = 16
SEARCHES = ("beam", "dvts")


class Outcome(Struct, frozen=True):
    """The outcome of a strategy on a problem.

    Attributes:
        problem: The problem.
        strategy: Name of the strategy; the outcome of `best-of-n` has all its samples.
        answers: Answer of every solution that votes; None if there is none.
        scores: Step scores of each solution.
        tokens: Number of sampled tokens of each solution's path.
        sampled: Number of tokens sampled by the policy.
        scored: Number of tokens computed by the PRM.
    """

    problem: Problem
    strategy: str
    answers: tuple[str | None, ...]
    scores: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    sampled: int
    scored: int

    @property
    def right(self) -> list[bool]:
        """Flags of the solutions with the right answer."""
        return [answer is not None and same(answer, self.problem.answer) for answer in self.answers]

    def solved(self, score: Score, vote: Vote, chosen: Sequence[int] | None = None) -> bool:
        """Return whether a vote over all solutions, or the `chosen` ones, elects the right answer."""
        numbers = range(len(self.answers)) if chosen is None else chosen
        ranked = tally([Candidate(n, self.answers[n], self.scores[n]) for n in numbers], score, vote)
        return bool(ranked) and same(ranked[0].answer, self.problem.answer)


def test_problems(count: int, names: Sequence[str] = tuple(FAMILIES)) -> list[Problem]:
    """Return the first `count` usable problems of each family's test split, one of each family in turn."""
    drawn = [problems(name, "test", SKIPPED + count)[SKIPPED:] for name in names]
    return [own[place] for place in range(count) for own in drawn if place < len(own)]


class Store:
    """A folder of outcomes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, problem: Problem, strategy: str) -> Path:
        return self.folder / f"{strategy}-{problem.family}-{problem.index:04d}.json"

    def load(self, problem: Problem, strategy: str) -> Outcome | None:
        try:
            found = msgspec.json.decode(self._path(problem, strategy).read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.problem == problem else None

    def save(self, outcome: Outcome) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(outcome.problem, outcome.strategy)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(msgspec.json.encode(outcome))
        os.replace(scratch, path)


async def run(
    solver: Solver, strategy: str, wanted: Sequence[Problem], store: Store, samples: Path, concurrency: int = 4
) -> list[Outcome]:
    """Return the outcomes of `strategy` on all problems, running only those that are not stored."""
    missing = [problem for problem in wanted if store.load(problem, strategy) is None]
    if missing:
        tell = teller(strategy, len(missing))
        if strategy == "best-of-n":
            await _samples(solver, missing, store, samples, tell)
        else:
            await _searches(solver, strategy, missing, store, tell, concurrency)
    return [outcome for problem in wanted if (outcome := store.load(problem, strategy)) is not None]


async def _searches(
    solver: Solver, strategy: str, wanted: Sequence[Problem], store: Store, tell: Callable[[], None], concurrency: int
) -> None:
    plan = solver.plan(strategy, n=N)
    by_question = [problem.question for problem in wanted]
    async for result in solver.solve_many(by_question, plan, parallel=concurrency):
        if result.reason == "failed":
            raise SystemExit(f"{wanted[result.index].question}: {result.finished.detail}")
        nodes = [result.tree.nodes[number] for vote in result.votes for number in vote.solutions]
        counts = result.tree.counts
        store.save(
            Outcome(
                wanted[result.index],
                strategy,
                tuple(node.answer for node in nodes),
                tuple(tuple(node.scores) for node in nodes),
                tuple(len(node.path_ids) for node in nodes),
                counts.completion,
                counts.prm_computed,
            )
        )
        tell()


async def _samples(
    solver: Solver, wanted: Sequence[Problem], store: Store, folder: Path, tell: Callable[[], None]
) -> None:
    """Run Best-of-N from samples on disk: all solutions come from the policy, and the PRM scores every step."""
    policy, prm = solver.policy, solver.prm
    assert isinstance(policy, EmbeddedPolicy) and isinstance(prm, AdapterPRM)
    cache = SampleCache(folder, SamplingSettings(fingerprint(policy.network[1])))
    await prm.start()
    permits = asyncio.Semaphore(4)

    async def one(problem: Problem) -> None:
        async with permits:
            (sampled,) = await sample_all(policy, [(problem, N)], cache)
            prompt = await policy.prompt(problem.question)
            asked = [
                ScoreRequest(prompt, own.steps[:end], own.ids[:end])
                for own in sampled.solutions
                for end in range(1, len(own.steps) + 1)
            ]
            found = await prm.score(asked)
            scores, at = [], 0
            for own in sampled.solutions:
                scores.append(tuple(score.score for score in found[at : at + len(own.steps)]))
                at += len(own.steps)
            tokens = tuple(own.tokens for own in sampled.solutions)
            answers = tuple(own.answer for own in sampled.solutions)
            spent = sum(score.computed for score in found)
            store.save(Outcome(problem, "best-of-n", answers, tuple(scores), tokens, sum(tokens), spent))
            tell()

    try:
        await concurrently(one(problem) for problem in wanted)
    finally:
        await prm.close()


def teller(what: str, total: int) -> Callable[[], None]:
    """Return a callback that prints how many of `total` are done, and the estimated remaining time."""
    began, done = time.monotonic(), 0

    def tell() -> None:
        nonlocal done
        done += 1
        if done % 10 == 0 or done == total:
            left = (time.monotonic() - began) / done * (total - done) / 60
            print(f"{what}: {done} of {total}, about {left:.0f} min left", flush=True)

    return tell
