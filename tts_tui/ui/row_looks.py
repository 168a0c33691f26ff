"""The looks of the visible rows of a tree, and text search in it. Pure: a tree and its folds in, rows out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from rich.style import Style
from rich.text import Text

from tts_tui.displays.frame import Heat, RowView, fold_column, node_line, row_view
from tts_tui.displays.outline import RECENT
from tts_tui.tree.events import ROOT
from tts_tui.tree.search_tree import Node, SearchTree
from tts_tui.ui.tree_rows import TreeLine, TreeRows

Value = Literal["score", "min", "prod"]

_UNDERLINE = Style(underline=True)


class Shown(Protocol):
    """The input of a view: a tree, its rows, and the steps that are being generated."""

    @property
    def tree(self) -> SearchTree:
        """The tree."""

    @property
    def folding(self) -> TreeRows:
        """The rows of the tree."""

    @property
    def writing(self) -> dict[int, None]:
        """Ids of the steps that are being generated."""


class StyledRow(NamedTuple):
    """A row with everything that decides its look: equal rows need no repaint.

    Attributes:
        id: The id of the step.
        look: The look of the step.
        cursor: Whether the cursor is on it.
        found: Whether it contains the text that is searched for.
        spin: The frame of its spinner, if it is being generated.
    """

    id: int
    look: RowView
    cursor: bool
    found: bool
    spin: int

    def mark(self, width: int, heat: Heat) -> range:
        """Return the columns of the fold mark; empty if the row has none."""
        start = fold_column(self.look.rails, width, heat)
        return range(start, start + 2 if self.look.fold else start)


class Looks:
    """A reader of rows, with their looks.

    Args:
        shown: The tree to read.

    Attributes:
        folding: The rows: the current ones, or those at the moment of freezing.
        value: The number shown: the step's own score, or the minimum or the product over its path. A step without a
            score has none.
        needle: The text that is searched for, in lower case.
    """

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.folding = shown.folding
        self.value: Value = "score"
        self.needle = ""
        self._kept: dict[int, RowView] | None = None

    def freeze(self, rows: Iterable[StyledRow]) -> None:
        """Freeze the rows: steps keep the look they have in `rows`, others the look when they are first shown."""
        if self._kept is None:
            self.folding = self.shown.folding.frozen()
        self._kept = {row.id: row.look for row in rows}

    def thaw(self) -> None:
        """Return to the live state, keeping what the user has folded in the meantime."""
        if self._kept is not None:
            frozen, self.folding, self._kept = self.folding, self.shown.folding, None
            self.folding.sync()
            self.folding.thaw(frozen)

    def rows(self, top: int, height: int, cursor: int | None, spin: int) -> list[StyledRow]:
        """Return the rows from `top` on, at most `height`."""
        values: dict[int, float] = {}
        return [self._row(line, cursor, spin, values) for line in self.folding.window(top, height)]

    def _row(self, line: TreeLine, cursor: int | None, spin: int, values: dict[int, float]) -> StyledRow:
        id, folding = line.id, self.folding
        node = self.shown.tree.nodes[id]
        fold = "" if not folding.foldable(id) else "▾" if folding.is_open(id) else "▸"
        if self._kept is not None and id in self._kept:
            seen = self._kept[id]._replace(rails=line.rails, hidden=line.hidden, fold=fold)
        else:
            problem = self.shown.tree.start.problem if id == ROOT else ""
            value = path_value(node, self.value, values)
            seen = row_view(
                node, line.rails, folding.times(id), problem=problem, value=value, hidden=line.hidden, fold=fold
            )
            if self._kept is not None:
                self._kept[id] = seen
        return StyledRow(id, seen, id == cursor, self.matches(node), spin if seen.state == "writing" else 0)

    def grown(self, row: StyledRow, spin: int) -> StyledRow:
        """Return the row of a step that is still being generated with its current text; any other row unchanged."""
        node = self.shown.tree.nodes[row.id]
        if row.look.state != "writing" or node.state != "writing":
            return row
        return row._replace(look=row.look._replace(text=node.text), spin=spin)

    def draw(self, row: StyledRow, width: int, heat: Heat) -> Text:
        """Return the line of a row, at most `width` columns wide."""
        line = node_line(row.look, width, tick=row.spin, heat=heat)
        if row.found:
            self._underline(line, fold_column(row.look.rails, width, heat))
        line.truncate(width, overflow="ellipsis")
        return line

    def _underline(self, line: Text, start: int) -> None:
        """Underline the match, or the entire step if the match is outside the part that is drawn."""
        plain, place, drawn = line.plain.lower(), start, False
        while self.needle and (place := plain.find(self.needle, place)) >= 0:
            line.stylize(_UNDERLINE, place, place + len(self.needle))
            place, drawn = place + len(self.needle), True
        if not drawn:
            line.stylize(_UNDERLINE, start)

    def matches(self, node: Node) -> bool:
        """Return whether the text or the answer of a step contains the text that is searched for."""
        needle = self.needle
        return bool(needle) and (needle in node.text.lower() or (node.solved and needle in (node.answer or "").lower()))

    def find(self, text: str, cursor: int | None, backwards: bool) -> tuple[int | None, int, int]:
        """Find the next step with `text`, from the cursor on in row order, with folded steps and wrap-around.

        A text that is searched for the first time may also be found at the cursor.

        Returns:
            The step, its 1-based position among the matches, and their number; None and zeros if there are none.
        """
        fresh, self.needle = text.lower() != self.needle, text.lower()
        found: list[int] = []
        before, here = 0, False
        if self.needle:
            nodes = self.shown.tree.nodes
            for id in self.folding.walk():
                matches = self.matches(nodes[id])
                if id == cursor:
                    before, here = len(found), matches
                if matches:
                    found.append(id)
        if not found:
            return None, 0, 0
        place = before + (here and not fresh)
        if backwards:
            place = before - (not (here and fresh))
        place %= len(found)
        return found[place], place + 1, len(found)


def path_value(node: Node, value: Value, known: dict[int, float]) -> float | None:
    """Return the number shown for a step; `known` caches those of paths, and is extended."""
    if value == "score" or node.score is None:
        return node.score
    steps, step = [], node
    while step.parent is not None and step.id not in known:
        steps.append(step)
        step = step.parent
    number = known.get(step.id, 1.0)
    for step in reversed(steps):
        if step.score is not None:
            number = min(number, step.score) if value == "min" else number * step.score
        known[step.id] = number
    return number


def best(tree: SearchTree) -> Node | None:
    """Return the best step of a search: the winner, else the best solution, else the best of the newest steps."""
    if tree.finished is not None and tree.finished.node is not None:
        return tree.nodes[tree.finished.node]
    for some in (tree.solutions, tree.nodes[max(1, len(tree.nodes) - RECENT) :]):
        standing = [node for node in some if node.state == "done" and not node.pruned and node.merged_into is None]
        standing.sort(key=lambda node: (node.value, node.id), reverse=True)
        for node in standing:
            if not tree.is_cut(node):
                return node
    return None
