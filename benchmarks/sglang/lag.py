"""The lag of an event loop: how long it delays a task that is ready to run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct

PERIOD = 0.005
LAG_BAR = 0.020


class Lag(Struct):
    """The delays of a sleeping task, in seconds.

    Attributes:
        worst: Largest delay.
        own: Largest CPU time of this process during a sleep: the delay on a machine without other load.
        late: Number of delays above the bar.
        ticks: Number of sleeps.
    """

    worst: float = 0.0
    own: float = 0.0
    late: int = 0
    ticks: int = 0


@asynccontextmanager
async def lag() -> AsyncGenerator[Lag]:
    """Measure the lag while the context is open."""
    seen = Lag()

    async def tick() -> None:
        while True:
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(PERIOD)
            seen.own = max(seen.own, time.process_time() - cpu)
            late = time.perf_counter() - began - PERIOD
            seen.worst = max(seen.worst, late)
            seen.late += late > LAG_BAR
            seen.ticks += 1

    task = asyncio.create_task(tick())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
