"""Watch a beam search while it runs, event by event."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from tts_tui import Solver
from tts_tui.tree.events import NodesKept, SearchFinished, StepFinished, StepScored


async def main(problem: str) -> None:
    async with Solver() as solver:
        plan = solver.plan("beam", n=4, m=2, max_depth=6)
        async with aclosing(solver.stream(problem, plan)) as events:  # leaving the loop early ends the search
            async for event in events:
                match event:
                    case StepFinished(node=node, text=text):
                        print(f"{event.t:6.2f} s  step {node}: {text.strip()!r}")
                    case StepScored(node=node, score=score):
                        print(f"{event.t:6.2f} s  step {node} has score {score:.2f}")
                    case NodesKept(nodes=nodes, why=why):
                        print(f"{event.t:6.2f} s  kept {nodes}: {why}")
                    case SearchFinished(answer=answer, reason=reason):
                        print(f"answer: {answer} ({reason})")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is 7 + 8 - 6?"))
