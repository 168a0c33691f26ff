"""Bar 4: what streaming costs this process, and how long it keeps the event loop from anything else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct

from benchmarks.sglang.common import PROBLEMS, Options, plan, solving, verdict
from benchmarks.sglang.orchestration import never_end
from tts_tui import Sampling, StepRequest
from tts_tui.backends.sglang import SGLangPolicy

STREAMS, TOKENS = 256, 64
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


async def run(options: Options) -> None:
    """Prints the cost of whole searches, and of the policy alone."""
    print(f"Client cost: {STREAMS} streams of {TOKENS} tokens at once from a tiny model (2 random layers)")
    print(
        f"  {'':<28} {'tokens':>7} {'wall s':>7} {'CPU s':>6} {'CPU s / 10 000':>15} {'worst lag':>10} {'own CPU':>9} {'> 20 ms':>8}"
    )
    async with solving(options.tiny_url, concurrency=STREAMS) as (solver, policy):
        never_end(policy)
        asked = plan("majority", STREAMS, total_tokens=TOKENS, vote="majority")
        worst = own = 0.0
        for turn in range(3):
            async with measured(f"a whole search, turn {turn + 1}") as (seen, written):
                result = await solver.solve(PROBLEMS[turn], asked)
                written.append(result.tree.counts.completion)
            worst, own = max(worst, seen.worst), max(own, seen.own)
        async with measured("the policy alone") as (_, written):
            written.append(await _streams(policy))
        async with measured("nothing at all, 3 s") as (_, written):
            await asyncio.sleep(3)
            written.append(1)
        print(f"  most streams at once: {policy.dispatch.most_running}")
    verdict("largest lag of a search", worst * 1000, LAG_BAR * 1000, " ms")
    verdict("the same, of this process's own CPU time", own * 1000, LAG_BAR * 1000, " ms")
    print("  Where they differ, this process was ready to run and other ones, such as the server, had the cores.")


@asynccontextmanager
async def measured(name: str) -> AsyncGenerator[tuple[Lag, list[int]]]:
    """Measures its body, which appends the number of its tokens, and prints a row."""
    written: list[int] = []
    async with lag() as seen:
        wall, cpu = time.perf_counter(), time.process_time()
        yield seen, written
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tokens = sum(written)
    print(
        f"  {name:<28} {tokens:>7} {wall:>7.1f} {cpu:>6.2f} {cpu / tokens * 10_000:>15.2f} {seen.worst * 1000:>7.1f} ms"
        f" {seen.own * 1000:>6.1f} ms {seen.late:>3} / {seen.ticks}",
        flush=True,
    )


async def _streams(policy: SGLangPolicy) -> int:
    prompt = await policy.prompt(PROBLEMS[-1])

    async def one() -> int:
        asked = StepRequest(prompt.ids, Sampling(0.8), TOKENS, rollout=True)
        return sum([len(chunk.ids) async for chunk in policy.stream(asked)])

    return sum(await asyncio.gather(*(one() for _ in range(STREAMS))))
