"""A field for one line of text, and what all fields do with what is pasted."""

from __future__ import annotations

from textual.events import Paste
from textual.widgets import Input

from tts_tui.ui.text import clean


class CleanPaste:
    """Mixin of widgets that take text: nothing can be pasted into them that a terminal would obey or hide."""

    def _on_paste(self, event: Paste) -> None:
        event.text = clean(event.text)  # Textual calls the handler of each class, and that of the widget comes later


class Field(CleanPaste, Input):
    """A field for one line of text."""
