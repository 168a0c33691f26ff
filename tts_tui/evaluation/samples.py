"""Solutions that a policy samples, kept on disk: one file a problem, written whole or not at all.

Sampling therefore goes on where it was interrupted.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct

from tts_tui.answers.canonical import extract, same
from tts_tui.concurrency import concurrently
from tts_tui.evaluation.datasets.families import Problem
from tts_tui.protocols import Chunk, Policy, Prompt, Sampling, StepRequest


class Solution(Struct, frozen=True):
    """One sampled solution.

    Attributes:
        steps: Texts of its steps; blank ones are joined to their neighbours, as for any PRM.
        ids: Token ids of each step.
        finish: "eos", or "length" where it was cut off.
        answer: The answer in it; None where there is none.
    """

    steps: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    finish: str
    answer: str | None

    @property
    def tokens(self) -> int:
        """How many were sampled."""
        return sum(map(len, self.ids))


class Rollouts(Struct, frozen=True):
    """What became of a beginning: `right` of `total` continuations end with the right answer."""

    steps: tuple[str, ...]
    right: int
    total: int


class Sampled(Struct, frozen=True):
    """One problem with its solutions, and what rollouts from beginnings of them came to."""

    problem: Problem
    solutions: tuple[Solution, ...]
    rollouts: tuple[Rollouts, ...] = ()

    @property
    def right(self) -> list[bool]:
        """Which solutions end with the right answer."""
        return [is_right(solution, self.problem) for solution in self.solutions]


def is_right(solution: Solution, problem: Problem) -> bool:
    """Whether a solution ends with the right answer."""
    return solution.answer is not None and same(solution.answer, problem.answer)


class SamplingSettings(Struct, frozen=True):
    """What samples depend on beside their problem; samples of other settings are not read.

    Attributes:
        model: A fingerprint of the policy.
        temperature: As sampled.
        tokens: Most tokens of a solution.
    """

    model: str
    temperature: float = 0.7
    tokens: int = 160


class _Stored(Struct, frozen=True):
    settings: SamplingSettings
    sampled: Sampled


class SampleCache:
    """The folder of samples.

    Args:
        folder: Where they lie; made when the first is written.
        settings: What they were sampled with; others are left alone, and not read.
    """

    def __init__(self, folder: Path, settings: SamplingSettings) -> None:
        self.folder, self.settings = folder, settings

    def _path(self, problem: Problem) -> Path:
        return self.folder / f"{problem.split}-{problem.family}-{problem.index:04d}.json"

    def load(self, problem: Problem, count: int) -> Sampled | None:
        """The first `count` solutions of `problem`; None where there are fewer, or where they have other settings."""
        try:
            stored = msgspec.json.decode(self._path(problem).read_bytes(), type=_Stored)
        except (OSError, msgspec.DecodeError):
            return None
        found = stored.sampled
        if stored.settings != self.settings or found.problem != problem or len(found.solutions) < count:
            return None
        return Sampled(problem, found.solutions[:count], found.rollouts)

    def save(self, sampled: Sampled) -> None:
        """Writes one problem's samples."""
        path = self._path(sampled.problem)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(msgspec.json.encode(_Stored(self.settings, sampled)))
        os.replace(scratch, path)


async def sample_all(
    policy: Policy,
    wanted: Sequence[tuple[Problem, int]],
    cache: SampleCache,
    *,
    concurrency: int = 8,
    done: Callable[[Sampled, bool], None] | None = None,
) -> list[Sampled]:
    """Samples what the cache does not hold.

    Args:
        policy: A started policy.
        wanted: Problems, each with how many solutions it shall have.
        cache: Where they are kept.
        concurrency: Problems at a time; the engine batches across them.
        done: Told each problem, and whether it came from the cache.

    Raises:
        BackendError: The policy failed.
        OSError: The cache cannot be written.
    """
    permits = asyncio.Semaphore(concurrency)

    async def one(problem: Problem, count: int) -> Sampled:
        async with permits:
            found = cache.load(problem, count)
            sampled = found or await _sample(policy, problem, count, cache.settings)
            if found is None:
                cache.save(sampled)
            if done is not None:
                done(sampled, found is not None)
            return sampled

    return await concurrently(one(*pair) for pair in wanted)


async def _sample(policy: Policy, problem: Problem, count: int, settings: SamplingSettings) -> Sampled:
    prompt = await policy.prompt(problem.question)
    seeds = [zlib.crc32(f"{problem.question}#{number}".encode()) for number in range(count)]
    solutions = await concurrently(solution(policy, prompt, seed, settings) for seed in seeds)
    return Sampled(problem, tuple(solutions))


async def solution(
    policy: Policy, prompt: Prompt, seed: int, settings: SamplingSettings, begun: Solution | None = None
) -> Solution:
    """Samples one solution to its end.

    Args:
        policy: A started policy.
        prompt: The problem.
        seed: Of the sampling.
        settings: Temperature and most tokens.
        begun: Its first steps, where it shall go on from them.
    """
    first = begun or Solution((), (), "length", None)
    ids = prompt.ids + tuple(token for step in first.ids for token in step)
    request = StepRequest(
        ids, Sampling(temperature=settings.temperature), settings.tokens - first.tokens, rollout=True, seed=seed
    )
    async with aclosing(policy.stream(request)) as chunks:
        texts, own, finish = await _steps(chunks)
    steps = (*first.steps, *texts)
    answer = extract("".join(steps), finished=finish == "eos")
    return Solution(steps, (*first.ids, *own), finish, answer)


async def _steps(chunks: AsyncIterator[Chunk]) -> tuple[list[str], list[tuple[int, ...]], str]:
    """Cuts a stream at its step ends; what is blank joins the step before (at the very start, the one after)."""
    texts: list[str] = []
    ids: list[tuple[int, ...]] = []
    text, finish = "", "length"
    own: list[int] = []

    def close() -> None:
        nonlocal text
        if texts and not text.strip():
            texts[-1] += text
            ids[-1] += tuple(own)
        elif text.strip() or finish == "eos":
            texts.append(text)
            ids.append(tuple(own))
        else:
            return
        text = ""
        own.clear()

    async for chunk in chunks:
        text += chunk.text
        own.extend(chunk.ids)
        finish = chunk.finish or "length"
        if chunk.step_end or chunk.finish:
            close()
    if own:
        texts.append(text)
        ids.append(tuple(own))
    return texts, ids, finish
