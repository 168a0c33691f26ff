"""Row counts of every step of a tree, kept up to date as the tree grows. Pure.

Keeps a few numbers per node, walks to the root for each new one, and does not recurse: paths may be deeper than
Python's stack.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tts_tui.tree.events import ROOT
from tts_tui.tree.search_tree import Node, SearchTree

Order = Literal["born", "score"]

SHOWN, OPEN, _PRUNED, _MERGED = 1, 2, 4, 8
BLOCK = 32
"""Number of children whose rows are summed as a block, where there are many."""
_BULK = 1000
"""Number of new nodes from which on everything is recounted, which is then cheaper than a walk to the root for each."""


@dataclass(slots=True)
class Siblings:
    """The children of one step in display order, with the sums of their rows by block if there are many."""

    ids: array[int]
    sums: list[int] | None = None


class RowCounts:
    """Row counts of a tree: which steps have a row, which are open, and how many rows are below each.

    Args:
        tree: The tree, whose present nodes are counted at once.

    Attributes:
        tree: The tree.
        order: The order of siblings: by creation, or best score first.
        still: Whether further changes of the tree are ignored.
    """

    def __init__(self, tree: SearchTree) -> None:
        self.tree = tree
        self.order: Order = "born"
        self.still = False
        self._flags = bytearray()
        self._parent = array("i")
        self._rows = array("i")  # rows below a step if it were open
        self._steps = array("i")  # steps below it that would have a row if all were open
        self._kids = array("i")  # children with a row
        self._place = array("i")  # position among its siblings, where those are in _siblings
        self._siblings: dict[int, Siblings] = {}
        self._twins: dict[int, int] = {}
        self._failed: dict[tuple[int, int, int], int] = {}
        self._stale: set[int] = set()
        self._choices: dict[int, bool] = {}
        self.sync()

    @property
    def known(self) -> int:
        """Number of nodes of the tree that are counted."""
        return len(self._flags)

    # -- following the tree ------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Count the nodes that the tree has gained since the last call."""
        known = len(self._flags)
        if self.still or (known == len(self.tree.nodes) and not self._stale):
            return
        if len(self.tree.nodes) - known >= _BULK:
            self._add_all(self.tree.nodes[known:])
        else:
            for node in self.tree.nodes[known:]:
                self._add(node)
        stale, self._stale = self._stale, set()
        for id in sorted(stale):
            self.changed(id)

    def changed(self, id: int) -> None:
        """Read one node again after it was pruned, restored, merged, failed or scored."""
        if ROOT < id < len(self._flags) and not self.still:
            node = self.tree.nodes[id]
            before, now = self._flags[id], self._read(node)
            if self.order == "score":
                self._siblings.pop(self._parent[id], None)
            if (before ^ now) & _PRUNED:
                self._choices.pop(id, None)
            if (before ^ now) & OPEN:
                self._set_open(id, bool(now & OPEN))
            if (before ^ now) & SHOWN:
                self._set_shown(id, bool(now & SHOWN))
            self._flags[id] = now

    def _read(self, node: Node) -> int:
        """Return the current flags of a node, and record the other facts that are kept about it."""
        before = self._flags[node.id]
        flags = before & ~SHOWN
        if node.pruned and not before & _PRUNED:
            flags = (flags | _PRUNED) & ~OPEN
        elif before & _PRUNED and not node.pruned:
            flags = (flags | OPEN) & ~_PRUNED
        if node.merged_into is not None:
            if not before & _MERGED:
                brought = 1 + self._twins.pop(node.id, 0)
                self._twins[node.merged_into] = self._twins.get(node.merged_into, 0) + brought
            return flags | _MERGED
        return flags if self._tried_again(node) else flags | SHOWN

    def _read_first(self, node: Node) -> int:
        flags = self._read(node)
        if node.id in self._choices:
            return flags | OPEN if self._choices[node.id] else flags & ~OPEN
        return flags

    def _tried_again(self, node: Node) -> bool:
        if node.state != "failed" or node.parent is None:
            return False
        for other in reversed(node.parent.children):
            if other.id <= node.id:
                break
            if other.slot == node.slot and other.group == node.group:
                return True
        self._failed[node.parent.id, node.group, node.slot] = node.id
        return False

    def _append(self, node: Node) -> None:
        self._flags.append(OPEN)
        self._parent.append(node.parent.id if node.parent is not None else ROOT)
        for column in (self._rows, self._steps, self._kids, self._place):
            column.append(0)
        if self._failed and node.parent is not None:
            earlier = self._failed.pop((node.parent.id, node.group, node.slot), None)
            if earlier is not None:
                self._stale.add(earlier)

    def _add(self, node: Node) -> None:
        self._append(node)
        id, parent = node.id, self._parent[node.id]
        flags = self._flags[id] = self._read_first(node)
        siblings = self._siblings.get(parent)
        if siblings is not None and self.order == "born":
            self._place[id] = len(siblings.ids)
            siblings.ids.append(id)
            if siblings.sums is not None and self._place[id] % BLOCK == 0:
                siblings.sums.append(0)
        elif siblings is not None:
            del self._siblings[parent]
        if flags & SHOWN and id != ROOT:
            self._kids[parent] += 1
            self._bump(id, 1, 1)

    def _add_all(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._append(node)
            self._flags[node.id] = self._read_first(node)
        for earlier in self._stale:
            self._flags[earlier] = self._read(self.tree.nodes[earlier])
        self._stale.clear()
        self._siblings.clear()
        count = len(self._flags)
        for column in (self._rows, self._steps, self._kids):
            column[:] = array("i", bytes(4 * count))
        for id in range(count - 1, ROOT, -1):  # children have higher ids than their parents
            if self._flags[id] & SHOWN:
                parent = self._parent[id]
                self._rows[parent] += self._share(id)
                self._steps[parent] += 1 + self._steps[id]
                self._kids[parent] += 1

    # -- counts ------------------------------------------------------------------------------------------------------

    def _share(self, id: int) -> int:
        """Return the number of rows of a step and everything below it."""
        flags = self._flags[id]
        if not flags & SHOWN:
            return 0
        return 1 + self._rows[id] if flags & OPEN else 1

    def _bump(self, id: int, rows: int, steps: int) -> None:
        """Add rows and steps to the counts of all ancestors of a step."""
        parents, flags = self._parent, self._flags
        while id != ROOT:
            parent = parents[id]
            if rows:
                self._rows[parent] += rows
                siblings = self._siblings.get(parent)
                if siblings is not None and siblings.sums is not None:
                    siblings.sums[self._place[id] // BLOCK] += rows
                if not flags[parent] & OPEN:
                    rows = 0
            self._steps[parent] += steps
            if not flags[parent] & SHOWN or not (rows or steps):
                return
            id = parent

    def _set_open(self, id: int, open: bool) -> None:
        self._flags[id] ^= OPEN
        if self._flags[id] & SHOWN and self._rows[id]:
            self._bump(id, self._rows[id] if open else -self._rows[id], 0)

    def _set_shown(self, id: int, shown: bool) -> None:
        sign = 1 if shown else -1
        rows = 1 + (self._rows[id] if self._flags[id] & OPEN else 0)
        self._flags[id] ^= SHOWN
        self._kids[self._parent[id]] += sign
        self._bump(id, sign * rows, sign * (1 + self._steps[id]))
