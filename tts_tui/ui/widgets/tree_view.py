"""The whole search tree as rows that scroll: a pure pull from a tree that grows meanwhile.

Work a pull is bounded by the screen: what was counted (`ui/folding.py`) gives the visible rows, and only those that
look another way than they were painted are painted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tts_tui.events import ROOT
from tts_tui.ui.folding import Folding, Order
from tts_tui.ui.frame import Heat
from tts_tui.ui.looks import Looks, Row, Shown, Value, best

T = TypeVar("T")
Follow = Literal["off", "newest", "best"]

FOLLOWS: tuple[Follow, ...] = ("off", "newest", "best")
HEATS: tuple[Heat, ...] = ("bar", "colour", "digits")
ORDERS: tuple[Order, ...] = ("born", "score")
VALUES: tuple[Value, ...] = ("score", "min", "prod")
NARROW = 40
"""Columns below which a bar would leave too little for the text."""
SPIN = 3
"""Pulls that a spinner takes for its next picture."""
_PLAIN = Style(dim=False)


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
        self._looks: Looks | None = None
        self._rows: list[Row] = []
        self._painted: tuple[int, int, int] = (-1, -1, -1)  # first row, width, height
        self._height = 0
        self._spin = 0
        self._strips: LRUCache[Any, Strip] = LRUCache(256)

    # -- what is shown -----------------------------------------------------------------------------------------------

    def show(self, shown: Shown) -> None:
        """Shows a run: from its first row on, or, if it is a run that was shown already, where the cursor was."""
        before, cursor = self._shown, self.cursor_node
        self.frozen = False
        self._shown, self._looks = shown, Looks(shown)
        self._looks.value = self.value
        self._painted, self._rows = (-1, -1, -1), []
        shown.folding.sync()
        if cursor is not None and before is not None and before.tree.started == shown.tree.started:
            node = before.tree.nodes[cursor]
            while node.id >= len(shown.tree.nodes) and node.parent is not None:
                node = node.parent
            self._measure()
            self._set_cursor(shown.folding.visible(node.id))
        else:
            self.cursor_node = None
            self._scroll(0)
            self._take_in()
        self._bring_into_view()
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

    @property
    def _folding(self) -> Folding | None:
        """What there is to move in; None as long as there is not even a root."""
        return self._shown.folding if self._shown is not None and len(self._shown.folding) else None

    def _take_in(self) -> None:
        """Takes in what the tree has more, and keeps in its place what somebody looks at."""
        if self._shown is None:
            return
        tree, anchor = self._shown.tree, self._anchor()
        self._shown.folding.sync()
        folding = self._folding
        if folding is None:
            return
        self._measure()
        followed = {"off": None, "newest": tree.newest}[self.follow] if self.follow != "best" else best(tree)
        if followed is not None:
            self._set_cursor(folding.visible(followed.id))
            self._bring_into_view(margin=2)
            return
        self._set_cursor(ROOT if self.cursor_node is None else folding.visible(self.cursor_node))
        if anchor is not None:
            row = folding.index(folding.visible(anchor[0]))
            if row is not None and row - anchor[1] != self.scroll_offset.y:
                self._scroll(row - anchor[1])

    def _anchor(self) -> tuple[int, int] | None:
        """The step that must not move, and its line on the screen: the cursor's if it is seen, else the first one."""
        if self._painted[0] != self.scroll_offset.y:
            self._look()
        for y, row in enumerate(self._rows):
            if row.cursor:
                return row.id, y
        return (self._rows[0].id, 0) if self._rows else None

    def _measure(self) -> None:
        """Sets the height of what can be scrolled; a layout, which is costly, only if the scrollbar comes or goes."""
        rows = len(self._shown.folding) if self._shown is not None else 0
        before, height = self.virtual_size.height, self.container_size.height
        if before == rows:
            return
        if (before > height) != (rows > height):
            self.virtual_size = Size(0, rows)
        else:
            self.set_reactive(Widget.virtual_size, Size(0, rows))
            if self.show_vertical_scrollbar:
                self.vertical_scrollbar.window_virtual_size = rows
        if self.scroll_offset.y > self.max_scroll_y:
            self._scroll(self.max_scroll_y)

    def _scroll(self, top: int) -> None:
        """Scrolls without painting, for most rows stand where they stood; `_repaint` finds those that do not."""
        top = max(0, min(top, self.max_scroll_y))
        if self.is_attached and top != self.scroll_offset.y:
            self.app.animator.force_stop_animation(self, "scroll_y")
            self.set_reactive(Widget.scroll_target_y, top)
            self.set_reactive(Widget.scroll_y, top)
            if self.show_vertical_scrollbar:
                self.vertical_scrollbar.position = top

    def _set_cursor(self, id: int) -> None:
        if id != self.cursor_node:
            self.cursor_node = id
            self.post_message(self.Selected(self, id))

    def _bring_into_view(self, margin: int = 0) -> None:
        """Scrolls as far as the cursor's row needs it; rows that are far away come to the middle."""
        row, height, top = self._cursor_row, self.size.height, self.scroll_offset.y
        if not height:
            return
        margin = min(margin, (height - 1) // 2)
        if not top - height < row < top + 2 * height:
            self._scroll(row - height // 2)
        elif row < top + margin:
            self._scroll(row - margin)
        elif row >= top + height - margin:
            self._scroll(row - height + 1 + margin)

    @property
    def _cursor_row(self) -> int:
        folding = self._folding
        return 0 if folding is None or self.cursor_node is None else folding.index(self.cursor_node) or 0

    # -- painting ----------------------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        """Columns beside the scrollbar."""
        return self.scrollable_content_region.width

    @property
    def _place(self) -> tuple[int, int, int]:
        return self.scroll_offset.y, self._width, self.size.height

    def _look(self) -> None:
        """Reads the visible rows."""
        self._painted = top, _, height = self._place
        self._rows = self._looks.rows(top, height, self.cursor_node, self._spin) if self._looks is not None else []

    def _repaint(self) -> int:
        """Has those rows painted that look another way than they did."""
        before, width = self._rows, self._painted[1]
        self._look()
        if width != self._width:
            self.refresh()
        after, top = self._rows, self._painted[0]
        changed = [y for y in range(max(len(before), len(after))) if before[y : y + 1] != after[y : y + 1]]
        for y in changed:
            self.refresh_line(top + y)
        return len(changed)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self._width
        if self._painted != self._place:
            self._look()
        base = self.rich_style
        if self._looks is None or y >= len(self._rows):
            return Strip.blank(width, base)
        row = self._rows[y]
        style = base + self.get_component_rich_style("tree-view--cursor", partial=True) if row.cursor else base
        key = (row, width, self._heat, style, self._looks.needle if row.found else "")
        strip = self._strips.get(key)
        if strip is None:
            strip = self._strips[key] = self._draw(self._looks, row, width, style)
        return strip

    def _draw(self, looks: Looks, row: Row, width: int, style: Style) -> Strip:
        line = looks.draw(row, width, self._heat)
        line.style = style
        # Dim is mixed from a row's own colours, and reversed it would be a block of another colour.
        segments = Segment.apply_style(line.render(self.app.console), post_style=_PLAIN if row.cursor else None)
        return Strip(segments).adjust_cell_length(width, style)

    @property
    def _heat(self) -> Heat:
        return "colour" if self.heat == "bar" and self._width < NARROW else self.heat

    # -- what a person does ------------------------------------------------------------------------------------------

    def _go(self, id: int) -> None:
        """A hand moves the cursor."""
        self.follow = "off"
        self._set_cursor(id)
        self._bring_into_view()
        self._repaint()

    def _go_to_row(self, row: int) -> None:
        folding = self._folding
        if folding is not None:
            self._go(folding.at(max(0, min(row, len(folding) - 1))))

    def _refold(self) -> None:
        """After something was folded, opened or ordered anew by hand."""
        folding, anchor = self._folding, self._anchor()
        if folding is None or self.cursor_node is None:
            return
        self._measure()
        self._set_cursor(folding.visible(self.cursor_node))
        if anchor is not None and anchor[0] == self.cursor_node:
            self._scroll(self._cursor_row - anchor[1])
        self._bring_into_view()
        self._repaint()

    def select(self, id: int) -> None:
        """Puts the cursor on a step, and opens what hides it."""
        if self._shown is not None:
            self._shown.folding.sync()
        folding = self._folding
        if folding is not None:
            folding.reveal(id)
            self._measure()
            self._go(folding.visible(id))

    def toggle(self, id: int) -> None:
        """Folds a step or opens it; one that has nothing to fold is `Opened`."""
        folding = self._folding
        if folding is not None and folding.foldable(id):
            folding.toggle(id)
            self._refold()
        elif folding is not None:
            self.post_message(self.Opened(self, id))

    def action_move(self, rows: int) -> None:
        """Moves the cursor by rows."""
        self._go_to_row(self._cursor_row + rows)

    def action_page(self, pages: int) -> None:
        """Moves the cursor by screens."""
        self._go_to_row(self._cursor_row + pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """To the prompt."""
        self._go_to_row(0)

    def action_last(self) -> None:
        """To the last row."""
        self._go_to_row(len(self._folding or ()) - 1)

    def action_left(self) -> None:
        """Folds the step, or goes to the one before it."""
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
        """Opens the step, or goes to its first continuation."""
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
        """Folds the step or opens it."""
        if self.cursor_node is not None:
            self.follow = "off"
            self.toggle(self.cursor_node)

    def on_click(self, event: Click) -> None:
        """Selects a step; on its mark, or twice, folds or opens it."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y >= len(self._rows):
            return
        row = self._rows[offset.y]
        self._go(row.id)
        if event.chain == 2 or offset.x in row.mark(self._width, self._heat):
            self.toggle(row.id)

    def on_mouse_scroll_up(self) -> None:
        """A hand scrolls, so nothing is followed."""
        self.follow = "off"

    on_mouse_scroll_down = on_scroll_to = on_scroll_up = on_scroll_down = on_mouse_scroll_up

    def on_resize(self) -> None:
        """Keeps the cursor in view, if it was."""
        seen = self._cursor_row - self.scroll_offset.y < (self._height or self.size.height)
        self._height = self.size.height
        self._measure()
        if seen and self._cursor_row >= self.scroll_offset.y:
            self._bring_into_view()
        self.refresh()

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

    def find(self, text: str, backwards: bool = False) -> tuple[int, int]:
        """Goes to the next step whose text or answer has `text`, in whatever case; an empty text ends that.

        A text that was not looked for before may also be found where the cursor is.

        Returns:
            Which of the found steps the cursor is on, counted from 1, and how many there are; zeros if none.
        """
        if self._looks is None:
            return 0, 0
        id, place, count = self._looks.find(text, self.cursor_node, backwards)
        if id is None:
            self._repaint()
        else:
            self.select(id)
        return place, count

    def watch_heat(self) -> None:
        """Paints everything another way."""
        self.refresh()

    def watch_value(self, value: Value) -> None:
        """Reads all numbers again."""
        if self._looks is not None:
            self._looks.value = value
            if self.frozen:
                self._looks.keep(())
            self._repaint()

    def watch_frozen(self, frozen: bool) -> None:
        """Holds what the view is made of, and what it looks like."""
        if self._shown is None or self._looks is None:
            return
        self._shown.folding.held = frozen
        if frozen:
            self._looks.keep(self._rows)
        else:
            self._looks.let_go()


def _after(present: T, all: Sequence[T]) -> T:
    return all[(all.index(present) + 1) % len(all)]
