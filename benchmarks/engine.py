"""Speed, memory and waste of the in-process engine: `python -m benchmarks.engine [--model PATH] [--sglang URL]`.

Measures decode speed with a prefix shared by all rows, the number of slots of the key-value pool in use, and the number
of tokens that pass through the model for each token of a real search tree. With `--sglang` the same load also goes to a
server of the same model in turn, and the ratio is what matters: other load on the machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tts_tui import ModelInfo, Plan, Sampling, ScoreRequest, Solver, StepRequest, StepScore
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.protocols import Usage
from tts_tui.tree.events import SearchStarted, StepFinished

NEVER = "\x00never\x00"
"""A separator that does not occur, so that rows generate up to their limit."""


class Dice:
    """A reward model for benchmarks of everything else: scores are hashes of the text."""

    info = ModelInfo("dice", 0, 1_000_000)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        return [StepScore((zlib.crc32("".join(r.steps).encode()) % 997) / 997) for r in requests]


def prefix(tokens: int, seed: int = 1) -> tuple[int, ...]:
    """Return random ids; their content makes no difference to the work."""
    return tuple(random.Random(seed).choices(range(300, 40_000), k=tokens))


async def write(policy: LocalPolicy, ids: tuple[int, ...], tokens: int, seed: int) -> int:
    """Generate `tokens` tokens after `ids`, and return the number received."""
    asked = StepRequest(ids, Sampling(0.7), tokens, separator=NEVER, rollout=True, seed=seed)
    return sum([len(chunk.ids) async for chunk in policy.stream(asked)])


async def timed(rows: int, one: Callable[[int], Awaitable[int]]) -> tuple[float, float]:
    """Return tokens per second, and per CPU-second of this process, of `rows` concurrent tasks."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*map(one, range(rows))))
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


async def decode_speed(policy: LocalPolicy, ids: tuple[int, ...], tokens: int, batches: list[int]) -> None:
    """Print speed and slots by batch size."""
    policy.engine._eos = frozenset()
    print(f"decode behind a shared prefix of {len(ids)} tokens, {tokens} tokens each")
    for rows in batches:
        most = 0

        async def one(seed: int) -> int:
            nonlocal most
            asked = StepRequest(ids, Sampling(0.7), tokens, separator=NEVER, rollout=True, seed=seed)
            count = 0
            async for chunk in policy.stream(asked):
                count += len(chunk.ids)
                most = max(most, policy.engine.stats().kv_used)
            return count

        await write(policy, ids, 1, 0)
        before = policy.engine.stats().kv_used
        speed, per_cpu = await timed(rows, one)
        print(
            f"  batch {rows:3}: {speed:7.1f} tokens/s {per_cpu:7.1f} tokens/CPU-s;"
            f" {(most - before) / rows:6.1f} slots a row beside the prefix"
        )


async def waste(policy: LocalPolicy, problem: str) -> None:
    """Print the number of tokens that passed through the model for each token of a tree."""
    for strategy, n in (("best-of-n", 16), ("beam", 16), ("dvts", 16)):
        plan = Plan(strategy=strategy, n=n, m=4, step_tokens=64, total_tokens=1024, max_depth=8)
        cost, unique = Usage(), 0
        # A different problem text makes a different prompt, so that nothing of the previous strategy is reused.
        asked = f"{problem} ({strategy})"
        async with Solver(policy=policy, prm=Dice()) as solver:
            async for event in solver.stream(asked, plan):
                if isinstance(event, SearchStarted):
                    unique += len(event.prompt_ids)
                if isinstance(event, StepFinished):
                    unique += len(event.ids)
                    cost += event.usage
        print(
            f"  {strategy:10} n={n}: {cost.prompt_computed} + {cost.completion} computed,"
            f" {cost.prompt_cached} reused, {unique} in the tree:"
            f" ratio {(cost.prompt_computed + cost.completion) / unique:.4f}"
        )


async def generate(url: str, ids: tuple[int, ...], tokens: int) -> int:
    """Send a streamed request to an SGLang server, and return the number of generated tokens."""
    parts = urlsplit(url)
    body = json.dumps(
        {
            "input_ids": ids,
            "stream": True,
            "sampling_params": {"temperature": 0.7, "max_new_tokens": tokens, "ignore_eos": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /generate HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    count = 0
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            count = json.loads(line[6:])["meta_info"]["completion_tokens"]
    writer.close()
    return count


async def against(policy: LocalPolicy, url: str, tokens: int, rows: int, length: int) -> None:
    """Print the speed of this engine and of SGLang in turn, each with a warm prefix."""
    print(f"against {url}: {rows} at once, {tokens} tokens each behind {length}")
    ratios = []
    for turn in range(3):
        ids = prefix(length, seed=100 + turn)
        await generate(url, ids, 1)
        theirs, _ = await timed(rows, lambda seed, ids=ids: generate(url, ids, tokens))
        await write(policy, ids, 1, 0)
        ours, _ = await timed(rows, lambda seed, ids=ids: write(policy, ids, tokens, seed))
        ratios.append(ours / theirs)
        print(f"  SGLang {theirs:7.1f} tokens/s, this engine {ours:7.1f}: ratio {ours / theirs:.2f}")
    print(f"  median ratio {sorted(ratios)[1]:.2f}")


async def main(options: argparse.Namespace) -> None:
    """Run the requested benchmarks and print the results."""
    if options.model:
        policy = LocalPolicy(options.model, threads=options.threads)
    else:
        from tts_tui.backends.local.embedded import EmbeddedPolicy

        policy = EmbeddedPolicy(threads=options.threads)
    begin = time.perf_counter()
    await policy.start()
    print(f"{policy.info.name}: loaded in {time.perf_counter() - begin:.1f} s")
    print("real trees")
    await waste(policy, "What is 7 + 8 - 6?")
    await policy.close()
    await policy.start()
    batches = [int(rows) for rows in options.batches.split(",")]
    await decode_speed(policy, prefix(options.prefix), options.tokens, batches)
    if options.sglang:
        await against(policy, options.sglang, options.tokens, 32, options.prefix)
    await policy.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; the embedded one by default")
    parser.add_argument("--sglang", help="URL of an SGLang server of the same model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=600)
    parser.add_argument("--batches", default="1,4,16,32,64")
    asyncio.run(main(parser.parse_args()))
