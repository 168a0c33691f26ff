"""What visible rows of a tree look like, and where a text stands in it. Pure: a tree and its folding in, rows out."""

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
    """What a view shows: a tree, its rows, and the steps that are being written."""

    @property
    def tree(self) -> SearchTree:
        """The tree."""

    @property
    def folding(self) -> TreeRows:
        """Its rows."""

    @property
    def writing(self) -> dict[int, None]:
        """Ids of the steps that are being written."""


class StyledRow(NamedTuple):
    """A row with all that decides how it looks: equal rows need no painting.

    Attributes:
        id: The step.
        look: How the step looks.
        cursor: Whether the cursor is on it.
        found: Whether it has the text that is looked for.
        spin: Picture of its spinner, if it is being written.
    """

    id: int
    look: RowView
    cursor: bool
    found: bool
    spin: int

    def mark(self, width: int, heat: Heat) -> range:
        """The columns of the mark that folds it; empty if it has none."""
        start = fold_column(self.look.rails, width, heat)
        return range(start, start + 2 if self.look.fold else start)


class Looks:
    """Reads rows.

    Args:
        shown: What is shown.

    Attributes:
        folding: The rows: those of what is shown, or those that they were when they were frozen.
        value: Which number is shown: the step's own score, or the least or the product of its path's. A step without a
            score has none.
        needle: The text that is looked for, in small letters.
    """

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.folding = shown.folding
        self.value: Value = "score"
        self.needle = ""
        self._kept: dict[int, RowView] | None = None

    def freeze(self, rows: Iterable[StyledRow]) -> None:
        """From now on rows stay; steps look as they do in `rows`, others as they do when they are seen first."""
        if self._kept is None:
            self.folding = self.shown.folding.frozen()
        self._kept = {row.id: row.look for row in rows}

    def thaw(self) -> None:
        """From now on everything is as it is; what was folded by hand meanwhile stays so."""
        if self._kept is not None:
            frozen, self.folding, self._kept = self.folding, self.shown.folding, None
            self.folding.sync()
            self.folding.thaw(frozen)

    def rows(self, top: int, height: int, cursor: int | None, spin: int) -> list[StyledRow]:
        """The rows from `top` on, at most `height`."""
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
        """The row of a step that is still being written, as its text is by now; any other row as it is."""
        node = self.shown.tree.nodes[row.id]
        if row.look.state != "writing" or node.state != "writing":
            return row
        return row._replace(look=row.look._replace(text=node.text), spin=spin)

    def draw(self, row: StyledRow, width: int, heat: Heat) -> Text:
        """The line of a row, at most `width` columns."""
        line = node_line(row.look, width, tick=row.spin, heat=heat)
        if row.found:
            self._underline(line, fold_column(row.look.rails, width, heat))
        line.truncate(width, overflow="ellipsis")
        return line

    def _underline(self, line: Text, start: int) -> None:
        """Marks what was found, or the whole step if that is not in the part of it that is drawn."""
        plain, place, drawn = line.plain.lower(), start, False
        while self.needle and (place := plain.find(self.needle, place)) >= 0:
            line.stylize(_UNDERLINE, place, place + len(self.needle))
            place, drawn = place + len(self.needle), True
        if not drawn:
            line.stylize(_UNDERLINE, start)

    def matches(self, node: Node) -> bool:
        """Whether a step has the text that is looked for, or its answer does."""
        needle = self.needle
        return bool(needle) and (needle in node.text.lower() or (node.solved and needle in (node.answer or "").lower()))

    def find(self, text: str, cursor: int | None, backwards: bool) -> tuple[int | None, int, int]:
        """The next step that has `text`, from the cursor on in the order of rows, folded ones too, and round the end.

        A text that was not looked for before may also be found where the cursor is.

        Returns:
            The step, its place among those found, counted from 1, and how many they are; None and zeros if none.
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
    """The number that is shown for a step; `known` are those of paths that were worked out already, and is added to."""
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
    """The step that a search is at its best with: the winner, else the best solution, else the best of the newest."""
    if tree.finished is not None and tree.finished.node is not None:
        return tree.nodes[tree.finished.node]
    for some in (tree.solutions, tree.nodes[max(1, len(tree.nodes) - RECENT) :]):
        standing = [node for node in some if node.state == "done" and not node.pruned and node.merged_into is None]
        standing.sort(key=lambda node: (node.value, node.id), reverse=True)
        for node in standing:
            if not tree.is_cut(node):
                return node
    return None
