"""Best-of-N: independent samples, chosen or weighted by the PRM (arXiv 2502.06703, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node


class BestOfN:
    """N independent samples, every step scored; score and vote of the plan choose the answer.

    The same in both public implementations. A sample that is cut off at the token limit votes only if it holds a
    complete box; copies are samples too and are kept.
    """

    name = "best-of-n"
    summary = "N samples, chosen by the PRM"
    needs_scores = False  # its vote may: `plan.vote` decides
    uses_width = False

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Samples `n` solutions; steps are scored while later ones are still being written."""
        return await search.rollout(search.root, search.plan.n)


strategy = BestOfN()
