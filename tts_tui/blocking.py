"""The Python API for notebooks and REPLs: `solve`, without async."""

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
    """Solves one problem and waits for it; works where an event loop runs already, as in notebooks.

    Args:
        problem: The problem as text.
        plan: What to do; by default Best-of-N 16.
        policy, prm: As for `Solver`.
        record: File to record the search in.
        on_event: Called with every event, in another thread; if it raises, the search ends with a `SinkError`.

    Raises:
        TTSError: As `Solver.solve`.
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
