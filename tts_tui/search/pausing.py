"""What holds a paused search: steps wait here before they start, and may be let through one by one."""

from __future__ import annotations

import asyncio
from collections import deque


class PauseGate:
    """Open at first; while it is closed, only what `step` and `round` let through passes."""

    def __init__(self) -> None:
        self._open = True
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._steps = 0  # how many of those that come next may pass
        self._round = False  # whether all pass that come together next
        self._opened = asyncio.Event()
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """Whether everyone passes."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(1 for future in self._waiting if not future.done())

    def open(self) -> None:
        """Lets everyone through from now on."""
        self._open, self._steps, self._round = True, 0, False
        self._opened.set()
        self._let_all()

    def close(self) -> None:
        """Lets nobody through from now on."""
        self._open = False
        self._opened.clear()

    async def opened(self) -> None:
        """Returns once it is open."""
        await self._opened.wait()

    def step(self) -> None:
        """Lets one through that waits, or the next one that comes."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._steps += 1

    def round(self) -> None:
        """Lets all through that wait, or if nobody does, all that come in the same turn of the loop as the next."""
        if not self._let_all():
            self._round = True

    def _let_all(self) -> int:
        """Lets all through that wait; returns how many."""
        count = 0
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                count += 1
        return count

    async def wait(self) -> None:
        """Returns once the caller may pass."""
        if self._open:
            return
        loop = asyncio.get_running_loop()
        if self._round:
            loop.call_soon(self._end_round)  # everyone who is ready now comes before that
            return
        if self._steps:
            self._steps -= 1
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not self._open:
                self.step()  # was let through and does not go: the next one may
            raise

    def _end_round(self) -> None:
        self._round = False
