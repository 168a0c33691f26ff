"""The number of times that a token is computed: `python -m benchmarks.kv [--problems N] [--n N] [--m M]`.

For every strategy: (prompt tokens computed + completion tokens) / unique tokens of the search trees, on problems of
the embedded model. Unique tokens count a prefix that several prompts share, such as the few-shot examples, once. 1.00
is the physical limit. Next to it is the ratio of a client without any reuse, which sends complete paths every time.
"""

from __future__ import annotations

import argparse
import asyncio

from tts_tui import Result, Solver
from tts_tui.evaluation.datasets.families import FAMILIES, problem


def unique(results: list[Result]) -> int:
    """Return the number of tokens in the union of all trees."""
    seen: list[tuple[int, ...]] = []
    total = 0
    for result in results:
        ids = result.tree.start.prompt_ids
        total += len(ids) - max((shared(ids, other) for other in seen), default=0)
        total += result.tree.counts.completion
        seen.append(ids)
    return total


def shared(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Return the length of the longest common prefix."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


async def measure(strategy: str, questions: list[str], n: int, m: int) -> None:
    """Solve the questions in a fresh engine, four at a time, and print a row."""
    async with Solver() as solver:
        plan = solver.plan(strategy, n=n, m=m)
        results = [result async for result in solver.solve_many(questions, plan, parallel=4)]
    counts = [result.tree.counts for result in results]
    computed = sum(count.prompt_computed + count.completion for count in counts)
    resent = computed + sum(count.prompt_cached for count in counts)
    scoring = sum(count.prm_computed for count in counts)
    tokens = unique(results)
    solved = sum(result.reason == "solved" for result in results)
    print(
        f"{strategy:>10}  {len(results):>8}  {solved:>6}  {tokens:>13,}  {computed:>8,}  {computed / tokens:>5.3f}"
        f"  {resent / tokens:>13.2f}  {scoring:>12,}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--m", type=int, default=4)
    args = parser.parse_args()
    names = list(FAMILIES)
    questions = [
        problem(names[place % len(names)], "test", place // len(names)).question for place in range(args.problems)
    ]
    print("  strategy  problems  solved  unique tokens  computed  ratio  without reuse  PRM computed")
    for strategy in ("best-of-n", "beam", "dvts"):
        asyncio.run(measure(strategy, questions, args.n, args.m))


if __name__ == "__main__":
    main()
