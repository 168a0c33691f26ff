"""Diverse verifier tree search (arXiv 2502.06703, section 2.2; Beeching et al., 2024).

N / M independent subtrees, each a beam search with one beam: M steps are sampled, and the best one is kept. They never
wait for each other. `plan.variant` determines what they return. **paper** (default), the official code: one solution
each, so every vote is an independent path. **search-and-learn**: all M siblings of each subtree's last step, finished
or not (an unfinished one votes only if it has an answer), which gives N votes that are near-duplicates in groups of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tts_tui.concurrency import concurrently
from tts_tui.strategies.beam import ended, official, sal_steps, sal_value, select

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class DVTS:
    """Diverse verifier tree search: N / M independent greedy tree searches of width M."""

    name = "dvts"
    summary = "N/M independent subtrees, each keeps the best of M steps"
    needs_scores = True
    uses_width = True

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Grow all subtrees concurrently and return their solutions."""
        plan = search.plan
        plan.check_width()
        if plan.variant == "search-and-learn":
            subtrees = [_search_and_learn(search, group) for group in range(plan.n // plan.m)]
        else:
            subtrees = [official(search, first=plan.m, beams=1, group=group) for group in range(plan.n // plan.m)]
        return [node for solutions in await concurrently(subtrees) for node in solutions]


async def _search_and_learn(search: SearchView, group: int) -> list[Node]:
    """Grow one subtree as search-and-learn does, and return all siblings of its last step."""
    plan, node = search.plan, search.root
    steps: list[Node] = []
    start = search.root.depth
    end = max(plan.max_depth, start + 1)
    for depth in range(start, end):
        grown = await sal_steps(search, [node], [plan.m], last=depth == end - 1, group=group)
        if not grown:
            break
        steps = grown
        node = max(steps, key=lambda step: sal_value(search, step))  # ties go to the first
        select(search, [node], steps, f"of {len(steps)} by {plan.score}")
        if ended(node) or "boxed{" in node.text:
            break
    return steps


strategy = DVTS()
