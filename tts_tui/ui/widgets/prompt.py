"""A multi-line text field that is submitted with Enter."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import BindingType
from textual.events import Key, Paste
from textual.message import Message
from textual.reactive import Reactive, reactive
from textual.widgets import TextArea

from tts_tui.ui.terminal_input import PASTE_LIMIT
from tts_tui.ui.widgets.field import CleanPaste

NEW_LINE = frozenset({"alt+enter", "shift+enter", "ctrl+j", "ctrl+enter"})
"""Keys for a new line; terminals differ in which of them arrive."""


class ProblemInput(CleanPaste, TextArea):
    """A multi-line text field that Enter submits; other keys insert a new line, and pasted text keeps its lines."""

    BINDINGS: ClassVar[list[BindingType]] = []

    cursor_blink: Reactive[bool] = reactive(False, init=False)  # a blinking one would keep the app drawing forever

    class Submitted(Message):
        """A message that Enter was pressed.

        Args:
            text: The text of the field.
        """

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, text: str = "", **settings: Any) -> None:
        super().__init__(text, show_line_numbers=False, highlight_cursor_line=False, **settings)

    def _on_paste(self, event: Paste) -> None:  # type: ignore[override]  # Textual calls that of TextArea, too
        if len(event.text) >= PASTE_LIMIT:
            self.notify(f"Only the first {PASTE_LIMIT:,} characters were pasted.", severity="warning", markup=False)

    async def _on_key(self, event: Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Submitted(self.text))
        elif event.key in NEW_LINE:
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)
