"""A one-line text field, and the paste handling of all text fields."""

from __future__ import annotations

from textual.events import Paste
from textual.reactive import Reactive, reactive
from textual.widgets import Input

from tts_tui.formatting import clean


class CleanPaste:
    """A mixin for text widgets that removes control and hidden characters from pasted text."""

    def on_paste(self, event: Paste) -> None:
        """Clean the text; Textual calls the handlers of all classes, the widget's own after this one."""
        event.text = clean(event.text)


class Field(CleanPaste, Input):
    """A one-line text field with a steady cursor: a blinking one would keep the app drawing forever."""

    cursor_blink: Reactive[bool] = reactive(False, init=False)
