"""Solve a problem with Best-of-N, and print the answers: `python examples/solve.py "What is 7 + 8 - 6?"`."""

from __future__ import annotations

import asyncio
import sys

from tts_tui import Solver


async def main(problem: str) -> None:
    async with Solver(policy="embedded", prm="embedded") as solver:
        result = await solver.solve(problem, solver.plan("best-of-n", n=8))
    print(f"answer: {result.answer}")
    for vote in result.votes:
        print(f"  {vote.answer}: {vote.weight:.2f} from {len(vote.solutions)} solutions")
    print(result.solution)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is 7 + 8 - 6?"))
