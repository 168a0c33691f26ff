"""Beam search as run by its_hub 1.2, for `python -m benchmarks.sglang`; needs a Python with its_hub, not tts-tui.

Reads one `Order` as JSON from standard input. Writes "ready" when it is loaded, and then, for each further input line,
the next problem's seconds and rounds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import warnings
import zlib
from typing import Any, TypedDict


class Order(TypedDict):
    url: str
    model: str
    system: str
    problems: list[str]
    n: int
    m: int
    separator: str
    temperature: float
    step_tokens: int
    steps: int


def score(text: str) -> float:
    """Return a score in [0, 1) that depends on the text alone; the reward model of these benchmarks."""
    return (zlib.crc32(text.encode()) % 997) / 997


async def run(order: Order) -> None:
    """Solve the problems, one for each input line."""
    from its_hub.api.reward_models.prm import AbstractProcessRewardModel
    from its_hub.core.algorithms.beam_search import BeamSearch
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
    from its_hub.core.lms.step_generation import StepGeneration

    class Dice(AbstractProcessRewardModel):  # type: ignore[misc]
        rounds = 0

        def score(self, prompt: Any, steps: list[str]) -> list[float]:
            self.rounds += 1
            return [score(text) for text in steps]

        async def ascore(self, prompt: Any, steps: list[str]) -> list[float]:
            return self.score(prompt, steps)

    lm = OpenAICompatibleLanguageModel(
        f"{order['url']}/v1",
        api_key="none",
        model_name=order["model"],
        system_prompt=order["system"],
        max_completion_tokens=order["step_tokens"],
    )
    steps = StepGeneration(
        max_steps=order["steps"] - 1,  # its_hub allows one more
        step_token=order["separator"],
        stop_token="\\boxed",
        temperature=order["temperature"],
    )
    print("ready", flush=True)
    for problem in order["problems"]:
        if not await asyncio.to_thread(sys.stdin.readline):
            break
        prm, began = Dice(), time.perf_counter()
        # its_hub's width is the number of survivors: N / M of N candidates are kept, and copied M times.
        await BeamSearch(steps, prm, beam_width=order["n"] // order["m"]).ainfer(lm, problem, budget=order["n"])
        print(json.dumps({"seconds": time.perf_counter() - began, "rounds": prm.rounds}), flush=True)
    await lm.close()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    asyncio.run(run(json.loads(sys.stdin.readline())))
