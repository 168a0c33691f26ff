"""Write your own strategy: sample in rounds, and stop as soon as no other answer can overtake the leading one.

A package registers its strategies with the entry point group `tts_tui.strategies`; a script calls `register`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence

from tts_tui import Node, SearchView, Solver
from tts_tui.registry import register


class EarlyMajority:
    name = "early-majority"
    summary = "samples M at a time until no answer can overtake the first"
    needs_scores = False
    uses_width = True

    async def run(self, search: SearchView) -> Sequence[Node]:
        solutions: list[Node] = []
        for group in range(search.plan.n // search.plan.m):
            solutions += await search.rollout(search.root, search.plan.m, group=group)
            votes = Counter(node.answer for node in solutions if node.answer is not None).most_common(2)
            lead = votes[0][1] - (votes[1][1] if len(votes) > 1 else 0) if votes else 0
            if lead > search.plan.n - len(solutions):
                break
        return solutions


async def main(problem: str) -> None:
    register(EarlyMajority())
    async with Solver(prm=None) as solver:
        result = await solver.solve(problem, solver.plan("early-majority", n=12, m=4, vote="majority"))
    print(f"answer: {result.answer}, after {len(result.tree.solutions)} of 12 samples")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is 7 + 8 - 6?"))
