"""The help screen: the keys of the focused widget and of its screen, and the meaning of the glyphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from tts_tui.ui.screens.dialogs import Dialog

GLYPHS = (
    ("⠋ writing", "the policy writes this step"),
    ("★ answer", "a path that ended its answer"),
    ("✗ pruned", "the strategy gave it up"),
    ("✗ cut", "you gave it up"),
    ("✎ yours", "you wrote it, or asked for it"),
    ("! failed", "it could not be written"),
    ("×3", "so many samples said the same"),
    ("▸ ▾", "folded, open"),
    (".81 ████", "score of the reward model for the step, 0 to 1"),
    ("━●━━──", "pass@1 that auto expects, in its 90 % range"),
    ("▶ beam:16", "what auto chose"),
)
BAR = " │ "
"""Separator between a panel's title and the names of other panels in its border."""


class Help(Dialog[None]):
    """A list of the keys of a screen and of its focused widget.

    Args:
        screen: The screen to describe.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "leave", "back", id="help.leave", tooltip="Close the help"),
    ]

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self._lines = list(lines(screen))

    def compose(self) -> ComposeResult:
        """Lay out the help as one scrolling text."""
        with VerticalScroll(classes="dialog wide"):
            yield Static(Text("\n").join(self._lines), id="help-text", markup=False)

    def action_leave(self) -> None:
        """Close the help screen."""
        self.dismiss(None)


def lines(screen: Screen[Any]) -> Iterator[Text]:
    """Yield the keys, grouped by origin with the focused widget first, then the glyphs."""
    seen: set[str] = set()
    rows: dict[str, list[tuple[str, str]]] = {}
    for active in screen.active_bindings.values():
        node, binding = active.node, active.binding
        if binding.id is None or not binding.tooltip or not active.enabled or binding.action in seen:
            continue
        seen.add(binding.action)
        keys = {
            screen.app.get_key_display(other.binding)
            for other in screen.active_bindings.values()
            if other.binding.action == binding.action
        }
        rows.setdefault(_title(node, screen), []).append(
            (" ".join(sorted(keys, key=lambda key: (len(key), key))), binding.tooltip)
        )
    for title, keys_of in rows.items():
        yield Text(title, style="bold")
        for key, said in keys_of:
            yield Text(f"  {key:<14} {said}")
        yield Text("")
    yield Text("Glyphs", style="bold")
    for glyph, said in GLYPHS:
        yield Text(f"  {glyph:<14} {said}")
    yield Text("")
    yield Text(
        "Keys can be changed: [keymap] in the settings file, by the names that `tts-tui keys` lists.", style="dim"
    )


def _title(node: object, screen: Screen[Any]) -> str:
    if node is screen:
        return "This screen"
    if node is screen.app:
        return "Everywhere"
    return str(getattr(node, "border_title", None) or type(node).__name__).partition(BAR)[0]
