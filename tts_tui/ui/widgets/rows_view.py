"""A scrolling view of the rows of a tree that keeps growing.

The work per pull is bounded by the screen: the row counts (`tts_tui.ui.row_counts`) give the visible rows, and only
rows whose look has changed are repainted.
"""

from __future__ import annotations

from typing import Any, Literal

from rich.segment import Segment
from rich.style import Style
from textual.cache import LRUCache
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tts_tui.displays.frame import Heat
from tts_tui.tree.events import ROOT
from tts_tui.tree.search_tree import Node, SearchTree
from tts_tui.ui.row_looks import Looks, Shown, StyledRow, Value, best
from tts_tui.ui.tree_rows import TreeRows

Follow = Literal["off", "newest", "best"]

NARROW = 40
"""Width below which a score bar would leave too little room for the text."""
SPIN = 3
"""Number of pulls per frame of a spinner."""
GROWING = 5
"""Maximum number of rows of growing steps painted in one pull; if there are more, they take turns."""
CALM = 5
"""Average number of rows per pull that new steps may move while many steps grow: each new row moves all below it."""
BAR = 10
"""Number of pulls after which the scrollbar is updated, while many steps grow."""
_PLAIN = Style(dim=False)


class RowsView(ScrollView):
    """A view of the rows of a tree, with a cursor on one of them.

    The cursor and the scroll position are tied to steps, not to rows: growth above them moves nothing.

    Attributes:
        cursor_node: The step at the cursor; None before there is one.
        follow: The steps that the cursor follows automatically.
        frozen: Whether the view stands still while the search continues.
        heat: The way scores are shown.
        value: The number shown: the step's own score, or the minimum or the product over its path.
        calm: Whether new rows may appear up to a second late while many steps grow, to reduce terminal output.
    """

    ALLOW_SELECT = False

    follow: reactive[Follow] = reactive[Follow]("off", repaint=False)
    frozen: reactive[bool] = reactive(False, repaint=False)
    heat: reactive[Heat] = reactive[Heat]("bar", repaint=False)
    value: reactive[Value] = reactive[Value]("score", repaint=False)

    def __init__(
        self, *, name: str | None = None, id: str | None = None, classes: str | None = None, disabled: bool = False
    ) -> None:
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.cursor_node: int | None = None
        self._shown: Shown | None = None
        self._looks: Looks | None = None
        self._rows: list[StyledRow] = []
        self._painted: tuple[int, int, int] = (-1, -1, -1)  # first row, width, height
        self._height = 0
        self._pulls = 0
        self.calm = True
        self._rest = 0  # number of pulls during which no new rows are added
        self._strips: LRUCache[Any, Strip] = LRUCache(256)

    # -- what is shown -----------------------------------------------------------------------------------------------

    def show(self, shown: Shown) -> None:
        """Show a run: from its first row on, or at the previous cursor if the same run was shown before."""
        before, cursor = self._shown, self.cursor_node
        self.frozen = False
        if self._looks is not None:
            self._looks.thaw()  # even where no watcher runs, or none runs yet
        self._shown, self._looks = shown, Looks(shown)
        self._looks.value = self.value
        self._painted, self._rows, self._rest = (-1, -1, -1), [], 0
        shown.folding.sync()
        if cursor is not None and before is not None and before.tree.started == shown.tree.started:
            self._measure()
            self.cursor_node = shown.folding.visible(_within(before.tree.nodes[cursor], shown.tree))
        else:
            self.cursor_node = None
            self._scroll(0)
            self._take_in()
        self._bring_into_view()
        self._move_bar()
        self.refresh()

    def cursor_in(self, tree: SearchTree) -> Node | None:
        """Return the step of `tree` at the cursor; in an earlier moment of the run, its nearest existing ancestor.

        For actions on the cursor before the view has shown the current state of `tree`. None if there is no such step,
        or the view shows another run.
        """
        cursor, shown = self.cursor_node, self._shown
        if cursor is None or shown is None or shown.tree.started != tree.started or not tree.nodes:
            return None
        return tree.nodes[_within(shown.tree.nodes[cursor], tree)]

    def pull(self, tick: int) -> int:
        """Bring the view up to date; to be called about ten times per second, with an increasing number.

        Returns:
            The number of rows that are repainted.
        """
        if self._shown is None or self.frozen:
            return 0
        self._pulls = tick
        busy = self.calm and len(self._shown.writing) > GROWING
        if busy and self._rest and self._painted == self._place:
            self._rest -= 1
            return self._repaint(grown_only=True)
        self._take_in()
        if not busy or tick % BAR == 0:
            self._move_bar()
        painted = self._repaint()
        self._rest = painted // CALM if busy else 0
        return painted

    def _catch_up(self) -> None:
        """Add deferred rows before the user moves the cursor or the view."""
        if self._rest:
            self._rest = 0
            self._take_in()

    @property
    def _folding(self) -> TreeRows | None:
        """The rows to navigate in; None before there is a root."""
        return self._looks.folding if self._looks is not None and len(self._looks.folding) else None

    def _take_in(self) -> None:
        """Add the tree's new rows, keeping the anchor row in its place on the screen."""
        if self._shown is None or self._looks is None:
            return
        tree, anchor = self._shown.tree, self._anchor()
        self._looks.folding.sync()
        folding = self._folding
        if folding is None:
            return
        self._measure()
        followed = {"off": None, "newest": tree.newest}[self.follow] if self.follow != "best" else best(tree)
        if followed is not None and folding.visible(followed.id) != self.cursor_node:
            self.cursor_node = folding.visible(followed.id)
            self._bring_into_view(margin=2)
            return
        self.cursor_node = ROOT if self.cursor_node is None else folding.visible(self.cursor_node)
        if anchor is not None:
            row = folding.index(folding.visible(anchor[0]))
            if row is not None and row - anchor[1] != self.scroll_offset.y:
                self._scroll(row - anchor[1])

    def _anchor(self) -> tuple[int, int] | None:
        """Return the step that must not move, and its screen line: the cursor's if visible, else the first one."""
        if self._painted[0] != self.scroll_offset.y:
            self._look()
        for y, row in enumerate(self._rows):
            if row.cursor:
                return row.id, y
        return (self._rows[0].id, 0) if self._rows else None

    def _measure(self) -> None:
        """Set the scrollable height, with a costly layout only if the scrollbar appears or disappears."""
        rows = len(self._folding or ())
        before, height = self.virtual_size.height, self.container_size.height
        if before == rows:
            return
        if (before > height) != (rows > height):
            self.virtual_size = Size(0, rows)
        else:
            self.set_reactive(Widget.virtual_size, Size(0, rows))
        if self.scroll_offset.y > self.max_scroll_y:
            self._scroll(self.max_scroll_y)

    def _scroll(self, top: int) -> None:
        """Scroll without painting, because most rows look the same afterwards; `_repaint` finds those that do not."""
        top = max(0, min(top, self.max_scroll_y))
        if self.is_attached and top != self.scroll_offset.y:
            self.app.animator.force_stop_animation(self, "scroll_y")
            self.set_reactive(Widget.scroll_target_y, top)
            self.set_reactive(Widget.scroll_y, top)

    def _move_bar(self) -> None:
        """Update the scrollbar, which is repainted in its full height on any change."""
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = self.virtual_size.height
            self.vertical_scrollbar.position = self.scroll_offset.y

    def _bring_into_view(self, margin: int = 0) -> None:
        """Scroll as little as needed to show the cursor's row; a row that is far away is centred."""
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
        """Width without the scrollbar."""
        return self.scrollable_content_region.width

    @property
    def _place(self) -> tuple[int, int, int]:
        return self.scroll_offset.y, self._width, self.size.height

    def _look(self) -> None:
        """Read the visible rows."""
        self._painted = top, _, height = self._place
        spin = self._pulls // SPIN
        self._rows = self._looks.rows(top, height, self.cursor_node, spin) if self._looks is not None else []

    def _repaint(self, grown_only: bool = False) -> int:
        """Repaint the rows whose look has changed, or of these only the rows of growing steps; return their number."""
        before, width = self._rows, self._painted[1]
        if grown_only and self._looks is not None:
            self._rows = [self._looks.grown(row, self._pulls // SPIN) for row in before]
        else:
            self._look()
        if width != self._width:
            self.refresh()
        self._rows = _in_turn(before, self._rows, self._pulls)
        after = self._rows
        changed = [y for y in range(max(len(before), len(after))) if before[y : y + 1] != after[y : y + 1]]
        for y in changed:  # without the column of the scrollbar, unlike refresh_line
            self.refresh(Region(0, y, self._width, 1))
        return len(changed)

    def render_line(self, y: int) -> Strip:
        """Render one line of the screen."""
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

    def _draw(self, looks: Looks, row: StyledRow, width: int, style: Style) -> Strip:
        line = looks.draw(row, width, self._heat)
        # Dim is mixed from a row's own colours, and would become a block of another colour when reversed.
        segments = Segment.apply_style(line.render(self.app.console), style, _PLAIN if row.cursor else None)
        return Strip(segments).adjust_cell_length(width, style).simplify()

    @property
    def _heat(self) -> Heat:
        return "colour" if self.heat == "bar" and self._width < NARROW else self.heat

    def on_resize(self) -> None:
        """Keep the cursor in view, if it was."""
        seen = self._cursor_row - self.scroll_offset.y < (self._height or self.size.height)
        self._height = self.size.height
        self._measure()
        if seen and self._cursor_row >= self.scroll_offset.y:
            self._bring_into_view()
        self.refresh()

    def watch_heat(self) -> None:
        """Repaint all rows in the new way to show scores."""
        self.refresh()

    def watch_value(self, value: Value) -> None:
        """Read all numbers again."""
        if self._looks is not None:
            self._looks.value = value
            if self.frozen:
                self._looks.freeze(())
            self._repaint()

    def watch_frozen(self, frozen: bool) -> None:
        """Freeze or unfreeze the rows and their looks, in this view only."""
        if self._shown is None or self._looks is None:
            return
        if frozen and self._rest:
            self._catch_up()
            self._repaint()
        if frozen:
            self._looks.freeze(self._rows)
        else:
            self._looks.thaw()


def _within(node: Node, tree: SearchTree) -> int:
    """Return the step in an earlier moment of its tree: itself, or its nearest ancestor that exists there."""
    while node.id >= len(tree.nodes) and node.parent is not None:
        node = node.parent
    return node.id


def _in_turn(before: list[StyledRow], after: list[StyledRow], pulls: int) -> list[StyledRow]:
    """Return the rows to show: of many growing steps, only some change per pull, the others stay as on the screen."""
    growing = [y for y, (old, new) in enumerate(zip(before, after, strict=False)) if _grows(old, new)]
    turns = -(-len(growing) // GROWING)
    if turns < 2:
        return after
    waiting = {y for place, y in enumerate(growing) if (place + pulls) % turns}
    return [before[y] if y in waiting else row for y, row in enumerate(after)]


def _grows(old: StyledRow, new: StyledRow) -> bool:
    """Return whether two rows show the same growing step, and may differ only in text and spinner."""
    if new.look.state != "writing" or new.cursor:
        return False
    return new == old._replace(spin=new.spin, look=old.look._replace(text=new.look.text))
