"""The panel with the decisions of a run in sentences, wrapped to its width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tts_tui.formatting import clock, one_line, wrap
from tts_tui.ui.run_model import StoryLine

MOST = 2000
"""Maximum number of decisions shown, the last ones; all of them are in the recording."""
INDENT = 6
"""Width of the time column before each sentence."""


class StoryView(ScrollView, can_focus=True):
    """The story of a run, which scrolls along with its end unless the user has scrolled away."""

    ALLOW_MAXIMIZE = True

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._first = 0  # index of the first decision that is shown
        self._shown: list[StoryLine] = []
        self._heights: list[int] = []
        self._width = 0
        self._rows: list[tuple[str, str]] = []

    def put(self, events: Sequence[StoryLine]) -> None:
        """Show the story of a run so far, keeping lines that are already wrapped, even if a replay goes back."""
        width = self.scrollable_content_region.width
        told = self._first + len(self._shown)
        if not width or (width == self._width and len(events) == told and self._goes_on(events)):
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        if width != self._width or not self._goes_on(events):
            at_end, self._width = True, width
            self._first, self._shown, self._heights, self._rows = max(0, len(events) - MOST), [], [], []
        self._cut(len(events) - self._first)
        self._add(events[self._first + len(self._shown) :])
        above = self._forget()
        before, height, rows = self.virtual_size.height, self.container_size.height, len(self._rows)
        if (before > height) != (rows > height):
            self.virtual_size = Size(width, rows)
        else:  # the scrollbar does not change, so a costly layout would have no effect
            self.set_reactive(Widget.virtual_size, Size(width, rows))
            if self.show_vertical_scrollbar:
                self.vertical_scrollbar.window_virtual_size = rows
        if at_end:
            self.scroll_end(animate=False, immediate=True)
        elif above:
            self.scroll_to(y=self.scroll_offset.y - above, animate=False, immediate=True)
        self.refresh()

    def _goes_on(self, events: Sequence[StoryLine]) -> bool:
        """Return whether `events` is the story shown, at another moment: their last common decision is the same."""
        both = min(len(events) - self._first, len(self._shown))
        if both <= 0:
            return not events and not self._shown
        return events[self._first + both - 1] is self._shown[both - 1] and (both > MOST // 2 or not self._first)

    def _cut(self, count: int) -> None:
        """Keep the first `count` decisions."""
        if gone := sum(self._heights[count:]):
            del self._rows[-gone:], self._heights[count:], self._shown[count:]

    def _add(self, events: Sequence[StoryLine]) -> None:
        for event in events:
            rows = _rows(event, self._width)
            self._rows += rows
            self._heights.append(len(rows))
        self._shown += events

    def _forget(self) -> int:
        """Drop the first decisions if there are too many, and return the number of rows they had."""
        more = max(0, len(self._shown) - MOST)
        above = sum(self._heights[:more])
        del self._rows[:above], self._heights[:more], self._shown[:more]
        self._first += more
        return above

    def render_line(self, y: int) -> Strip:
        """Render one line of the widget."""
        width, style, row = self.scrollable_content_region.width, self.rich_style, self.scroll_offset.y + y
        if row >= len(self._rows):
            return Strip.blank(width, style)
        time, said = self._rows[row]
        segments = [Segment(f"{time:<{INDENT}}", style + Style(dim=True)), Segment(said, style)]
        return Strip(segments).crop_extend(0, width, style)


def _rows(event: StoryLine, width: int) -> list[tuple[str, str]]:
    said = wrap(one_line(event.sentence, 500), max(10, width - INDENT)) or [""]
    return [(clock(event.t) if place == 0 else "", line) for place, line in enumerate(said)]
