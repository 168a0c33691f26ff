"""All keys of the terminal UI by name, so that users can remap them."""

from __future__ import annotations

from textual.binding import Binding
from textual.theme import BUILTIN_THEMES

from tts_tui.errors import ConfigError
from tts_tui.ui.app import TTSApp
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.dialogs import ChoiceDialog, Question, Write
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.home import HomeScreen
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.settings import Settings, check_keymap
from tts_tui.ui.widgets.tree_view import TreeView

OWNERS = (TTSApp, HomeScreen, RunScreen, TreeView, CompareScreen, PlanForm, Write, ChoiceDialog, Question, Help)


def known() -> dict[str, tuple[str, str]]:
    """Return a mapping from the name of each binding to its keys and its description."""
    found: dict[str, tuple[str, str]] = {}
    for owner in OWNERS:
        for base in reversed(owner.__mro__):
            for binding in base.__dict__.get("BINDINGS", ()):
                if isinstance(binding, Binding) and binding.id:
                    found[binding.id] = (binding.key, binding.tooltip or binding.description)
    return found


def check(settings: Settings) -> None:
    """Check that the key names and the theme in `settings` exist.

    Raises:
        ConfigError: A name is unknown; the message suggests the nearest one.
    """
    if settings.keymap:
        check_keymap(settings.keymap, known())
    if settings.theme and settings.theme not in BUILTIN_THEMES:
        raise ConfigError(f"there is no theme {settings.theme!r}: known are {', '.join(sorted(BUILTIN_THEMES))}")
