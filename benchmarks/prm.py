"""The cost of scoring: `python -m benchmarks.prm [--paths N]`.

A reward model of the embedded model's size (its own weights, with a random head of two labels) scores paths in this
process, as in tts-tui, and as it would be done without a cache: the complete path through the network, for each step.
Its scores are meaningless; its cost is not.

- Growing: a path of 40 steps, scored step by step. Tokens computed for the newest step, against all tokens of the path;
  the limit is the step's own tokens. Next to them, the times of the same passes.
- Batching: many unfinished paths of one problem, each with a new step, as a batch and one by one, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tts_tui.backends.local import download
from tts_tui.backends.local.loading import quietly
from tts_tui.backends.prm.local import LocalPRM
from tts_tui.protocols import Prompt, ScoreRequest

DEPTHS = (4, 16, 40)
QUESTION = "A shop sells pens at 3 coins and books at 7 coins. How many coins do 12 pens and 5 books cost?"
STEP = "Step {i}: we go on from {a}, add {b} to it, and keep in mind that the sum is {c} before the next line begins."


def checkpoint(folder: Path) -> Path:
    """Write the embedded model as a reward model of TRL's trainer, with a random head."""
    import torch
    import transformers

    source = download.pull()
    torch.manual_seed(0)
    with quietly(transformers):
        model = transformers.AutoModelForTokenClassification.from_pretrained(source, num_labels=2, dtype=torch.float32)
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copy(source / name, folder)
    return folder


def step(i: int, seed: int) -> str:
    """Return a step of about 30 tokens."""
    a, b = 13 * i + 7 * seed, 17 * i + seed
    return STEP.format(i=i, a=a, b=b, c=a + b)


def request(steps: list[str]) -> ScoreRequest:
    """Return a search's request for the last of `steps`; token ids of a policy do not matter here."""
    return ScoreRequest(Prompt(QUESTION, (0,)), tuple(steps), ((0,),) * len(steps))


async def growing(prm: LocalPRM, plain: Any) -> None:
    """Print the rows of a growing path."""
    print("depth  path tokens  step tokens  computed  re-forward  ratio  ours ms  re-forward ms  ratio")
    steps: list[str] = []
    before = 0
    for depth in range(1, max(DEPTHS) + 1):
        steps.append(step(depth, 0))
        began = time.perf_counter()
        (score,) = await prm.score([request(steps)])
        ours = time.perf_counter() - began
        length = score.computed + score.cached
        if depth in DEPTHS:
            again = statistics.median([plain(length) for _ in range(3)])
            print(
                f"{depth:>5}  {length:>11}  {length - before:>11}  {score.computed:>8}  {length:>10}"
                f"  {length / score.computed:>5.1f}  {1000 * ours:>7.0f}  {1000 * again:>13.0f}  {again / ours:>5.1f}"
            )
        before = length


async def batching(prm: LocalPRM, paths: int, rounds: int = 4) -> None:
    """Print the speed-up of a batch."""
    history = [step(i, 1) for i in range(1, 9)]
    await prm.score([request(history)])  # the shared prefix of all paths
    seeds = iter(range(10, 10_000))
    times: dict[str, list[float]] = {"batched": [], "one by one": []}
    tokens = 0
    for _ in range(rounds):
        for kind, seconds in times.items():
            requests = [request([*history, step(9, next(seeds))]) for _ in range(paths)]
            began = time.perf_counter()
            if kind == "batched":
                scores = await prm.score(requests)
            else:
                scores = [(await prm.score([one]))[0] for one in requests]
            seconds.append(time.perf_counter() - began)
            tokens = sum(score.computed for score in scores)
    print(f"\n{paths} paths, {tokens} new tokens  steps/s")
    for kind, seconds in times.items():
        print(f"{kind:>26}  {paths / statistics.median(seconds):>7.1f}")
    ratios = [slow / fast for slow, fast in zip(times["one by one"], times["batched"], strict=True)]
    print(f"{'ratio':>26}  {statistics.median(ratios):>7.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


async def measure(paths: int) -> None:
    """Run both measurements on one model."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as name:
        folder = checkpoint(Path(name))
        prm = LocalPRM(folder, name="trl")
        await prm.start()
        with quietly(transformers):
            network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

        def plain(length: int) -> float:
            ids = torch.arange(100, 100 + length)[None]
            began = time.perf_counter()
            with torch.inference_mode():
                network(ids, use_cache=False)
            return time.perf_counter() - began

        try:
            await growing(prm, plain)
            await batching(prm, paths)
        finally:
            await prm.close()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=32)
    asyncio.run(measure(parser.parse_args().paths))


if __name__ == "__main__":
    main()
