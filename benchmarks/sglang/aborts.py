"""Bar 5: a finished search leaves no request on the server."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.sglang.common import PROBLEMS, Options, plan, solving, verdict
from benchmarks.sglang.servers import busy
from tts_tui import Plan, Solver
from tts_tui.backends.remote.http import Http

TIMES = 100
BAR = 1.0
LONGEST = 1.5
"""Maximum number of seconds until a search is ended."""
GIVE_UP = 10.0


async def run(options: Options) -> None:
    """End searches at random moments, and wait for the server to be idle."""
    print(f"Aborts: running and queued requests are 0 within {BAR:g} s after a search ends, {TIMES} times")
    draw = random.Random(0)
    plans = [
        plan("best-of-n", total_tokens=256),
        plan("beam", separator="a", total_tokens=256),  # random text has no blank lines, but many letters
        plan("dvts", separator="a", total_tokens=256),
        plan("majority", 64, total_tokens=256, vote="majority"),
    ]
    seconds: list[float] = []
    ways = {"cancelled": 0, "stopped": 0, "ended": 0}
    http = Http(options.tiny_url)
    await http.open()
    async with solving(options.tiny_url) as (solver, _):
        for turn in range(TIMES):
            asked = plans[turn % len(plans)]
            ways[await _end(solver, asked, draw, turn)] += 1
            seconds.append(await _idle(http))
    await http.close()
    seconds.sort()
    print(f"  {', '.join(f'{count} {way}' for way, count in ways.items())}")
    print(f"  seconds until idle: median {seconds[TIMES // 2]:.2f}, 90 % {seconds[TIMES * 9 // 10]:.2f}")
    print(f"  within {BAR:g} s: {sum(each <= BAR for each in seconds)} of {TIMES}")
    verdict("longest", seconds[-1], BAR, " s")


async def _end(solver: Solver, asked: Plan, draw: random.Random, turn: int) -> str:
    """Start a search and end it in a random way; return the way."""
    task = asyncio.create_task(solver.solve(PROBLEMS[turn % len(PROBLEMS)], asked))
    await asyncio.wait([task], timeout=draw.uniform(0, LONGEST))
    if task.done():
        return "ended"
    if draw.random() < 0.5:
        solver.stop()
        await task
        return "stopped"
    task.cancel()
    await asyncio.wait([task])
    return "cancelled"


async def _idle(http: Http) -> float:
    """Return the seconds until the server reports twice in a row that it is idle."""
    began, calm = time.perf_counter(), 0
    first = 0.0
    while time.perf_counter() - began < GIVE_UP:
        now = time.perf_counter() - began
        if await busy(http):
            calm = 0
        else:
            first = first if calm else now
            calm += 1
            if calm == 2:
                return first
        await asyncio.sleep(0.02)
    return GIVE_UP
