"""Solutions with a known first wrong step, in ProcessBench's format (arXiv 2412.06559), scored by a PRM.

One JSON object per line: `problem`, `steps`, `label` (index of the first wrong step, or -1 if all are right), and
optionally `id` and `final_answer_correct`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tts_tui.concurrency import concurrently
from tts_tui.errors import ContextExceeded, UsageError
from tts_tui.evaluation.datasets.data_files import fields_of, problem_of
from tts_tui.evaluation.prm.labelled import Judged
from tts_tui.files import open_regular
from tts_tui.protocols import SEPARATOR, Policy, Prompt, RewardModel, ScoreRequest

MOST_BYTES = 4_000_000
"""Maximum length of a line in bytes."""
_BATCH = 16
"""Number of solutions scored at a time."""


def read(path: Path, column: str | None = None) -> list[Judged]:
    """Read the solutions of a file, without scores.

    Args:
        path: Path of the file. Its columns are found regardless of case.
        column: Column of the problem, if its name is not recognized.

    Raises:
        UsageError: The file cannot be read, or a line has the wrong format; the message names it.
    """
    try:
        with open_regular(path) as file:
            found = list(_solutions(file, path, column))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if not found:
        raise UsageError(f"{path} is empty: give one JSON object a line with problem, steps and label")
    return found


def _solutions(file: Any, path: Path, column: str | None) -> Iterator[Judged]:
    number, seen = 0, set()
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        if len(line) > MOST_BYTES:
            raise UsageError(f"{path}, line {number}: longer than {MOST_BYTES // 1_000_000} MB")
        if not line.strip():
            continue
        try:
            made = _solution(json.loads(line.decode("utf-8-sig")), number, column)
        except UsageError as error:
            raise UsageError(f"{path}, {error}") from None
        except (ValueError, RecursionError) as error:
            why = "not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError) else error
            raise UsageError(f"{path}, line {number}: {why}") from None
        if made.id in seen:
            raise UsageError(f"{path}, line {number}: the id {made.id} is there twice")
        seen.add(made.id)
        yield made


def _solution(data: Any, number: int, column: str | None) -> Judged:
    """Convert a line to a solution; raise a ValueError that describes the problem if it is malformed."""
    if not isinstance(data, dict):
        raise ValueError("not an object with problem, steps and label")
    fields = fields_of(data)
    problem, steps, label = problem_of(data, column, f"line {number}"), fields.get("steps"), fields.get("label")
    if not problem:
        raise ValueError("no problem in it")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise ValueError("its steps must be texts, at least one, and none of them blank")
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        raise ValueError(f"its label must be -1 or the number of a step from 0 to {len(steps) - 1}")
    right = fields.get("finalanswercorrect")
    if not isinstance(right, bool | None):
        raise ValueError("its final_answer_correct must be true or false")
    return Judged(
        id=str(fields.get("id", number)),
        problem=problem,
        steps=tuple(steps),
        right=label == -1 if right is None else right,
        error=label,
        known=len(steps) if label == -1 else label,
        size=sum(map(len, steps)),
    )


async def score(
    prm: RewardModel, policy: Policy | None, solutions: Sequence[Judged], tell: Callable[[int], None]
) -> list[Judged]:
    """Return the solutions with scores; solutions longer than the PRM's context are left out.

    Args:
        prm: A started PRM.
        policy: A started policy, for PRMs that need its prompts and ids; None for those that take text alone.
        solutions: Solutions to score.
        tell: Callback that receives the number of solutions done.

    Raises:
        BackendError: The PRM failed.
    """
    found: list[Judged] = []
    for start in range(0, len(solutions), _BATCH):
        batch = solutions[start : start + _BATCH]
        try:
            found += await _score(prm, policy, batch)
        except ContextExceeded:
            for one in batch:
                with suppress(ContextExceeded):
                    found += await _score(prm, policy, [one])
        tell(start + len(batch))
    return found


async def _score(prm: RewardModel, policy: Policy | None, batch: Sequence[Judged]) -> list[Judged]:
    asked = await concurrently(_requests(policy, one) for one in batch)
    scores = iter(await prm.score([request for requests in asked for request in requests]))
    return [one.scored(tuple(next(scores).score for _ in own)) for one, own in zip(batch, asked, strict=True)]


async def _requests(policy: Policy | None, one: Judged) -> list[ScoreRequest]:
    """Return a request for each step, with step texts terminated as policies terminate them."""
    prompt = Prompt(one.problem, ()) if policy is None else await policy.prompt(one.problem)
    last = len(one.steps) - 1
    texts = [step.strip() + (SEPARATOR if place < last else "") for place, step in enumerate(one.steps)]
    return [ScoreRequest(prompt, tuple(texts[:end]), ((),) * end) for end in range(1, len(texts) + 1)]
