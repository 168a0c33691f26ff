"""The gate that holds a paused search: steps wait here before they start, and may be let through one by one."""

from __future__ import annotations

import asyncio
from collections import deque


class PauseGate:
    """A gate for steps, open at first; while it is closed, only steps released by `step` or `round` pass."""

    def __init__(self) -> None:
        self._open = True
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._steps = 0  # number of further arrivals that may pass
        self._round = False  # whether the next arrivals of one turn of the event loop all pass
        self._opened = asyncio.Event()
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """True if all steps pass without waiting."""
        return self._open

    @property
    def waiting(self) -> int:
        """Number of steps that wait at the gate."""
        return sum(1 for future in self._waiting if not future.done())

    def open(self) -> None:
        """Open the gate and release all waiting steps."""
        self._open, self._steps, self._round = True, 0, False
        self._opened.set()
        self._let_all()

    def close(self) -> None:
        """Close the gate: steps wait from now on."""
        self._open = False
        self._opened.clear()

    async def opened(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    def step(self) -> None:
        """Release one waiting step, or the next one to arrive if none is waiting."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._steps += 1

    def round(self) -> None:
        """Release all waiting steps.

        If none is waiting, release the next one to arrive, with all others of the same turn of the event loop.
        """
        if not self._let_all():
            self._round = True

    def _let_all(self) -> int:
        """Release all waiting steps and return their number."""
        count = 0
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                count += 1
        return count

    async def wait(self) -> None:
        """Wait until the caller may pass."""
        if self._open:
            return
        loop = asyncio.get_running_loop()
        if self._round:
            loop.call_soon(self._end_round)  # runs after all tasks that are ready now
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
                self.step()  # released but cancelled: release the next one instead
            raise

    def _end_round(self) -> None:
        self._round = False
