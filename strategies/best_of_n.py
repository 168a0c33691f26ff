"""Best-of-N: independent samples, chosen or weighted by the PRM (arXiv 2502.06703, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class BestOfN:
    """Best-of-N: N independent samples with every step scored; the plan's score and vote select the answer.

    Both public implementations do the same. A sample that is cut off at the token limit votes only if it has a complete
    box; duplicates are samples too and are kept.
    """

    name = "best-of-n"
    summary = "N samples, chosen by the PRM"
    needs_scores = False  # the vote may need them, depending on `plan.vote`
    uses_width = False

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Sample `n` solutions; steps are scored while later ones are still being generated."""
        return await search.rollout(search.root, search.plan.n)


strategy = BestOfN()
