"""Merges siblings that say the same, so that a search does not go on with one step twice."""

from __future__ import annotations

from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import StepMerged
from tts_tui.tree.search_tree import Node


class Merger:
    """Merges the siblings of one search.

    Two whole steps of one parent and group are alike if their texts differ in the white space around them at most, and
    both ended the answer, or both did not. The older one stays, with its own token ids, whichever was finished first:
    which one that is does not depend on how fast each was written. The younger one stays if it is already in use.

    Args:
        journal: The search's.
    """

    def __init__(self, journal: EventLog) -> None:
        self._journal = journal
        self._claimed: set[int] = set()

    def claim(self, node: Node) -> None:
        """Note that a strategy has been given `node`, which is therefore not merged any more."""
        self._claimed.add(node.id)

    def merge(self, node: Node) -> Node | None:
        """Merge `node`, which has just been finished, with a sibling that is like it.

        Returns:
            The one of the two that was merged into the other; None if there is none.
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
        """Whether somebody has made something of the step: the strategy, or a person."""
        decided = node.kept or node.pruned or node.cut or node.id in self._journal.tree.restored
        return decided or bool(node.children) or node.id in self._claimed


def _said(node: Node) -> tuple[str, str | None]:
    """What a step says and how it ended: with the answer, at its limit, or so that it can be continued."""
    return node.text.strip(), "ended" if node.terminal else node.finish
