"""Chain of thought: one greedy sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class ChainOfThought:
    """Chain of thought: one sample, at temperature 0 by default. The baseline that every gain is measured against."""

    name = "cot"
    summary = "one greedy sample"
    needs_scores = False
    uses_width = False

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Sample one solution, regardless of `n`."""
        return await search.rollout(search.root, 1)


strategy = ChainOfThought()
