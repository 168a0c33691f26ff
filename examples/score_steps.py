"""Score each step of a solution with a reward model: `python examples/score_steps.py [SPEC]`.

SPEC is a spec as for --prm: `hf:Qwen/Qwen2.5-Math-PRM-7B`, `sglang:http://127.0.0.1:30001@qwen`, `embedded`.
"""

from __future__ import annotations

import asyncio
import sys

from tts_tui.errors import TTSError
from tts_tui.protocols import Prompt, ScoreRequest
from tts_tui.registry import reward_model

QUESTION = "What is 3 * 4 + 2?"
STEPS = ("Step 1: 3 * 4 = 12", "Step 2: 12 + 2 = 15", "The answer is \\boxed{15}.")


async def main(spec: str) -> None:
    prm = reward_model(spec)
    if prm is None:
        sys.exit("none scores nothing: name a reward model")
    try:
        await prm.start()
        # One request per step, with all steps before it; only the embedded reward model needs the policy's token ids.
        paths = [STEPS[:end] for end in range(1, len(STEPS) + 1)]
        scores = await prm.score([ScoreRequest(Prompt(QUESTION, ()), path, ((),) * len(path)) for path in paths])
    finally:
        await prm.close()
    for step, score in zip(STEPS, scores, strict=True):
        print(f"{score.score:.2f}  {step}  ({score.computed} tokens computed, {score.cached} reused)")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "embedded"))
    except TTSError as error:
        sys.exit(str(error))
