"""Bar 4: the CPU cost of streaming in this process, and the lag that it causes in the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.sglang.common import PROBLEMS, Options, plan, solving, verdict
from benchmarks.sglang.lag import LAG_BAR, Lag, lag
from benchmarks.sglang.orchestration import never_end
from tts_tui import Sampling, StepRequest
from tts_tui.backends.sglang.policy import SGLangPolicy

STREAMS, TOKENS = 256, 64


async def run(options: Options) -> None:
    """Print the cost of complete searches, and of the policy alone."""
    print(f"Client cost: {STREAMS} streams of {TOKENS} tokens at once from a tiny model (2 random layers)")
    head = "tokens", "wall s", "CPU s", "CPU s / 10 000", "worst lag", "own CPU", "> 20 ms"
    print("  {:<28} {:>7} {:>7} {:>6} {:>15} {:>10} {:>9} {:>8}".format("", *head))
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
    """Measure the body, which appends the number of its tokens, and print a row."""
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
