"""The cost of scoring: seconds in which the PRM scores steps, against those in which the policy generates them."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.accuracy.runs import SKIPPED, N
from tts_tui.backends.adapter.lora import fingerprint
from tts_tui.backends.adapter.reward_model import AdapterPRM
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.concurrency import concurrently
from tts_tui.evaluation.datasets.families import FAMILIES, problem
from tts_tui.evaluation.samples import SamplingSettings, solution
from tts_tui.protocols import ScoreRequest

_PROBLEMS = 10


async def measure(policy: EmbeddedPolicy, prm: AdapterPRM) -> dict[str, Any]:
    """Time both on some problems: N concurrent solutions, then their steps, scored depth by depth as in a search.

    Args:
        policy: The running policy.
        prm: The PRM, not started yet.
    """
    settings = SamplingSettings(fingerprint(policy.network[1]))
    await prm.start()
    writing = scoring = 0.0
    tokens = computed = 0
    for name in list(FAMILIES)[:_PROBLEMS]:
        prompt = await policy.prompt(problem(name, "test", SKIPPED).question)
        await policy.engine.states([prompt.ids])
        began = time.perf_counter()
        own = await concurrently(solution(policy, prompt, 7000 + n, settings) for n in range(N))
        writing += time.perf_counter() - began
        began = time.perf_counter()
        for depth in range(1, 1 + max(len(one.steps) for one in own)):
            asked = [ScoreRequest(prompt, one.steps[:depth], one.ids[:depth]) for one in own if len(one.steps) >= depth]
            computed += sum(score.computed for score in await prm.score(asked))
        scoring += time.perf_counter() - began
        tokens += sum(one.tokens for one in own)
    await prm.close()
    return {
        "problems": _PROBLEMS,
        "sampled tokens": tokens,
        "seconds of writing": round(writing, 2),
        "scored tokens": computed,
        "seconds of scoring": round(scoring, 2),
        "scoring / writing": round(scoring / writing, 3),
    }
