"""A search whose streams are written by a clock: `python -m benchmarks.ui.typist tui|none REPORT`.

The process that `benchmarks.ui.streams` measures. Whatever the display, it is the same search at the same pace, and it
measures itself in the same way: its CPU time, all threads included, over some seconds.
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
"""Streams, tokens a second on each, tokens of a step: on average, for its streams end theirs one by one."""
WARM, SECONDS = 2.0, 15.0
"""Seconds before it is measured, and while it is."""
WORDS = (" we", " know", " that", " 7", " *", " 6", " =", " 42", ", so", " the", " sum", " is", " then", " 47", ".")
PLAN = Plan(strategy="best-of-n", n=STREAMS, why="the pace of the benchmark")


class Typist:
    """A policy that writes a token every 20 ms on each of its streams, whatever the text, and never ends."""

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
        began = time.monotonic() + place % STREAMS / STREAMS / PACE  # not all at the same moment
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
    """Scores that cost nothing."""

    info = ModelInfo("scorer", 1_000_000, 100_000)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        await asyncio.sleep(0.02)
        return [StepScore(sum(request.step_ids[-1]) % 97 / 97, computed=STEP, cached=100) for request in requests]


def main() -> None:
    """Runs the search until it was measured."""
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
