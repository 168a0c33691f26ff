"""A field for a line of text."""

from __future__ import annotations

from textual.reactive import Reactive, reactive
from textual.widgets import Input


class Field(Input):
    """Textual's, with a cursor that stands still: one that blinks has the app draw for ever."""

    cursor_blink: Reactive[bool] = reactive(False, init=False)
