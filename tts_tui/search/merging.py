"""Merging of identical siblings, so that a search does not continue the same step twice."""

from __future__ import annotations

from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import StepMerged
from tts_tui.tree.search_tree import Node


class Merger:
    """The merger of identical siblings in one search.

    Two finished steps of one parent and group are identical if their texts differ at most in surrounding white space,
    and either both or neither ended the answer. The older step stays, with its own token ids, no matter which one
    finished first, so that the outcome does not depend on generation speed. The younger one stays only if it is
    already in use.

    Args:
        journal: The event log of the search.
    """

    def __init__(self, journal: EventLog) -> None:
        self._journal = journal
        self._claimed: set[int] = set()

    def claim(self, node: Node) -> None:
        """Mark `node` as handed to a strategy, so that it is not merged into a sibling any more."""
        self._claimed.add(node.id)

    def merge(self, node: Node) -> Node | None:
        """Merge `node`, which has just been finished, with an identical sibling.

        Returns:
            The node of the two that was merged into the other; None if nothing was merged.
        """
        twin = self._twin(node)
        if twin is None:
            return None
        older, younger = sorted((node, twin), key=lambda one: one.id)
        for gone, stays in ((younger, older), (older, younger)):
            if not self._in_use(gone):
                self._journal.append(StepMerged(t=self._journal.now, node=gone.id, into=stays.id))
                return gone
        return None

    def _twin(self, node: Node) -> Node | None:
        assert node.parent is not None
        said = _said(node)
        for other in self._journal.tree.attempts(node.parent, node.group):
            whole = other.state == "done" and other.merged_into is None and other is not node
            if whole and _said(other) == said:
                return other
        return None

    def _in_use(self, node: Node) -> bool:
        """Return whether the strategy or a person has already acted on the step."""
        decided = node.kept or node.pruned or node.cut or node.id in self._journal.tree.restored
        return decided or bool(node.children) or node.id in self._claimed


def _said(node: Node) -> tuple[str, str | None]:
    """Return a step's text and how it ended: with the answer, at its limit, or at a separator."""
    return node.text.strip(), "ended" if node.terminal else node.finish
