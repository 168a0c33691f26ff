"""The decisions of a run in sentences, wrapped to the width of the panel."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tts_tui.ui.model import Told
from tts_tui.ui.text import clock, one_line

MOST = 2000
"""Decisions that are shown, the last ones; all of them are in the recording."""
INDENT = 6
"""Columns of the time before each sentence."""


class StoryView(ScrollView, can_focus=True):
    """Follows its end, unless someone has scrolled away from it."""

    ALLOW_MAXIMIZE = True

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._events: Sequence[Told] = ()
        self._told = 0
        self._width = 0
        self._rows: list[tuple[str, str]] = []

    def put(self, events: Sequence[Told]) -> None:
        """Shows the story of a run as far as it has come."""
        width = self.scrollable_content_region.width
        anew = events is not self._events or width != self._width or len(events) < self._told
        if not width or (not anew and len(events) == self._told):
            return
        at_end = anew or self.scroll_offset.y >= self.max_scroll_y - 1
        if anew:
            self._events, self._width, self._rows = events, width, []
            self._told = max(0, len(events) - MOST)
        for event in events[self._told :]:
            self._rows += _rows(event, width)
        self._told = len(events)
        self.virtual_size = Size(width, len(self._rows))
        if at_end:
            self.scroll_end(animate=False, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        width, style, row = self.scrollable_content_region.width, self.rich_style, self.scroll_offset.y + y
        if row >= len(self._rows):
            return Strip.blank(width, style)
        time, said = self._rows[row]
        segments = [Segment(f"{time:<{INDENT}}", style + Style(dim=True)), Segment(said, style)]
        return Strip(segments).crop_extend(0, width, style)


def _rows(event: Told, width: int) -> list[tuple[str, str]]:
    said = textwrap.wrap(one_line(event.sentence, 500), max(10, width - INDENT)) or [""]
    return [(clock(event.t) if place == 0 else "", line) for place, line in enumerate(said)]
