"""The decisions of a run, a line each; only what is on the screen is put into words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tts_tui.events import AnyEvent
from tts_tui.tree import SearchTree
from tts_tui.ui.story import tell
from tts_tui.ui.text import clock, one_line


class StoryView(ScrollView, can_focus=True):
    """Follows its end, unless someone has scrolled away from it."""

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._events: Sequence[AnyEvent] = ()
        self._tree: SearchTree | None = None
        self._seen: tuple[int, int] = (0, 0)

    def put(self, events: Sequence[AnyEvent], tree: SearchTree) -> None:
        """Shows `events`, decisions of the run whose fold is `tree`."""
        seen = (id(tree), len(events))
        if seen == self._seen:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1 or self._seen[0] != seen[0]
        self._events, self._tree, self._seen = events, tree, seen
        self.virtual_size = Size(self.scrollable_content_region.width, len(events))
        if at_end:
            self.scroll_end(animate=False, immediate=True)
        self.refresh()

    def sentence(self, row: int) -> str:
        """The sentence of one row."""
        if self._tree is None or not 0 <= row < len(self._events):
            return ""
        event = self._events[row]
        return f"{clock(event.t)} {one_line(tell(event, self._tree) or '', 500)}"

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        width = self.scrollable_content_region.width
        said = self.sentence(self.scroll_offset.y + y)
        style = self.rich_style
        if not said:
            return Strip.blank(width, style)
        time, _, sentence = said.partition(" ")
        strip = Strip([Segment(f" {time} ", style + Style(dim=True)), Segment(sentence, style)])
        return strip.crop_extend(0, width, style)
