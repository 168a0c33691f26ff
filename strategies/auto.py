"""The compute-optimal strategy, chosen per prompt (arXiv 2502.06703, section 3): probe, assess, then continue or stop.

It begins with a few samples. The controller then estimates how hard the problem is, how confident the answer is, and
which continuation is worth its cost: more samples, a tree search that starts from the existing steps, or none.
All samples are used to the end: their first steps are nodes that tree searches choose from, and solutions vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from tts_tui.concurrency import concurrently
from tts_tui.strategies.beam import official

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class Auto:
    """The strategy that follows the controller's decisions until it decides to stop."""

    name = "auto"
    summary = "picks for each problem: samples first, then what is worth its price"
    needs_scores = False  # without a reward model the majority votes, and samples are all there is
    uses_width = True

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Ask the controller for a decision and carry it out, round by round; return all samples and solutions."""
        samples: list[Node] = []
        searched: dict[str, list[Node]] = {}
        done: dict[str, int] = {}
        for turn in count():
            found = [node for nodes in searched.values() for node in nodes]
            alone = [node for node in dict.fromkeys(found) if node not in set(samples)]
            choice = await search.choose(turn, samples, alone, done)
            if not choice.strategy:
                return [*samples, *alone]
            done[choice.strategy] = choice.n
            if choice.strategy == "dvts":
                searched["dvts"] = await _subtrees(search, choice.n // search.plan.m)
            elif choice.strategy == "beam":
                searched["beam"] = await official(search, first=choice.n, beams=choice.n // search.plan.m)
            else:
                samples = await search.rollout(search.root, choice.n)
        raise AssertionError  # a count never ends


async def _subtrees(search: SearchView, parts: int) -> list[Node]:
    """Grow the first `parts` subtrees of DVTS; each has M of the first steps, including those of earlier samples."""
    m = search.plan.m
    grown = [official(search, first=m, beams=1, start=m * part, merge=False) for part in range(parts)]
    return [node for solutions in await concurrently(grown) for node in solutions]


strategy = Auto()
