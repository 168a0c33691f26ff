"""Solutions sampled from a policy and stored on disk: one file per problem, written atomically.

Interrupted sampling therefore continues where it stopped.
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
    """A sampled solution.

    Attributes:
        steps: Texts of its steps; blank ones are joined to their neighbours, as for any PRM.
        ids: Token ids of each step.
        finish: "eos", or "length" if it was truncated.
        answer: Its answer; None if there is none.
    """

    steps: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    finish: str
    answer: str | None

    @property
    def tokens(self) -> int:
        """Number of sampled tokens."""
        return sum(map(len, self.ids))


class Rollouts(Struct, frozen=True):
    """The result of rollouts from a prefix: `right` of `total` continuations end with the right answer."""

    steps: tuple[str, ...]
    right: int
    total: int


class Sampled(Struct, frozen=True):
    """A problem with its solutions, and the results of rollouts from prefixes of them."""

    problem: Problem
    solutions: tuple[Solution, ...]
    rollouts: tuple[Rollouts, ...] = ()

    @property
    def right(self) -> list[bool]:
        """Flags of the solutions that end with the right answer."""
        return [is_right(solution, self.problem) for solution in self.solutions]


def is_right(solution: Solution, problem: Problem) -> bool:
    """Return whether a solution ends with the right answer."""
    return solution.answer is not None and same(solution.answer, problem.answer)


class SamplingSettings(Struct, frozen=True):
    """The settings that samples depend on besides their problem; samples with other settings are not read.

    Attributes:
        model: Fingerprint of the policy.
        temperature: Sampling temperature.
        tokens: Maximum number of tokens of a solution.
    """

    model: str
    temperature: float = 0.7
    tokens: int = 160


class _Stored(Struct, frozen=True):
    settings: SamplingSettings
    sampled: Sampled


class SampleCache:
    """A folder of samples.

    Args:
        folder: Path of the folder; created when the first sample is written.
        settings: Sampling settings; samples with others are ignored.
    """

    def __init__(self, folder: Path, settings: SamplingSettings) -> None:
        self.folder, self.settings = folder, settings

    def _path(self, problem: Problem) -> Path:
        return self.folder / f"{problem.split}-{problem.family}-{problem.index:04d}.json"

    def load(self, problem: Problem, count: int) -> Sampled | None:
        """Return the first `count` solutions of `problem`; None if there are fewer, or the settings differ."""
        try:
            stored = msgspec.json.decode(self._path(problem).read_bytes(), type=_Stored)
        except (OSError, msgspec.DecodeError):
            return None
        found = stored.sampled
        if stored.settings != self.settings or found.problem != problem or len(found.solutions) < count:
            return None
        return Sampled(problem, found.solutions[:count], found.rollouts)

    def save(self, sampled: Sampled) -> None:
        """Write the samples of one problem."""
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
    """Sample the solutions that the cache does not contain.

    Args:
        policy: A started policy.
        wanted: Problems, each with the required number of solutions.
        cache: Storage of the samples.
        concurrency: Number of concurrent problems; the engine batches across them.
        done: Callback that receives each problem, and whether it came from the cache.

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
    """Sample one solution to its end.

    Args:
        policy: A started policy.
        prompt: The prompt of the problem.
        seed: Seed of the sampling.
        settings: Temperature and maximum number of tokens.
        begun: First steps of the solution to continue from; None to start a new one.
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
    """Split a stream into steps; blank steps are joined to the one before (at the very start, to the one after)."""
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
