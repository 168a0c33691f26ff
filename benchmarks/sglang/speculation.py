"""Bar 3: the benefit of generating steps speculatively."""

from __future__ import annotations

import statistics
import time

from benchmarks.sglang.common import PROBLEMS, Options, flush, plan, solving
from tts_tui import Plan, Solver
from tts_tui.backends.sglang.policy import SGLangPolicy

SIZES = ((4, 2), (8, 4), (16, 4))
SEPARATOR = "el"
"""Text in one of 33 tokens of the vocabulary, which is a random model's mean step length; lengths vary widely."""


async def run(options: Options) -> None:
    """Print a row for each size."""
    print("Speculation: wall time of a beam search that writes ahead / one that does not, in turn, same problems")
    print("  auto writes ahead as far as it slows other steps little, on wherever it can")
    print(f"  {'N, M':<13} {'median ratio':>12} {'least':>6} {'most':>6} {'wasted tokens':>14} {'tokens on / off':>16}")
    problems = PROBLEMS[: options.problems]
    if options.url:
        print("  SmolLM2-135M, where every stream slows the others:")
        for n, m in SIZES:
            await _kinds(options.url, plan("beam", n, m, total_tokens=options.total_tokens), problems)
    if options.tiny_url:
        print(f"  a tiny random model with the separator {SEPARATOR!r}, where there is more room:")
        for n, m in SIZES:
            asked = plan("beam", n, m, total_tokens=1024, step_tokens=256, max_depth=10, separator=SEPARATOR)
            await _kinds(options.tiny_url, asked, problems)


async def _kinds(url: str, asked: Plan, problems: tuple[str, ...]) -> None:
    async with solving(url) as (solver, policy):
        for how in ("auto", "on"):
            await _size(solver, policy, asked, problems, how)


async def _size(solver: Solver, policy: SGLangPolicy, asked: Plan, problems: tuple[str, ...], how: str) -> None:
    ratios: list[float] = []
    wasted = {how: 0, "off": 0}
    written = {how: 0, "off": 0}
    for turn, problem in enumerate(problems):
        per_token: dict[str, float] = {}
        for kind in (how, "off") if turn % 2 else ("off", how):
            await flush(policy.http)
            began = time.perf_counter()
            result = await solver.solve(problem, asked.replace(speculation=kind))
            tokens = result.tree.counts.completion
            ahead = result.tree.ahead.completion
            # Samples and their lengths differ from run to run, so compare seconds per token in the tree.
            per_token[kind] = (time.perf_counter() - began) / max(1, tokens - ahead)
            wasted[kind] += ahead
            written[kind] += tokens
        ratios.append(per_token[how] / per_token["off"])
    share = wasted[how] / max(1, written[how])
    print(
        f"  {asked.n:>2}, {asked.m:<4} {how:<4} {statistics.median(ratios):>12.2f}"
        f" {min(ratios):>6.2f} {max(ratios):>6.2f}"
        f" {wasted[how]:>8} {share:>5.1%} {written[how]:>8} /{written['off']:>6}",
        flush=True,
    )
