"""All keys of the terminal UI by name, so that people can change them."""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding

from tts_tui.ui.app import TTSApp
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.dialogs import Choice, Question, Write
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.home import HomeScreen
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.settings import check_keymap
from tts_tui.ui.widgets.tree_view import TreeView

OWNERS = (TTSApp, HomeScreen, RunScreen, TreeView, CompareScreen, PlanForm, Write, Choice, Question, Help)


def known() -> dict[str, tuple[str, str]]:
    """Name of each binding -> its keys and what it does."""
    found: dict[str, tuple[str, str]] = {}
    for owner in OWNERS:
        for base in reversed(owner.__mro__):
            for binding in base.__dict__.get("BINDINGS", ()):
                if isinstance(binding, Binding) and binding.id:
                    found[binding.id] = (binding.key, binding.tooltip or binding.description)
    return found


def check(keymap: Mapping[str, str]) -> None:
    """Refuses names that no binding has.

    Raises:
        ConfigError: The message offers the nearest name.
    """
    if keymap:
        check_keymap(keymap, {id: key for id, (key, _) in known().items()})
