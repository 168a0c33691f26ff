"""The tasks of one search, the signal that stops it early, and the tasks in which a solver runs its searches."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tts_tui.errors import SolverClosed, StrategyError
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Reason

T = TypeVar("T")


class Stopped(Exception):
    """Raised inside a search to end it early, with the reason.

    Attributes:
        reason: The reason that the result reports.
        detail: The reason in a sentence.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class TaskScope:
    """The tasks that end with a search: children of its one `asyncio.TaskGroup`."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def are_open(self) -> bool:
        """True if new tasks may start: the search is running, and not about to end."""
        return self._group is not None

    def open(self, group: asyncio.TaskGroup) -> None:
        """Allow new tasks, which start in `group`."""
        self._group = group

    def close(self) -> None:
        """Refuse new tasks; running ones continue."""
        self._group = None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that runs `work`, and return it.

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
        """Cancel all running tasks."""
        for task in tuple(self._running):
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.close()  # the group now cancels the other tasks, and would not cancel new ones


class StopSignal:
    """A signal that ends a search when `stop` is called, or when its time limit is reached. Paused time is excluded."""

    def __init__(self, journal: EventLog) -> None:
        self._journal = journal
        self._stopped: Stopped | None = None
        self._bell = asyncio.Event()

    def stop(self, reason: Reason, detail: str) -> None:
        """Stop the search; if called more than once, the first reason counts."""
        self._stopped = self._stopped or Stopped(reason, detail)
        self.recheck()

    def recheck(self) -> None:
        """Check again, because the time limit has changed, a pause has begun or ended, or a sink has failed."""
        self._bell.set()

    async def run(self) -> None:
        """Wait until the search must end, and raise the reason.

        Raises:
            Stopped: The search was stopped, or its time limit is reached.
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
    """The tasks in which a solver runs its searches, so that it can end them without cancelling their callers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def open(self) -> None:
        """Accept work again after `close`."""
        self._closed = False

    async def close(self) -> None:
        """Cancel all running tasks, wait until they have ended, and refuse new work."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in a task of its own and return its result.

        Cancelling the caller cancels the work; the caller continues once the work has ended.

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
