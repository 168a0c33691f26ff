"""Structured concurrency: work side by side, none of which outlives a failure of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup, None]:
    """A task group whose first failure is raised as it is, and not inside an exception group."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        failure = errors.exceptions[0]
    if failure is not None:
        raise failure


async def concurrently(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs coroutines side by side and returns their results in order.

    Unlike with `asyncio.gather`, a failure of one cancels the others and waits for their end before it is raised.
    """
    async with task_group() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]
