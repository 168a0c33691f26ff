"""The search tree as rows that scroll and fold, with keyboard and mouse control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from tts_tui.displays.frame import Heat
from tts_tui.ui.row_looks import Shown, Value
from tts_tui.ui.tree_rows import Order
from tts_tui.ui.widgets.rows_view import Follow, RowsView

__all__ = ["Follow", "Shown", "TreeView"]

T = TypeVar("T")

FOLLOWS: tuple[Follow, ...] = ("off", "newest", "best")
HEATS: tuple[Heat, ...] = ("bar", "colour", "digits")
ORDERS: tuple[Order, ...] = ("born", "score")
VALUES: tuple[Value, ...] = ("score", "min", "prod")


class TreeView(RowsView, can_focus=True):
    """A search tree, one row per step.

    Left and right fold, open and go up; any movement by the user ends following.
    """

    ALLOW_MAXIMIZE = True

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

    class Opened(Message):
        """A message that a step with nothing to fold was opened.

        Args:
            view: The view.
            node: The step.
        """

        def __init__(self, view: TreeView, node: int) -> None:
            super().__init__()
            self.view = view
            self.node = node

        @property
        def control(self) -> TreeView:
            """The view, for `@on`."""
            return self.view

    # -- user actions ------------------------------------------------------------------------------------------------

    def _go(self, id: int) -> None:
        """Move the cursor on behalf of the user, which ends following."""
        self.follow = "off"
        self._catch_up()
        self.cursor_node = id
        self._bring_into_view()
        self._move_bar()
        self._repaint()

    def _go_to_row(self, row: int) -> None:
        folding = self._folding
        if folding is not None:
            self._go(folding.at(max(0, min(row, len(folding) - 1))))

    def _refold(self) -> None:
        """Update the view after the user has folded, opened or reordered something."""
        folding, anchor = self._folding, self._anchor()
        if folding is None or self.cursor_node is None:
            return
        self._measure()
        self.cursor_node = folding.visible(self.cursor_node)
        if anchor is not None and anchor[0] == self.cursor_node:
            self._scroll(self._cursor_row - anchor[1])
        self._bring_into_view()
        self._move_bar()
        self._repaint()

    def select(self, id: int) -> None:
        """Put the cursor on a step, and open the ancestors that hide it."""
        if self._looks is not None:
            self._looks.folding.sync()
        folding = self._folding
        if folding is not None:
            folding.reveal(id)
            self._measure()
            self._go(folding.visible(id))

    def toggle(self, id: int) -> None:
        """Fold or open a step; if it has nothing to fold, post `Opened`."""
        folding = self._folding
        if folding is not None and folding.foldable(id):
            folding.toggle(id)
            self._refold()
        elif folding is not None:
            self.post_message(self.Opened(self, id))

    def action_move(self, rows: int) -> None:
        """Move the cursor by rows."""
        self._go_to_row(self._cursor_row + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by screens."""
        self._go_to_row(self._cursor_row + pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Go to the prompt."""
        self._go_to_row(0)

    def action_last(self) -> None:
        """Go to the last row."""
        self._go_to_row(len(self._folding or ()) - 1)

    def action_left(self) -> None:
        """Fold the step, or go to its parent."""
        folding, id = self._folding, self.cursor_node
        if self._shown is None or folding is None or id is None:
            return
        parent = self._shown.tree.nodes[id].parent
        self.follow = "off"
        if folding.foldable(id) and folding.is_open(id):
            self.toggle(id)
        elif parent is not None:
            self._go(parent.id)

    def action_right(self) -> None:
        """Open the step, or go to its first child."""
        folding, id = self._folding, self.cursor_node
        if folding is None or id is None:
            return
        children = folding.children(id)
        self.follow = "off"
        if children and not folding.is_open(id):
            self.toggle(id)
        elif children:
            self._go(children[0])

    def action_enter(self) -> None:
        """Fold or open the step."""
        if self.cursor_node is not None:
            self.follow = "off"
            self.toggle(self.cursor_node)

    def on_click(self, event: Click) -> None:
        """Select the clicked step; fold or open it if its mark was clicked, or on a double click."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y >= len(self._rows):
            return
        row = self._rows[offset.y]
        self._go(row.id)
        if event.chain == 2 or offset.x in row.mark(self._width, self._heat):
            self.toggle(row.id)

    def on_mouse_scroll_up(self) -> None:
        """Stop following when the user scrolls."""
        self.follow = "off"

    on_mouse_scroll_down = on_scroll_to = on_scroll_up = on_scroll_down = on_mouse_scroll_up

    # -- view options ------------------------------------------------------------------------------------------------

    def cycle_follow(self) -> Follow:
        """Follow the newest step, then the best one, then none."""
        self.follow = _after(self.follow, FOLLOWS)
        return self.follow

    def cycle_heat(self) -> Heat:
        """Show scores as bars, then as colours, then as digits."""
        self.heat = _after(self.heat, HEATS)
        return self.heat

    def cycle_value(self) -> Value:
        """Show the score of the step, then the minimum of its path, then their product."""
        self.value = _after(self.value, VALUES)
        return self.value

    def cycle_order(self) -> Order:
        """Order siblings by creation, then by score."""
        if self._looks is None:
            return "born"
        folding = self._looks.folding
        folding.set_order(_after(folding.order, ORDERS))
        self._refold()
        return folding.order

    def toggle_freeze(self) -> bool:
        """Freeze the view, or unfreeze it."""
        self.frozen = not self.frozen
        return self.frozen

    def find(self, text: str, backwards: bool = False) -> tuple[int, int]:
        """Go to the next step whose text or answer contains `text`, ignoring case; an empty text ends the search.

        A text that is searched for the first time may also be found at the cursor.

        Returns:
            The 1-based position of the cursor among the matches, and their number; zeros if there are none.
        """
        if self._looks is None:
            return 0, 0
        id, place, count = self._looks.find(text, self.cursor_node, backwards)
        if id is None:
            self._repaint()
        else:
            self.select(id)
        return place, count


def _after(present: T, all: Sequence[T]) -> T:
    return all[(all.index(present) + 1) % len(all)]
