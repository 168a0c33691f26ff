"""Step labels of sampled solutions: by program where possible, otherwise by rollouts.

A step of a generated problem is wrong if an equation in it does not hold, and so are all later steps of a solution
with a wrong answer. Otherwise a step is right if its equations are those of the gold solution, or if any continuation
of the same prefix ends right, whether sampled or rolled out for this purpose: the hard estimate of Math-Shepherd
(arXiv 2312.08935). The step with the answer is right if the answer is.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

import msgspec

from tts_tui.concurrency import concurrently, task_group
from tts_tui.evaluation.datasets.families import Problem, equations
from tts_tui.evaluation.samples import Rollouts, Sampled, SamplingSettings, Solution, is_right, solution
from tts_tui.protocols import Policy

Beginning = tuple[str, ...]


def step_labels(sampled: Sampled) -> list[list[bool]]:
    """Return, for each solution and step, whether the right answer can still be reached after that step."""
    rights = sampled.right
    good, gold = _good(sampled), _gold(sampled)
    labels = []
    for own, right in zip(sampled.solutions, rights, strict=True):
        flags: list[bool] = []
        for number, step in enumerate(own.steps):
            found = equations(step)
            holds = step_holds(step, sampled.problem)
            if number == len(own.steps) - 1 and own.answer is not None:
                flags.append(right)
            elif right:
                flags.append(holds)
            else:
                known = own.steps[: number + 1] in good or (bool(found) and {*map(_normal, found)} <= gold)
                flags.append(holds and known and all(flags))
        labels.append(flags)
    return labels


def step_holds(step: str, problem: Problem) -> bool:
    """Return whether the arithmetic of a step holds; always true for problems that are not generated."""
    return not problem.steps or all(equal for _, _, equal in equations(step))


async def roll_out(policy: Policy, sampled: Sampled, settings: SamplingSettings, count: int) -> Sampled:
    """Sample continuations of the prefixes that neither the program nor the samples can label.

    Args:
        policy: A started policy.
        sampled: The problem with its solutions.
        settings: Temperature and maximum number of tokens.
        count: Number of continuations per prefix; a solution is followed until none of them ends right.
    """
    prompt = await policy.prompt(sampled.problem.question)
    known: dict[Beginning, asyncio.Task[Rollouts]] = {}

    async def of(beginning: Solution) -> Rollouts:
        seeds = [zlib.crc32(f"{prompt.problem}{beginning.steps}#{number}".encode()) for number in range(count)]
        found = await concurrently(solution(policy, prompt, seed, settings, beginning) for seed in seeds)
        return Rollouts(beginning.steps, sum(is_right(one, sampled.problem) for one in found), count)

    async def follow(own: Solution) -> None:
        for end in _open(own, sampled):
            beginning = Solution(own.steps[:end], own.ids[:end], "length", None)
            if beginning.steps not in known:
                known[beginning.steps] = group.create_task(of(beginning))
            if not (await known[beginning.steps]).right:
                return

    wrong = [own for own, right in zip(sampled.solutions, sampled.right, strict=True) if not right]
    async with task_group() as group:
        for own in wrong:
            group.create_task(follow(own))
    found = tuple(task.result() for task in known.values())
    return msgspec.structs.replace(sampled, rollouts=found)


def _open(own: Solution, sampled: Sampled) -> Iterator[int]:
    """Yield the ends of the undecided prefixes of a wrong solution, up to its first wrong step."""
    good, gold = _good(sampled), _gold(sampled)
    for number, step in enumerate(own.steps[:-1], 1):
        found = equations(step)
        if not step_holds(step, sampled.problem):
            return
        if own.steps[:number] not in good and not (found and {*map(_normal, found)} <= gold):
            yield number


def _good(sampled: Sampled) -> set[Beginning]:
    good: set[Beginning] = {rolled.steps for rolled in sampled.rollouts if rolled.right}
    for own, right in zip(sampled.solutions, sampled.right, strict=True):
        if right:
            good.update(own.steps[:end] for end in range(1, len(own.steps) + 1))
    return good


def _gold(sampled: Sampled) -> set[tuple[str, str]]:
    return {_normal(equation) for step in sampled.problem.steps for equation in equations(step)}


def _normal(equation: tuple[str, str, bool]) -> tuple[str, str]:
    """Normalize an equation: no spaces, and the operands of sums, products and `max` in a fixed order."""
    left, right, _ = equation
    squeezed = left.replace(" ", "").replace("×", "*").replace("x", "*").replace("ma*", "max")
    for sign in "+*":
        if sign in squeezed and not any(other in squeezed for other in "+-*/" if other != sign):
            squeezed = sign.join(sorted(squeezed.split(sign)))
    if squeezed.startswith("max("):
        squeezed = "max(" + ",".join(sorted(squeezed[4:-1].split(",")))
    return squeezed, right
