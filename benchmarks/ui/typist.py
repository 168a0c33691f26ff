"""A search whose streams are paced by a clock: `python -m benchmarks.ui.typist tui|none REPORT`.

This is the process that `benchmarks.ui.streams` measures. With any display, it runs the same search at the same pace,
and measures itself in the same way: its CPU time, including all threads, over some seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from tts_tui import Chunk, ModelInfo, Plan, Prompt, ScoreRequest, Solver, StepRequest, StepScore, Usage
from tts_tui.displays import session
from tts_tui.displays.factory import make
from tts_tui.ui import launch
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.settings import Settings

STREAMS, PACE, STEP = 16, 50, 60
"""Number of streams, tokens per second on each, and mean tokens per step; streams end their steps one by one."""
WARM, SECONDS = 2.0, 15.0
"""Seconds before the measurement, and seconds of the measurement."""
WORDS = (" we", " know", " that", " 7", " *", " 6", " =", " 42", ", so", " the", " sum", " is", " then", " 47", ".")
PLAN = Plan(strategy="best-of-n", n=STREAMS, why="the pace of the benchmark")


class Typist:
    """A policy that generates a token every 20 ms on each of its streams, regardless of the text, and never ends."""

    info = ModelInfo("typist", 1_500_000_000, 100_000)

    def __init__(self, report: Path) -> None:
        self.report = report
        self.tokens = 0
        self._streams = itertools.count()
        self._measuring: asyncio.Task[None] | None = None

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def prompt(self, problem: str) -> Prompt:
        return Prompt(problem, tuple(range(100)))

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure())
        place = next(self._streams)
        began = time.monotonic() + place % STREAMS / STREAMS / PACE  # so that streams are not in phase
        length = STEP - 15 + place * 7 % 31
        usage = Usage(prompt_cached=len(request.ids))
        for number in range(1, request.max_tokens + 1):
            await asyncio.sleep(max(0.0, began + number / PACE - time.monotonic()))
            self.tokens += 1
            ends = number % length == 0
            text = "\n\n" if ends else WORDS[(number * 7 + place) % len(WORDS)]
            finish = "step" if ends and not request.rollout else "length" if number == request.max_tokens else None
            yield Chunk((number,), text, ends, finish, Usage(completion=1) + usage)
            if finish is not None:
                return
            usage = Usage()

    async def _measure(self) -> None:
        await asyncio.sleep(WARM)
        begin, cpu, tokens = time.monotonic(), time.process_time(), self.tokens
        await asyncio.sleep(SECONDS)
        figures = {
            "begin": begin,
            "end": time.monotonic(),
            "cpu": time.process_time() - cpu,
            "tokens": self.tokens - tokens,
        }
        self.report.write_text(json.dumps(figures))
        os.kill(os.getpid(), signal.SIGINT)


class Scorer:
    """A reward model without cost."""

    info = ModelInfo("scorer", 1_000_000, 100_000)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        await asyncio.sleep(0.02)
        return [StepScore(sum(request.step_ids[-1]) % 97 / 97, computed=STEP, cached=100) for request in requests]


def main() -> None:
    """Run the search until it was measured."""
    display, report = sys.argv[1], Path(sys.argv[2])
    solver = Solver(Typist(report), Scorer())
    problem = "What is 7 * 6 + 5?"
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "run.jsonl"
        if display == "tui":
            models = ModelLoader(solver, "sglang:typist", "scorer")  # no model computes in this process
            launch.launch(models, PLAN, Settings(record=False), launch.problem(problem, record))
        else:
            session.complete(session.search(solver, make(display), problem, PLAN, record))


if __name__ == "__main__":
    main()
