"""Bar 2: wall time of Best-of-N against one raw batch, and of beam search against its_hub's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.sglang.common import PROBLEMS, Options, flush, its_hub, plan, solving, verdict
from benchmarks.sglang.servers import counted, cpu_seconds
from tts_tui import Plan, SearchTree, Solver
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.policy import SGLangPolicy

BATCH_BAR, BEAM_BAR = 1.05, 0.5
TOKENS = 128
"""Length of each path in tokens in the comparison with a batch: the same for all, so that both do the same work."""


async def run(options: Options) -> None:
    """Print both comparisons."""
    tokens = min(TOKENS, options.total_tokens)
    print(
        f"Orchestration: Best-of-N 16 / one POST of 16 equal prompts, {tokens} tokens each, whatever they say, in turn"
    )
    async with solving(options.url) as (solver, policy):
        never_end(policy)
        for name, warm in (("prompt in the cache", True), ("cache empty", False)):
            walls, cpus = await _batches(solver, policy, options.turns, warm, tokens)
            print(f"  {name}: wall {_list(walls)}; CPU of client and server {_list(cpus)}")
            verdict(f"median of wall, {name}", statistics.median(walls), BATCH_BAR)
            if cpus:
                verdict(f"median of CPU, {name}", statistics.median(cpus), BATCH_BAR)
    print("  CPU is what a machine with other load can compare; a server started by --url does not tell its own.")
    if options.its_hub:
        await _beams(options)
    else:
        print("  Beam search against its_hub: left out, for --its-hub names no Python that has its_hub 1.2")


def never_end(policy: SGLangPolicy) -> None:
    """Make every path continue to its token limit."""
    plain = policy.http.events

    def events(path: str, body: dict[str, Any], kind: Any, headers: Any = None) -> Any:
        return plain(path, {**body, "sampling_params": {**body["sampling_params"], "ignore_eos": True}}, kind, headers)

    policy.http.events = events  # type: ignore[method-assign, assignment]


async def _batches(
    solver: Solver, policy: SGLangPolicy, turns: int, warm: bool, tokens: int
) -> tuple[list[float], list[float]]:
    """Return ratios (ours / theirs) of wall time and of CPU time, each turn with another problem."""
    asked = plan("best-of-n", total_tokens=tokens)
    drawing = {"temperature": asked.sampling.temperature, "max_new_tokens": tokens, "ignore_eos": True}
    walls, cpus = [], []
    for turn in range(turns):
        problem = PROBLEMS[turn % len(PROBLEMS)]
        ids = list((await policy.prompt(problem)).ids)

        async def ours(problem: str = problem) -> None:
            result = await solver.solve(problem, asked)
            written = result.tree.counts.completion
            assert written == asked.n * tokens, (written, result.finished)

        async def theirs(ids: list[int] = ids) -> None:
            body = {"input_ids": [ids] * asked.n, "sampling_params": drawing}
            replies = await policy.http.post("/generate", body, list)
            assert sum(reply["meta_info"]["completion_tokens"] for reply in replies) == asked.n * tokens

        seconds, cpu = {}, {}
        for run in (ours, theirs) if turn % 2 else (theirs, ours):
            await flush(policy.http)
            if warm:
                first = {**drawing, "max_new_tokens": 1}
                await policy.http.read("POST", "/generate", {"input_ids": ids, "sampling_params": first})
            began, spent = time.perf_counter(), _spent(policy)
            await run()
            seconds[run] = time.perf_counter() - began
            cpu[run] = _spent(policy) - spent
        walls.append(seconds[ours] / seconds[theirs])
        if cpu_seconds(policy.http.url) is not None:
            cpus.append(cpu[ours] / cpu[theirs])
    return walls, cpus


def _spent(policy: SGLangPolicy) -> float:
    return (cpu_seconds(policy.http.url) or 0.0) + time.process_time()


async def _beams(options: Options) -> None:
    """Run both beam searches in turn, on the same problems and with its_hub's limits: tokens per step, and steps."""
    asked = plan("beam")
    asked = asked.replace(total_tokens=asked.step_tokens * asked.max_depth)
    problems = [PROBLEMS[turn % len(PROBLEMS)] for turn in range(options.turns)]
    print("Orchestration: beam search N=16 M=4 / its_hub 1.2's, same server, problems, sizes and reward model, in turn")
    print("  its_hub keeps 4 of 16 beams and copies each 4 times. It goes through the chat route, knows no end of text")
    print("  but \\boxed, so it goes on to the last step, and waits for the whole round, as beam search does.")
    print("  Of our tokens, cut: steps that reached the step limit, which are written anew here and kept there; ahead:")
    print("  written ahead of their time for nothing.")
    head = "ours: s", "tokens", "cut", "ahead", "rounds", "its_hub: s", "tokens", "rounds", "ratio"
    print("  {:<10} {:>8} {:>7} {:>6} {:>6} {:>7} {:>11} {:>7} {:>7} {:>6}".format("", *head))
    http = Http(options.url)
    await http.open()
    ratios, per_token = [], []
    async with its_hub(options, options.url, problems, asked) as hub, solving(options.url) as (solver, _):
        for turn, problem in enumerate(problems):
            rows: dict[str, tuple[float, int]] = {}
            rounds, tree = 0, SearchTree()
            for who in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
                await flush(http)
                before, began = await counted(http), time.perf_counter()
                if who == "ours":
                    tree = (await solver.solve(problem, _as_they_are(asked))).tree
                else:
                    _, rounds = await hub.solve()
                seconds = time.perf_counter() - began
                rows[who] = seconds, (await counted(http) - before).generation
            (own, tokens), (other, others) = rows["ours"], rows["theirs"]
            ratios.append(own / other)
            per_token.append(own / tokens / (other / others))
            print(
                f"  problem {turn + 1:<2} {own:>8.1f} {tokens:>7} {_cut(tree):>6} {_ahead(tree):>6} {_depth(tree):>7}"
                f" {other:>11.1f} {others:>7} {rounds:>7} {ratios[-1]:>6.2f}",
                flush=True,
            )
    await http.close()
    verdict("median of wall times", statistics.median(ratios), BEAM_BAR)
    print(
        f"  median of seconds a token written: ratio {statistics.median(per_token):.2f}; range of wall {_range(ratios)}"
    )


def _cut(tree: SearchTree) -> int:
    return sum(len(node.ids) for node in tree.nodes[1:] if node.finish == "length")


def _ahead(tree: SearchTree) -> int:
    return tree.ahead.completion


def _depth(tree: SearchTree) -> int:
    return max(node.depth for node in tree.nodes)


def _as_they_are(asked: Plan) -> Plan:
    """Return the plan with the defaults for everything that these benchmarks do not compare."""
    return asked.replace(speculation="auto")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values) or "unknown"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
