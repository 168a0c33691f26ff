"""The rows of a view of the entire tree: one per visible step, depth first, counted so that each is found quickly.

Pure, and made for trees that grow while they are viewed: a few numbers per node, a walk to the root for each new one,
and no recursion, because a path may be deeper than Python's stack.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tts_tui.tree.events import ROOT
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui.row_counts import BLOCK, OPEN, SHOWN, Order, RowCounts, Siblings

__all__ = ["Order", "TreeLine", "TreeRows"]

_WIDE = 32
"""Number of children from which on their rows are also summed by blocks."""
_RAILS = 512
"""Number of characters of rails that are kept: more than any terminal shows."""


class TreeLine(NamedTuple):
    """A row of the tree.

    Attributes:
        id: The id of the step.
        rails: The lines that connect it to its parent, such as `│ ├─`.
        hidden: The number of steps folded away below it.
    """

    id: int
    rails: str
    hidden: int


class _Place(NamedTuple):
    """The position of a walk: a step, its index among its siblings, its rails, and the rails of its children."""

    id: int
    place: int
    rails: str
    below: str


class TreeRows(RowCounts):
    """The rows of a tree, some of them folded away.

    The root is the first row and always open. A step that duplicates a sibling has no row, nor has a failed attempt
    that was retried. A step folds when it is pruned, and opens again when it is restored; the user can always override
    both. An only child stays in its parent's column, so that rails grow only where a tree branches.

    Args:
        tree: The tree, whose present nodes are counted at once.

    Attributes:
        tree: The tree.
        order: The order of siblings: by creation, or best score first.
        still: Whether further changes of the tree are ignored.
    """

    # -- user actions ------------------------------------------------------------------------------------------------

    def set_order(self, order: Order) -> None:
        """Change the order of siblings."""
        self.order = order
        self._siblings.clear()

    def is_open(self, id: int) -> bool:
        """Return whether the children of a step have rows, provided that it has a row itself."""
        return bool(self._flags[id] & OPEN)

    def children(self, id: int) -> list[int]:
        """Return the children of a step that have rows when it is open, in display order."""
        return [child for child in self._ids(id) if self._flags[child] & SHOWN]

    def foldable(self, id: int) -> bool:
        """Return whether a step has anything to fold."""
        return id != ROOT and self._kids[id] > 0

    def times(self, id: int) -> int:
        """Return the number of samples with the text of a step; the others are merged into it."""
        return 1 + self._twins.get(id, 0)

    def open(self, id: int) -> None:
        """Open a step."""
        if not self._flags[id] & OPEN:
            self._set_open(id, True)
            self._choices[id] = True

    def close(self, id: int) -> None:
        """Fold everything below a step, if there is anything."""
        if self.foldable(id) and self._flags[id] & OPEN:
            self._set_open(id, False)
            self._choices[id] = False

    def toggle(self, id: int) -> None:
        """Open a folded step, or fold an open one."""
        if self._flags[id] & OPEN:
            self.close(id)
        else:
            self.open(id)

    def reveal(self, id: int) -> None:
        """Open the ancestors of a step."""
        while ROOT < id < len(self._flags):
            id = self._parent[id]
            self.open(id)

    def take_choices(self, other: TreeRows) -> None:
        """Adopt the order, and the steps that the user opened and folded, from another view of the same run."""
        self._choices = dict(other._choices)
        self.set_order(other.order)
        for id, open in self._choices.items():
            if id < len(self._flags) and bool(self._flags[id] & OPEN) != open:
                self._set_open(id, open)

    def frozen(self) -> TreeRows:
        """Return a copy of the current rows for a frozen view: later changes of the tree do not affect it."""
        rows = TreeRows(SearchTree())
        rows.tree, rows.order, rows.still = self.tree, self.order, True
        rows._flags, rows._parent, rows._rows = self._flags[:], self._parent[:], self._rows[:]
        rows._steps, rows._kids, rows._place = self._steps[:], self._kids[:], self._place[:]
        rows._twins = dict(self._twins)
        return rows

    def thaw(self, frozen: TreeRows) -> None:
        """Adopt the user's folds and order from rows that were `frozen`."""
        if frozen.order != self.order:
            self.set_order(frozen.order)
        for id, open in frozen._choices.items():
            if id < len(self._flags):
                (self.open if open else self.close)(id)

    # -- rows --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of rows."""
        return 1 + self._rows[ROOT] if self._flags else 0

    def visible(self, id: int) -> int:
        """Return the step itself if it has a row, else the sibling it duplicates, or its nearest visible ancestor."""
        node = self.tree.nodes[id]
        while node.id >= len(self._flags) and node.parent is not None:  # not counted yet
            node = node.parent
        while node.merged_into is not None and node.merged_into < node.id:
            node = self.tree.nodes[node.merged_into]
        nearest = step = node.id
        while step != ROOT:
            parent = self._parent[step]
            if not self._flags[step] & SHOWN or not self._flags[parent] & OPEN:
                nearest = parent
            step = parent
        return nearest

    def index(self, id: int) -> int | None:
        """Return the row of a step; None if it has none."""
        row = 0
        if id >= len(self._flags):
            return None
        while id != ROOT:
            parent = self._parent[id]
            if not self._flags[id] & SHOWN or not self._flags[parent] & OPEN:
                return None
            row += 1 + self._before(parent, id)
            id = parent
        return row

    def at(self, y: int) -> int:
        """Return the step in a row.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= y < len(self):
            raise IndexError(f"row {y} of {len(self)}")
        return self._walk_to(y)[-1].id

    def window(self, top: int, height: int) -> list[TreeLine]:
        """Return the rows from `top` on, at most `height`."""
        top = max(top, 0)
        count = min(height, len(self) - top)
        if count <= 0:
            return []
        places = self._walk_to(top)
        lines = [self._line(places[-1])]
        while len(lines) < count:
            here = places[-1]
            following = self._next(here, 0) if self._flags[here.id] & OPEN else None
            while following is None:
                here = places.pop()
                following = self._next(places[-1], here.place + 1)
            places.append(following)
            lines.append(self._line(following))
        return lines

    def walk(self) -> Iterator[int]:
        """Yield all steps that have a row when everything is open, in row order."""
        left = [ROOT] if self._flags else []
        while left:
            id = left.pop()
            yield id
            if self._kids[id]:
                left += reversed(self.children(id))

    def _line(self, place: _Place) -> TreeLine:
        hidden = 0 if self._flags[place.id] & OPEN else self._steps[place.id]
        return TreeLine(place.id, place.rails, hidden)

    def _enter(self, parent: _Place, id: int, place: int) -> _Place:
        above = parent.below
        if self._kids[parent.id] == 1:
            return _Place(id, place, above, above)
        if id == self._last(parent.id):
            return _Place(id, place, above + "└─", (above + "  ")[-_RAILS:])
        return _Place(id, place, above + "├─", (above + "│ ")[-_RAILS:])

    def _walk_to(self, y: int) -> list[_Place]:
        """Return the path from the root to row `y`."""
        places = [_Place(ROOT, 0, "", "")]
        while y:
            id, place, y = self._child_at(places[-1].id, y - 1)
            places.append(self._enter(places[-1], id, place))
        return places

    def _child_at(self, parent: int, y: int) -> tuple[int, int, int]:
        """Return the child that contains row `y` below `parent`, its index, and the row relative to the child."""
        only = self.tree.nodes[parent].children
        if len(only) == 1:  # the usual case in a deep path
            return only[0].id, 0, y
        siblings, place = self._siblings.get(parent), 0
        if siblings is not None and siblings.sums is not None:
            for block, rows in enumerate(siblings.sums):
                if y < rows:
                    place = block * BLOCK
                    break
                y -= rows
        ids = self._ids(parent)
        while y >= (rows := self._share(ids[place])):
            y -= rows
            place += 1
        return ids[place], place, y

    def _next(self, parent: _Place, place: int) -> _Place | None:
        """Return the first child with a row from index `place` on."""
        if not self._kids[parent.id]:
            return None
        ids = self._ids(parent.id)
        for number in range(place, len(ids)):
            if self._flags[ids[number]] & SHOWN:
                return self._enter(parent, ids[number], number)
        return None

    def _before(self, parent: int, id: int) -> int:
        """Return the number of rows of the siblings before a step."""
        if self._kids[parent] == 1:
            return 0
        ids = self._ids(parent)
        siblings = self._siblings.get(parent)
        if siblings is None or siblings.sums is None:
            return sum(self._share(other) for other in ids[: ids.index(id)])
        block, rest = divmod(self._place[id], BLOCK)
        start = block * BLOCK
        return sum(siblings.sums[:block]) + sum(self._share(ids[start + place]) for place in range(rest))

    def _last(self, parent: int) -> int:
        """Return the last child that has a row."""
        return next(id for id in reversed(self._ids(parent)) if self._flags[id] & SHOWN)

    def _ids(self, parent: int) -> Sequence[int]:
        """Return all children of a step, in display order."""
        siblings = self._siblings.get(parent)
        if siblings is not None:
            return siblings.ids
        nodes = self.tree.nodes[parent].children
        count = len(self._flags)
        ids = [node.id for node in nodes if node.id < count]
        if len(ids) < 2 or (self.order == "born" and len(ids) < _WIDE):
            return ids
        if self.order == "score":
            ids.sort(key=self._rank)
        sums = None
        for place, id in enumerate(ids):
            self._place[id] = place
        if len(ids) >= _WIDE:
            shares = [self._share(id) for id in ids]
            sums = [sum(shares[start : start + BLOCK]) for start in range(0, len(ids), BLOCK)]
        self._siblings[parent] = Siblings(array("i", ids), sums)
        return self._siblings[parent].ids

    def _rank(self, id: int) -> tuple[float, int]:
        score = self.tree.nodes[id].score
        return (1.0 if score is None else -score, id)
