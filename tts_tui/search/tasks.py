"""All tasks of one search, and what ends it before its time; the tasks that a solver runs its searches in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tts_tui.errors import SolverClosed, StrategyError
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Reason

T = TypeVar("T")


class Stopped(Exception):
    """Ends a search from inside, with the reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class TaskScope:
    """Tasks that end with the search: children of its one `asyncio.TaskGroup`."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def are_open(self) -> bool:
        """Whether new ones may start: the search runs, and is not ending."""
        return self._group is not None

    def open(self, group: asyncio.TaskGroup) -> None:
        """New ones start in `group` from now on."""
        self._group = group

    def close(self) -> None:
        """No new ones start."""
        self._group = None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts one.

        Raises:
            StrategyError: The search is over.
        """
        if self._group is None:
            work.close()
            raise StrategyError("the search is over: nothing can be expanded any more")
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Ends all of them."""
        for task in tuple(self._running):
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.close()  # the group ends the others now, and would not end new ones


class StopSignal:
    """Ends a search when somebody says so, or when its time is up. Paused time does not count."""

    def __init__(self, journal: EventLog) -> None:
        self._journal = journal
        self._stopped: Stopped | None = None
        self._bell = asyncio.Event()

    def stop(self, reason: Reason, detail: str) -> None:
        """Ends the search; the first reason counts."""
        self._stopped = self._stopped or Stopped(reason, detail)
        self.recheck()

    def recheck(self) -> None:
        """The limit has changed, or a pause has begun or ended."""
        self._bell.set()

    async def run(self) -> None:
        """Raises what ends the search.

        Raises:
            Stopped: Always, unless something else is raised before.
            SinkError: A sink failed.
        """
        while self._stopped is None and self._journal.failure is None:
            tree = self._journal.tree
            limit = tree.plan.budget.seconds
            left = None
            if limit is not None and not tree.paused:
                left = max(0.0, limit - (self._journal.now - tree.held))
            self._bell.clear()
            try:
                async with asyncio.timeout(left):
                    await self._bell.wait()
            except TimeoutError:
                raise Stopped("timeout", f"the time limit of {limit:g} s is reached") from None
        if self._journal.failure is not None:
            raise self._journal.failure
        assert self._stopped is not None
        raise self._stopped


class OwnedTasks:
    """The tasks that a solver runs its searches in, so that it can end them without cancelling whoever waits."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def open(self) -> None:
        """Accept work again after `close`."""
        self._closed = False

    async def close(self) -> None:
        """Cancel everything that runs, wait until it has ended, and refuse new work."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in a task of its own and return its result.

        Cancelling the caller cancels the work, and the caller goes on when the work has ended.

        Raises:
            SolverClosed: `close` was called before, or while the work ran.
        """
        if self._closed:
            work.close()
            raise SolverClosed("the solver is closed: searches run only inside its `async with` block")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        caller = asyncio.current_task()
        assert caller is not None
        cancellations = caller.cancelling()
        try:
            return await task
        except asyncio.CancelledError:
            if self._closed and caller.cancelling() == cancellations:
                raise SolverClosed("the solver was closed before the search had ended") from None
            raise
