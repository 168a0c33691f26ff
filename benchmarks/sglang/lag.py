"""How long an event loop keeps a task waiting that wants to run."""

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
    """Seconds by which a sleeping task woke up late.

    Attributes:
        worst: The most.
        own: The most that this process computed while the task slept: what it was late by on a machine without load.
        late: How often it was later than the bar.
        ticks: How often it slept.
    """

    worst: float = 0.0
    own: float = 0.0
    late: int = 0
    ticks: int = 0


@asynccontextmanager
async def lag() -> AsyncGenerator[Lag]:
    """Measures while the context is open."""
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
