"""A field for one line of text, and what all fields do with what is pasted."""

from __future__ import annotations

from textual.events import Paste
from textual.reactive import Reactive, reactive
from textual.widgets import Input

from tts_tui.formatting import clean


class CleanPaste:
    """Mixin of widgets that take text: nothing can be pasted into them that a terminal would obey or hide."""

    def on_paste(self, event: Paste) -> None:
        """Cleans the text; Textual calls the handlers of all classes, and that of the widget itself comes later."""
        event.text = clean(event.text)


class Field(CleanPaste, Input):
    """A field for one line of text, with a steady cursor: one that blinks makes the app draw for ever."""

    cursor_blink: Reactive[bool] = reactive(False, init=False)
