"""Shared parts of all bars: problems, plan, reward model, the its_hub process, and output of figures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.sglang.its_hub_beam import score
from tts_tui import ModelInfo, Plan, Sampling, ScoreRequest, Solver, StepScore
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.profiles.prompts import messages

PROBLEMS = (
    "A rectangle is three times as long as it is wide and has a perimeter of 64 cm. What is its area?",
    "A train leaves at 9:15 and travels 210 km at 70 km/h. It stops for 25 minutes and goes on for another 45 minutes. "
    "At what time does it arrive?",
    "The sum of three consecutive odd numbers is 111. What is the largest of them?",
    "A shop sells pens at 3 for $4 and notebooks at $2.50 each. Lena buys 12 pens and 5 notebooks. How much is that?",
    "How many positive divisors does 360 have?",
    "A bag holds 5 red, 4 blue and 3 green marbles. Two are drawn without replacement. What is the probability that "
    "both are red?",
    "If 2x + 3y = 23 and x - y = 4, what is the value of x * y?",
    "One pipe fills a tank in 6 hours and another one in 4 hours. A drain empties it in 12 hours. How long does it "
    "take to fill the tank if all three are open?",
    "What is the remainder when 7^50 is divided by 5? Explain how the powers of 7 repeat.",
    "A square and an equilateral triangle have the same perimeter. The side of the triangle is 12 cm. What is the area "
    "of the square?",
)


class Options(Struct):
    """The options of the command line."""

    url: str
    cold_url: str
    tiny_url: str
    python: str
    model: str
    tiny: str
    its_hub: str
    problems: int
    total_tokens: int
    turns: int


class Dice:
    """A reward model without cost: a hash of the text. These bars are about everything else."""

    info = ModelInfo("dice", 0, 1_000_000)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        return [StepScore(score("".join(request.steps))) for request in requests]


def plan(strategy: str, n: int = 16, m: int = 4, **changes: Any) -> Plan:
    """Return the plan of all bars, without speculation unless `changes` enable it."""
    settings: dict[str, Any] = {"sampling": Sampling(0.8), "step_tokens": 128, "total_tokens": 384, "max_depth": 8}
    settings["speculation"] = "off"
    return Plan(strategy=strategy, n=n, m=m, **{**settings, **changes})


@asynccontextmanager
async def solving(url: str, **settings: Any) -> AsyncGenerator[tuple[Solver, SGLangPolicy]]:
    """Enter a solver with a policy on the server at `url`, and yield both."""
    policy = SGLangPolicy(url, messages=messages, **settings)
    async with Solver(policy, Dice()) as solver:
        yield solver, policy


async def flush(http: Http) -> None:
    """Empty the server's cache, retrying while the server refuses because it is busy."""
    for _ in range(50):
        try:
            await http.read("GET", "/flush_cache")
            return
        except Exception:
            await asyncio.sleep(0.1)
    raise SystemExit("the server stays busy: nothing else may use it during the benchmark")


class ItsHub:
    """its_hub's beam search in a separate process, which solves one problem at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def solve(self) -> tuple[float, int]:
        """Solve the next problem; return seconds and rounds."""
        row = json.loads(await self._say("go"))
        return row["seconds"], row["rounds"]

    async def _say(self, line: str) -> bytes:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise SystemExit("its_hub's process failed")
        return answer


@asynccontextmanager
async def its_hub(options: Options, url: str, problems: Sequence[str], like: Plan) -> AsyncGenerator[ItsHub]:
    """Run its_hub, loaded, for `problems` with the sizes of `like`."""
    async with solving(url) as (_, policy):
        model = (await policy.http.get("/model_info", dict))["model_path"]
    (system, _) = messages("")
    order = {
        "url": url,
        "model": model,
        "system": system["content"],
        "problems": list(problems),
        "n": like.n,
        "m": like.m,
        "separator": like.separator,
        "temperature": like.sampling.temperature,
        "step_tokens": like.step_tokens,
        "steps": like.max_depth,
    }
    script = Path(__file__).with_name("its_hub_beam.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(options.its_hub, str(script), stdin=pipe, stdout=pipe)
    try:
        hub = ItsHub(process)
        await hub._say(json.dumps(order))
        yield hub
    finally:
        with suppress(ProcessLookupError):  # it exits by itself after its last problem
            process.kill()
        await process.wait()


def verdict(name: str, value: float, bar: float, unit: str = "") -> None:
    """Print whether a bar is met."""
    print(f"  {'met' if value <= bar else 'MISSED'}: {name} {value:.3f}{unit}, bar {bar:g}{unit}")
    sys.stdout.flush()
