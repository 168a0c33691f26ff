"""Steer a search: pause it after its first round, write a step of your own, and let the search continue from there."""

from __future__ import annotations

import asyncio
import sys

from tts_tui import Search, Solver
from tts_tui.tree.events import AnyEvent, BranchBegun, NodesKept


async def main(problem: str, step: str) -> None:
    searches: list[Search] = []  # `steer` receives the search when it is about to begin
    written = False

    def listen(event: AnyEvent) -> None:
        nonlocal written
        match event:
            case NodesKept(nodes=nodes, why=why) if not written:
                search, written = searches[0], True
                search.pause()
                for node in (search.tree.nodes[id] for id in nodes):
                    print(f"{why}: {node.label}, score {node.value:.2f}: {node.text.strip()!r}")
                search.steering.write(search.tree.root, step)
            case BranchBegun(node=node):
                tree = searches[0].tree
                print(f"going on from {tree.nodes[node].label}, score {tree.nodes[node].value:.2f}: {step!r}")
                searches[0].go_on()

    async with Solver() as solver:
        plan = solver.plan("beam", n=4, m=2, max_depth=6)
        result = await solver.solve(problem, plan, sinks=[listen], steer=searches.append)
    voters = result.tree.voters()
    mine = [node for node in voters if any(above.by_hand for above in node.path)]
    print(f"answer: {result.answer}; {len(mine)} of {len(voters)} solutions go on from the written step")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is 7 + 8 - 6?", "Step 1: 7 + 8 = 15"))
