"""A text widget that is redrawn only when its text has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.text import Text
from textual.widgets import Static


class LazyStatic(Static):
    """Lines of text that a timer sets repeatedly; unchanged text costs no repaint."""

    ALLOW_MAXIMIZE = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, **settings)
        self._shown: list[Text] = []
        self._drawn = -1

    def put(self, lines: Sequence[Text]) -> bool:
        """Show `lines`, and return whether that changed anything."""
        if len(lines) == len(self._shown) and all(
            new.plain == old.plain and new.spans == old.spans for new, old in zip(lines, self._shown, strict=True)
        ):
            return False
        self._shown = [line.copy() for line in lines]
        rows, width = self._rows(), self.size.width
        self.update(Group(*self._shown), layout=rows != self._drawn or not width)  # a layout is costly
        self._drawn = rows
        return True

    def _rows(self) -> int:
        """Return the height with wrapped lines."""
        width = max(1, self.content_size.width)
        return sum(len(line.wrap(self.app.console, width)) for line in self._shown)
