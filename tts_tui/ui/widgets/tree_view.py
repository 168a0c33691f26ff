"""The whole search tree as rows that scroll: a pure pull from a tree that grows meanwhile.

Work a pull is bounded by the screen: what was counted (`ui/folding.py`) gives the visible rows, and only those that
look another way than they were painted are painted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tts_tui.events import ROOT
from tts_tui.tree import Node, SearchTree
from tts_tui.ui.folding import Folding, Line, Order
from tts_tui.ui.frame import Heat, Look, fold_column, look, node_line

T = TypeVar("T")
Follow = Literal["off", "newest", "best"]
Value = Literal["score", "min", "prod"]

FOLLOWS: tuple[Follow, ...] = ("off", "newest", "best")
HEATS: tuple[Heat, ...] = ("bar", "colour", "digits")
ORDERS: tuple[Order, ...] = ("born", "score")
VALUES: tuple[Value, ...] = ("score", "min", "prod")
NARROW = 40
"""Columns below which a bar would leave too little for the text."""
SPIN = 3
"""Pulls that a spinner takes for one turn of its picture."""
RECENT = 400
"""Newest steps among which the best one is looked for while there is no solution."""
_UNDERLINE = Style(underline=True)


class Shown(Protocol):
    """What a view shows: a tree, its rows, and the steps that are being written."""

    @property
    def tree(self) -> SearchTree:
        """The tree."""

    @property
    def folding(self) -> Folding:
        """Its rows."""

    @property
    def writing(self) -> dict[int, None]:
        """Ids of the steps that are being written."""


_Key = tuple[Look, bool, bool, int]
"""All that decides how a row looks: the step, whether the cursor is on it, whether it was found, the spinner."""


def best(tree: SearchTree) -> Node | None:
    """The step that a search is at its best with: the winner, else the best solution, else the best recent step."""
    if tree.finished is not None and tree.finished.node is not None:
        return tree.nodes[tree.finished.node]
    standing = [node for node in tree.solutions if not node.pruned]
    if not standing:
        recent = tree.nodes[1:][-RECENT:] if len(tree.nodes) <= RECENT else tree.nodes[-RECENT:]
        standing = [node for node in recent if node.state == "done" and not node.pruned]
    return max(standing, key=lambda node: (node.value, node.id), default=None)


class TreeView(ScrollView, can_focus=True):
    """A search tree, one row a step.

    The cursor and the scroll position hold on to steps, not to rows: what grows above moves nothing.

    Attributes:
        cursor_node: The step that the cursor is on; None before there is one.
        follow: What the cursor follows by itself, until a hand moves it.
        frozen: Whether the view stands still while the search goes on.
        heat: How scores are shown.
        value: Which number is shown: the step's own score, or the least or the product of its path's.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"tree-view--cursor"}
    DEFAULT_CSS = """
    TreeView { overflow-x: hidden; overflow-y: auto; background: $surface; color: $foreground; }
    TreeView > .tree-view--cursor { background: $block-cursor-blurred-background; text-style: bold; }
    TreeView:focus > .tree-view--cursor { text-style: bold reverse; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, text, show=False, id=f"tree.{id}", tooltip=tooltip)
        for key, action, text, id, tooltip in (
            ("down,j", "move(1)", "Down", "down", "To the next row"),
            ("up,k", "move(-1)", "Up", "up", "To the row before"),
            ("pagedown", "page(1)", "Page down", "page-down", "One screen down"),
            ("pageup", "page(-1)", "Page up", "page-up", "One screen up"),
            ("home,g", "first", "First", "first", "To the prompt"),
            ("end,G", "last", "Last", "last", "To the last row"),
            ("left", "left", "Fold", "left", "Fold the step, or go to the step before it"),
            ("right", "right", "Open", "right", "Open the step, or go to its first continuation"),
            ("enter", "enter", "Fold or open", "enter", "Fold or open the step; show a step without continuations"),
        )
    ]

    follow: reactive[Follow] = reactive[Follow]("off", repaint=False)
    frozen: reactive[bool] = reactive(False, repaint=False)
    heat: reactive[Heat] = reactive[Heat]("bar", repaint=False)
    value: reactive[Value] = reactive[Value]("score", repaint=False)

    class Selected(Message):
        """The cursor has moved.

        Args:
            view: Whose cursor.
            node: The step that it is on now.
        """

        def __init__(self, view: TreeView, node: int) -> None:
            super().__init__()
            self.view = view
            self.node = node

        @property
        def control(self) -> TreeView:
            """The view, for `@on`."""
            return self.view

    class Opened(Selected):
        """Somebody wants to see a step that has nothing to fold."""

    def __init__(
        self, *, name: str | None = None, id: str | None = None, classes: str | None = None, disabled: bool = False
    ) -> None:
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.cursor_node: int | None = None
        self._shown: Shown | None = None
        self._lines: list[Line] = []
        self._keys: list[_Key] = []
        self._painted: tuple[int, int, int] = (-1, -1, -1)  # first row, width, height
        self._kept: dict[int, Look] = {}
        self._spin = 0
        self._needle = ""
        self._strips: LRUCache[Any, Strip] = LRUCache(256)

    # -- what is shown -----------------------------------------------------------------------------------------------

    def show(self, shown: Shown) -> None:
        """Shows a run, from its first row on."""
        if self._shown is not None:
            self._shown.folding.held = False
        self._shown = shown
        self.frozen = False
        self.cursor_node = None
        self._needle = ""
        self._lines, self._keys = [], []
        self._painted = (-1, -1, -1)
        self._strips.clear()
        self._scroll(0)
        self._take_in()
        self.refresh()

    @property
    def waiting(self) -> int:
        """Steps that came since the view was frozen."""
        return len(self._shown.tree.nodes) - self._shown.folding.known if self._shown is not None else 0

    def pull(self, tick: int) -> int:
        """Brings the view up to date; to be called about ten times a second, with a number that counts up.

        Returns:
            How many rows are painted again.
        """
        if self._shown is None or self.frozen:
            return 0
        self._spin = tick // SPIN
        self._take_in()
        return self._repaint()

    def _take_in(self) -> None:
        """Takes in what the tree has more, and keeps in its place what somebody looks at."""
        shown = self._shown
        if shown is None:
            return
        folding, anchor = shown.folding, self._anchor()
        folding.sync()
        if not len(folding):
            return
        self._measure()
        if self.cursor_node is None:
            self._set_cursor(ROOT)
        else:
            self._set_cursor(folding.visible(self.cursor_node))
        followed = {"off": None, "newest": shown.tree.newest, "best": None}[self.follow]
        if self.follow == "best":
            followed = best(shown.tree)
        if followed is not None:
            self._set_cursor(folding.visible(followed.id))
            self._bring_into_view(margin=2)
        elif anchor is not None:
            row = folding.index(folding.visible(anchor[0]))
            if row is not None and row - anchor[1] != self.scroll_offset.y:
                self._scroll(row - anchor[1])

    def _anchor(self) -> tuple[int, int] | None:
        """The step that must not move, and its line on the screen: the cursor's if it is seen, else the first one."""
        if not self._lines or self._painted[0] != self.scroll_offset.y:
            return None
        for y, line in enumerate(self._lines):
            if line.id == self.cursor_node:
                return line.id, y
        return self._lines[0].id, 0

    def _measure(self) -> None:
        """Sets the height of what can be scrolled; a layout, which is costly, only if the scrollbar comes or goes."""
        rows = len(self._shown.folding) if self._shown is not None else 0
        before, size = self.virtual_size.height, Size(0, rows)
        if before == rows:
            return
        height = self.container_size.height
        if (before > height) != (rows > height):
            self.virtual_size = size
            return
        self.set_reactive(Widget.virtual_size, size)
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = rows
        if self.scroll_offset.y > self.max_scroll_y:
            self._scroll(self.max_scroll_y)

    def _scroll(self, top: int) -> None:
        if self.is_attached:
            self.scroll_to(y=max(0, min(top, self.max_scroll_y)), animate=False, force=True)

    def _set_cursor(self, id: int) -> None:
        if id != self.cursor_node:
            self.cursor_node = id
            self.post_message(self.Selected(self, id))

    def _bring_into_view(self, margin: int = 0) -> None:
        """Scrolls as far as the cursor's row needs it; far away rows come to the middle."""
        row = None if self._shown is None or self.cursor_node is None else self._shown.folding.index(self.cursor_node)
        height, top = self.size.height, self.scroll_offset.y
        if row is None or not height:
            return
        margin = min(margin, (height - 1) // 2)
        if not top - height < row < top + 2 * height:
            self._scroll(row - height // 2)
        elif row < top + margin:
            self._scroll(row - margin)
        elif row >= top + height - margin:
            self._scroll(row - height + 1 + margin)

    # -- painting ----------------------------------------------------------------------------------------------------

    def _repaint(self) -> int:
        """Has those rows painted that look another way than they did."""
        before, keys = self._keys, self._look_at()
        top = self._painted[0]
        if before is keys:
            return 0
        rows = [y for y in range(max(len(before), len(keys))) if before[y : y + 1] != keys[y : y + 1]]
        for y in rows:
            self.refresh_line(top + y)
        return len(rows)

    def _look_at(self) -> list[_Key]:
        """Reads the visible rows."""
        shown = self._shown
        top, (width, height) = self.scroll_offset.y, self.size
        self._painted = (top, width, height)
        self._lines = shown.folding.window(top, height) if shown is not None else []
        values: dict[int, float] = {}
        self._keys = [self._key(line, values) for line in self._lines]
        return self._keys

    def _key(self, line: Line, values: dict[int, float]) -> _Key:
        assert self._shown is not None
        node, folding = self._shown.tree.nodes[line.id], self._shown.folding
        fold = "" if not folding.foldable(line.id) else "▾" if folding.is_open(line.id) else "▸"
        if self.frozen and line.id in self._kept:
            seen = self._kept[line.id]._replace(rails=line.rails, hidden=line.hidden, fold=fold)
        else:
            seen = look(
                node,
                line.rails,
                folding.times(line.id),
                problem=self._shown.tree.start.problem if line.id == ROOT else "",
                value=self._value(node, values),
                hidden=line.hidden,
                fold=fold,
            )
            if self.frozen:
                self._kept[line.id] = seen
        spin = self._spin if seen.state == "writing" else 0
        return seen, line.id == self.cursor_node, self._matches(node), spin

    def _value(self, node: Node, values: dict[int, float]) -> float | None:
        """The number that is shown for a step; `values` are those of paths that were worked out already."""
        if self.value == "score" or node.score is None:
            return node.score
        steps, step = [], node
        while step.parent is not None and step.id not in values:
            steps.append(step)
            step = step.parent
        value = values.get(step.id, 1.0)
        for step in reversed(steps):
            if step.score is not None:
                value = min(value, step.score) if self.value == "min" else value * step.score
            values[step.id] = value
        return value

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self.size.width
        if self._painted != (self.scroll_offset.y, width, self.size.height):
            self._look_at()
        base = self.rich_style
        if y >= len(self._keys):
            return Strip.blank(width, base)
        key = self._keys[y]
        style = base + self.get_component_rich_style("tree-view--cursor", partial=True) if key[1] else base
        cached = (key, width, self._heat, style, self._needle if key[2] else "")
        strip = self._strips.get(cached)
        if strip is None:
            strip = self._strips[cached] = self._draw(key, width, style)
        return strip

    @property
    def _heat(self) -> Heat:
        return "colour" if self.heat == "bar" and self.size.width < NARROW else self.heat

    def _draw(self, key: _Key, width: int, style: Style) -> Strip:
        seen, _, found, spin = key
        line = node_line(seen, width, tick=spin, heat=self._heat)
        if found:
            self._underline(line, fold_column(seen.rails, width, self._heat))
        line.truncate(width, overflow="ellipsis")
        line.style = style
        return Strip(line.render(self.app.console)).adjust_cell_length(width, style)

    def _underline(self, line: Text, start: int) -> None:
        """Marks what was found, or the whole step if what was found is not in the part of it that is drawn."""
        plain, place = line.plain.lower(), start
        while (place := plain.find(self._needle, place)) >= 0:
            line.stylize(_UNDERLINE, place, place + len(self._needle))
            place, start = place + len(self._needle), -1
        if start >= 0:
            line.stylize(_UNDERLINE, start)

    # -- what a person does ------------------------------------------------------------------------------------------

    def _go(self, id: int) -> None:
        """A hand moves the cursor."""
        self.follow = "off"
        self._set_cursor(id)
        self._bring_into_view()
        self._repaint()

    def _go_to_row(self, row: int) -> None:
        if self._shown is not None and len(self._shown.folding):
            folding = self._shown.folding
            self._go(folding.at(max(0, min(row, len(folding) - 1))))

    def _row(self) -> int:
        """The cursor's row."""
        if self._shown is None or self.cursor_node is None:
            return 0
        return self._shown.folding.index(self._shown.folding.visible(self.cursor_node)) or 0

    def _refold(self) -> None:
        """After something was folded, opened or ordered anew by hand."""
        if self._shown is not None and self.cursor_node is not None:
            anchor = self._anchor()
            self._measure()
            self._set_cursor(self._shown.folding.visible(self.cursor_node))
            if anchor is not None and anchor[0] == self.cursor_node:
                self._scroll(self._row() - anchor[1])
            self._bring_into_view()
            self._repaint()

    def select(self, id: int) -> None:
        """Puts the cursor on a step, and opens what hides it."""
        if self._shown is None:
            return
        folding = self._shown.folding
        folding.sync()
        folding.reveal(folding.visible(id))
        folding.reveal(id)
        self._measure()
        self._go(folding.visible(id))

    def toggle(self, id: int) -> None:
        """Folds a step or opens it; one that has nothing to fold is `Opened`."""
        if self._shown is None:
            return
        if self._shown.folding.foldable(id):
            self._shown.folding.toggle(id)
            self._refold()
        else:
            self.post_message(self.Opened(self, id))

    def action_move(self, rows: int) -> None:
        """Moves the cursor by rows."""
        self._go_to_row(self._row() + rows)

    def action_page(self, pages: int) -> None:
        """Moves the cursor by screens."""
        self._go_to_row(self._row() + pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """To the prompt."""
        self._go_to_row(0)

    def action_last(self) -> None:
        """To the last row."""
        self._go_to_row(len(self._shown.folding) - 1 if self._shown is not None else 0)

    def action_left(self) -> None:
        """Folds the step, or goes to the one before it."""
        if self._shown is None or self.cursor_node is None:
            return
        self.follow = "off"
        folding, node = self._shown.folding, self._shown.tree.nodes[self.cursor_node]
        if folding.foldable(node.id) and folding.is_open(node.id):
            self.toggle(node.id)
        elif node.parent is not None:
            self._go(node.parent.id)

    def action_right(self) -> None:
        """Opens the step, or goes to its first continuation."""
        if self._shown is None or self.cursor_node is None:
            return
        self.follow = "off"
        folding = self._shown.folding
        children = folding.children(self.cursor_node)
        if children and not folding.is_open(self.cursor_node):
            self.toggle(self.cursor_node)
        elif children:
            self._go(children[0])

    def action_enter(self) -> None:
        """Folds the step or opens it."""
        if self.cursor_node is not None:
            self.follow = "off"
            self.toggle(self.cursor_node)

    def on_click(self, event: Click) -> None:
        """Selects a step; on its mark, or twice, folds or opens it."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y >= len(self._lines):
            return
        line = self._lines[offset.y]
        self._go(line.id)
        column = fold_column(line.rails, self.size.width, self._heat)
        if event.chain == 2 or (column <= offset.x < column + 2 and line.id != ROOT):
            self.toggle(line.id)

    def on_mouse_scroll_down(self) -> None:
        """A hand scrolls."""
        self.follow = "off"

    def on_mouse_scroll_up(self) -> None:
        """A hand scrolls."""
        self.follow = "off"

    def on_resize(self, event: Resize) -> None:
        """Keeps the cursor in view."""
        seen = any(line.id == self.cursor_node for line in self._lines)
        self._measure()
        if seen or self.cursor_node is None:
            self._take_in()
            self._bring_into_view()

    # -- ways to look at it ------------------------------------------------------------------------------------------

    def cycle_follow(self) -> Follow:
        """Follows the newest step, then the best one, then none."""
        self.follow = _after(self.follow, FOLLOWS)
        return self.follow

    def cycle_heat(self) -> Heat:
        """Shows scores as bars, as colours, as digits."""
        self.heat = _after(self.heat, HEATS)
        return self.heat

    def cycle_value(self) -> Value:
        """Shows the score of the step, then the least of its path, then their product."""
        self.value = _after(self.value, VALUES)
        return self.value

    def cycle_order(self) -> Order:
        """Orders siblings by birth, then by score."""
        if self._shown is None:
            return "born"
        folding = self._shown.folding
        folding.set_order(_after(folding.order, ORDERS))
        self._refold()
        return folding.order

    def toggle_freeze(self) -> bool:
        """Has the view stand still, or lets it go on."""
        self.frozen = not self.frozen
        return self.frozen

    def watch_heat(self) -> None:
        """Paints everything another way."""
        self.refresh()

    def watch_value(self) -> None:
        """Reads all numbers again."""
        self._kept.clear()
        self._repaint()

    def watch_frozen(self, frozen: bool) -> None:
        """Holds what the view is made of, and what it looks like."""
        self._kept.clear()
        if frozen:
            self._kept.update((line.id, key[0]) for line, key in zip(self._lines, self._keys, strict=True))
        if self._shown is not None:
            self._shown.folding.held = frozen

    # -- finding -----------------------------------------------------------------------------------------------------

    def _matches(self, node: Node) -> bool:
        needle = self._needle
        return bool(needle) and (needle in node.text.lower() or needle in (node.answer or "").lower())

    def find(self, text: str, backwards: bool = False) -> tuple[int, int]:
        """Goes to the next step whose text or answer contains `text`, in whatever case; nothing is searched for `""`.

        A text that was not searched for before is also found where the cursor is.

        Returns:
            Which of the found steps the cursor is on, counted from 1, and how many there are; zeros if none.
        """
        fresh, self._needle = text.lower() != self._needle, text.lower()
        if self._shown is None or not text:
            self._repaint()
            return 0, 0
        found: list[int] = []
        passed = 0  # of those found, how many are before the cursor
        here = False
        nodes = self._shown.tree.nodes
        for id in self._shown.folding.walk():
            if id == self.cursor_node:
                passed, here = len(found), self._matches(nodes[id])
            if self._matches(nodes[id]):
                found.append(id)
        if not found:
            self._repaint()
            return 0, 0
        place = passed - 1 if backwards else passed + (here and not fresh)
        place %= len(found)
        self.select(found[place])
        return place + 1, len(found)


def _after(present: T, all: Sequence[T]) -> T:
    return all[(all.index(present) + 1) % len(all)]
