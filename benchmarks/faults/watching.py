"""Watch the event loop: the tasks of each case, and errors that were never retrieved."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import warnings
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from typing import Any
from unittest import mock
from weakref import WeakSet

CASE: ContextVar[str] = ContextVar("case", default="")
"""The case of the running code; empty for the servers and the storm itself."""

TICK_SECONDS = 0.05
_WAITS = {
    "tts_tui.search.search.BACKOFF": 0.01,
    "tts_tui.controller.search_adapter.BACKOFF": 0.01,
    "tts_tui.backends.remote.dispatcher.FIRST_WAIT": 0.02,
    "tts_tui.backends.remote.dispatcher.LONGEST_WAIT": 0.1,
    "tts_tui.backends.remote.dispatcher.LONGEST_ASKED": 0.2,
    "tts_tui.backends.remote.retry.AGAIN_SECONDS": 0.05,
    "tts_tui.backends.sglang.policy.ABORT_DRAIN_SECONDS": 1.0,
    "tts_tui.backends.sglang.stream.AGAIN_SECONDS": 0.05,
}


@contextlib.contextmanager
def brief_waits() -> Iterator[None]:
    """Shorten all waits between two attempts to milliseconds."""
    with contextlib.ExitStack() as stack:
        for name, seconds in _WAITS.items():
            stack.enter_context(mock.patch(name, seconds))
        yield


class Watch(logging.Handler):
    """Collect the tasks of each case, log messages, warnings and unretrieved errors.

    Attributes:
        said: Messages of logging, warnings and of the event loop.
        strays: Those of them that tell of an error that nobody looked at.
        seconds: A clock that runs slower while the loop or the machine is busy: other programs hang no search.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.strays: list[str] = []
        self.seconds = 0.0
        self._tasks: dict[str, WeakSet[asyncio.Task[Any]]] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._make)  # type: ignore[arg-type]
        loop.set_exception_handler(self._stray)
        ticker = loop.create_task(self._tick())
        root = logging.getLogger()
        root.addHandler(self)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = self._warned
                yield
        finally:
            ticker.cancel()
            root.removeHandler(self)
            loop.set_task_factory(None)
            loop.set_exception_handler(None)

    async def wait(self, task: asyncio.Task[Any], seconds: float) -> None:
        """Wait until a task is done, for so many `seconds` at most."""
        end = self.seconds + seconds
        while not task.done() and self.seconds < end:
            await asyncio.wait([task], timeout=TICK_SECONDS)

    def alive(self, case: str) -> list[str]:
        """List the tasks of a case that have not ended, without the current one."""
        tasks = self._tasks.get(case, ())
        return [_name(task) for task in tasks if not task.done() and task is not asyncio.current_task()]

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a log message."""
        self.said.append(self.format(record))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.seconds += TICK_SECONDS

    def _make(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        self._tasks.setdefault(CASE.get(), WeakSet()).add(task)
        return task

    def _stray(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.strays.append(f"{context['message']}: {error!r}")
        self.said.append(self.strays[-1])

    def _warned(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self.said.append(str(message))
        if isinstance(message, ResourceWarning | RuntimeWarning):
            self.strays.append(str(message))


def _name(task: asyncio.Task[Any]) -> str:
    work = task.get_coro()
    frames = task.get_stack(limit=1)
    where = f" in line {frames[0].f_lineno} of {frames[0].f_code.co_filename.rpartition('/')[2]}" if frames else ""
    return f"{getattr(work, '__qualname__', work)}{where}"
