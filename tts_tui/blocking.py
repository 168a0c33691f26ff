"""The blocking Python API for notebooks and REPLs: `solve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tts_tui.plan import Plan
from tts_tui.protocols import Policy, RewardModel
from tts_tui.search.result import Result
from tts_tui.solver import PathType, Solver
from tts_tui.tree.events import AnyEvent


def solve(
    problem: str,
    plan: Plan | None = None,
    *,
    policy: str | Policy = "embedded",
    prm: str | RewardModel | None = "embedded",
    record: PathType | None = None,
    on_event: Callable[[AnyEvent], None] | None = None,
) -> Result:
    """Solve one problem, wait for it and return the result.

    The search runs in a thread of its own, so this also works where an event loop is running, as in notebooks.

    Args:
        problem: The problem as text.
        plan: The plan to follow; by default Best-of-N 16.
        policy, prm: As for `Solver`.
        record: File to record the search in; it must not exist.
        on_event: Callback that receives every event, in another thread; if it raises, the search ends with a
            `SinkError`.

    Raises:
        TTSError: As for `Solver.solve`.
    """
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Result] | None = None

    async def work() -> Result:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        async with Solver(policy, prm) as solver:
            return await solver.solve(problem, plan, record=record, sinks=[on_event] if on_event else ())

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "tts-tui") as thread:
        future = thread.submit(asyncio.run, work())
        try:
            return future.result()
        except BaseException:
            if loop is not None and task is not None and not future.done():
                loop.call_soon_threadsafe(task.cancel)
            raise
