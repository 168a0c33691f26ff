"""Solutions of the embedded policy with the model's states at their steps, kept on disk; and labels for the steps.

One file a problem, written whole or not at all, so that sampling goes on where it was interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tts_tui.answers import extract, same
from tts_tui.backends.embedded import EmbeddedPolicy
from tts_tui.backends.embedded_prm import step_states
from tts_tui.contracts import Chunk, Prompt, Sampling, StepRequest
from tts_tui.evaluation.families import Problem, equations

SAMPLING = Sampling(temperature=0.7)
MAX_TOKENS = 160


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


class Sampled(Struct, frozen=True):
    """One problem with its solutions, and with the mean states `[steps, features]` of each solution's steps."""

    problem: Problem
    prompt: tuple[int, ...]
    solutions: tuple[Solution, ...]
    states: tuple[NDArray[np.float16], ...]

    @property
    def right(self) -> list[bool]:
        """Which solutions end with the right answer."""
        return [
            solution.answer is not None and same(solution.answer, self.problem.answer) for solution in self.solutions
        ]


class SampleCache:
    """The folder of samples.

    Args:
        folder: Where they lie; made when the first is written.
        settings: What they were sampled with; samples of other settings are refused.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = json.loads(json.dumps(settings))

    def _path(self, problem: Problem) -> Path:
        return self._folder / f"{problem.split}-{problem.family}-{problem.index:04d}.npz"

    def load(self, problem: Problem, count: int) -> Sampled | None:
        """The first `count` solutions of `problem`; None where there are fewer, or where they have other settings."""
        try:
            with np.load(self._path(problem), allow_pickle=False) as stored:
                head = json.loads(str(stored["head"]))
                states = stored["states"]
        except (OSError, ValueError, KeyError, EOFError, zlib.error):
            return None
        if head["settings"] != self._settings or head["question"] != problem.question or len(head["solutions"]) < count:
            return None
        solutions = tuple(
            Solution(tuple(s["steps"]), tuple(map(tuple, s["ids"])), s["finish"], s["answer"])
            for s in head["solutions"]
        )
        cuts = np.cumsum([len(solution.steps) for solution in solutions])[:-1]
        return Sampled(problem, tuple(head["prompt"]), solutions[:count], tuple(np.split(states, cuts))[:count])

    def save(self, sampled: Sampled) -> None:
        """Writes one problem's samples."""
        path = self._path(sampled.problem)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {
            "settings": self._settings,
            "question": sampled.problem.question,
            "prompt": sampled.prompt,
            "solutions": [
                {"steps": s.steps, "ids": s.ids, "finish": s.finish, "answer": s.answer} for s in sampled.solutions
            ],
        }
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), states=np.concatenate(sampled.states))
        os.replace(scratch, path)


async def sample_all(
    policy: EmbeddedPolicy,
    wanted: Sequence[tuple[Problem, int]],
    cache: SampleCache,
    *,
    concurrency: int = 16,
    done: Callable[[Sampled, bool], None] | None = None,
) -> list[Sampled]:
    """Samples what the cache does not hold.

    Args:
        policy: A started policy.
        wanted: Problems, each with how many solutions it shall have.
        cache: Where they are kept.
        concurrency: Problems at a time; the engine batches across them.
        done: Told each problem, and whether it came from the cache.
    """
    permits = asyncio.Semaphore(concurrency)

    async def one(problem: Problem, count: int) -> Sampled:
        async with permits:
            found = cache.load(problem, count)
            sampled = found or await _sample(policy, problem, count)
            if found is None:
                cache.save(sampled)
            if done is not None:
                done(sampled, found is not None)
            return sampled

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*pair)) for pair in wanted]
    return [task.result() for task in tasks]


async def _sample(policy: EmbeddedPolicy, problem: Problem, count: int) -> Sampled:
    prompt = await policy.prompt(problem.question)
    solutions = await asyncio.gather(
        *(_solution(policy, prompt, zlib.crc32(f"{problem.question}#{number}".encode())) for number in range(count))
    )
    paths = [
        (prompt.ids + tuple(token for step in solution.ids[:end] for token in step), len(solution.ids[end - 1]))
        for solution in solutions
        for end in range(1, len(solution.ids) + 1)
    ]
    features = np.stack([state.mean for state in await step_states(policy.engine, paths)])
    cuts = np.cumsum([len(solution.ids) for solution in solutions])[:-1]
    return Sampled(problem, prompt.ids, tuple(solutions), tuple(np.split(features.astype(np.float16), cuts)))


async def _solution(policy: EmbeddedPolicy, prompt: Prompt, seed: int) -> Solution:
    request = StepRequest(prompt.ids, SAMPLING, MAX_TOKENS, rollout=True, seed=seed)
    async with aclosing(policy.stream(request)) as chunks:
        texts, ids, finish = await _steps(chunks)
    answer = extract("".join(texts), finished=finish == "eos")
    return Solution(tuple(texts), tuple(ids), finish, answer)


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


# --- labels -----------------------------------------------------------------------------------------------------------


def step_labels(sampled: Sampled) -> list[list[bool]]:
    """Whether each solution is still on the way to the right answer after each of its steps.

    A step is wrong where an equation in it does not hold, and so is all that follows in a solution with a wrong answer.
    Where the arithmetic holds, the step is right if its equations are those of the gold solution, or if any of the
    sampled solutions with the same beginning ends right (the hard estimate of Math-Shepherd, arXiv 2312.08935). The
    step with the answer is right if the answer is.
    """
    good: set[tuple[tuple[int, ...], ...]] = set()
    rights = sampled.right
    for solution, right in zip(sampled.solutions, rights, strict=True):
        if right:
            good.update(solution.ids[:end] for end in range(1, len(solution.ids) + 1))
    gold = {_normal(equation) for step in sampled.problem.steps for equation in equations(step)}
    labels = []
    for solution, right in zip(sampled.solutions, rights, strict=True):
        own: list[bool] = []
        for number, step in enumerate(solution.steps):
            found = equations(step)
            holds = all(equal for _, _, equal in found)
            if number == len(solution.steps) - 1 and solution.answer is not None:
                own.append(right)
            elif right:
                own.append(holds)
            else:
                known = solution.ids[: number + 1] in good or (bool(found) and {*map(_normal, found)} <= gold)
                own.append(holds and known and all(own))
        labels.append(own)
    return labels


def _normal(equation: tuple[str, str, bool]) -> tuple[str, str]:
    """An equation without its spaces, the operands of sums, products and `max` in a fixed order."""
    left, right, _ = equation
    squeezed = left.replace(" ", "").replace("×", "*").replace("x", "*").replace("ma*", "max")
    for sign in "+*":
        if sign in squeezed and not any(other in squeezed for other in "+-*/" if other != sign):
            squeezed = sign.join(sorted(squeezed.split(sign)))
    if squeezed.startswith("max("):
        squeezed = "max(" + ",".join(sorted(squeezed[4:-1].split(",")))
    return squeezed, right
