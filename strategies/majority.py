"""Majority voting, also called self-consistency (Wang et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class Majority:
    """Majority voting: N independent samples, and the answer that most of them give. Needs no PRM."""

    name = "majority"
    summary = "N samples, the most frequent answer"
    needs_scores = False
    uses_width = False

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Sample `n` solutions. Duplicates are samples too and are kept; ties go to the lower slot."""
        return await search.rollout(search.root, search.plan.n)


strategy = Majority()
