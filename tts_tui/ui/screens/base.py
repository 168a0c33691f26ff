"""The base of every screen with a tree: viewing, searching, copying and exporting, none of which affects the search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.widgets import Input

from tts_tui.errors import TTSError
from tts_tui.formatting import clean, one_line
from tts_tui.tree.search_tree import Node
from tts_tui.ui import recordings
from tts_tui.ui.bindings import keys
from tts_tui.ui.run_model import RunModel
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.pulsing import Pulsing
from tts_tui.ui.widgets.tree_view import TreeView

if TYPE_CHECKING:
    from tts_tui.ui.app import TTSApp

LAST = keys(
    ("view.find", "slash", "find", "find", "Find a text or an answer in the tree"),
    ("view.help", "question_mark,f1", "help", "help", "Explain keys and glyphs"),
)
"""Keys that come last in the footer."""


class TreeScreen(Pulsing):
    """A screen with the keys for viewing a tree."""

    app: TTSApp
    complete = False
    """True once all of its widgets have been mounted."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys(
            ("view.freeze", "z", "freeze", "freeze", "Freeze or thaw the view; the search goes on"),
            ("view.follow", "f", "follow", "follow", "Follow the newest step, the best one, or none"),
            ("view.heat", "h", "heat", "heat", "Show scores as bars, as colours, or as digits"),
            ("view.value", "v", "value", "value", "Show the step's score, the lowest of its path, or the product"),
            ("view.order", "o", "order", "order", "Order siblings by age or by score"),
            ("view.next", "n", "next(False)", "next", "Go to the next place that was found"),
            ("view.previous", "N", "next(True)", "previous", "Go to the previous place that was found"),
            ("view.copy", "y", "copy", "copy", "Copy the path to this step"),
            ("view.picture", "w", "picture", "picture", "Keep the screen as an SVG picture"),
            ("view.export", "W", "export", "export", "Keep the whole run as an HTML page"),
            ("view.compare", "c", "compare", "compare", "Put another run beside this one"),
            show=False,
        ),
    ]

    @property
    def stands(self) -> bool:
        """True if all of its widgets are present, so that keys can act on them; False once it is being removed."""
        return self.complete and self.is_attached

    @property
    @abstractmethod
    def model(self) -> RunModel:
        """The run that is shown."""

    @property
    @abstractmethod
    def tree_view(self) -> TreeView:
        """The tree view that has the focus."""

    @property
    def node(self) -> Node | None:
        """The step at the cursor; the problem if the cursor has not been placed yet."""
        tree = self.model.tree
        return self.tree_view.cursor_in(tree) or (tree.root if tree.started is not None else None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable all keys until the screen is mounted."""
        return self.stands

    def say(self, message: str, *, wrong: bool = False) -> None:
        """Show a short message over the screen."""
        self.app.clear_notifications()  # only the newest matters, and a pile of them would cover the tree
        self.notify(one_line(message, 500), severity="warning" if wrong else "information", timeout=4, markup=False)

    # -- the tree ----------------------------------------------------------------------------------------------------

    def action_freeze(self) -> None:
        """Freeze the view, or unfreeze it."""
        self.tree_view.toggle_freeze()

    def action_follow(self) -> None:
        """Switch to the next follow mode."""
        kinds = {"off": "nothing", "newest": "the newest step", "best": "the best step"}
        self.say(f"Following {kinds[self.tree_view.cycle_follow()]}.")

    def action_heat(self) -> None:
        """Switch to the next way to show scores."""
        self.tree_view.cycle_heat()

    def action_value(self) -> None:
        """Switch to the next value: step score, path minimum or path product."""
        kinds = {"score": "score of the step", "min": "lowest score of the path", "prod": "product over the path"}
        self.say(f"Shown is the {kinds[self.tree_view.cycle_value()]}.")

    def action_order(self) -> None:
        """Switch to the next order of siblings."""
        kinds = {"born": "age", "score": "score"}
        self.say(f"Siblings are ordered by {kinds[self.tree_view.cycle_order()]}.")

    # -- find --------------------------------------------------------------------------------------------------------

    def show_tree(self) -> None:
        """Bring the tree to the front, where another panel may hide it."""

    def action_find(self) -> None:
        """Open the search field."""
        self.show_tree()
        field = self.query_one("#find", Input)
        field.display = True
        field.focus()

    def action_next(self, backwards: bool) -> None:
        """Go to the next match, or to the previous one."""
        text = self.query_one("#find", Input).value
        if not text:
            self.action_find()
            return
        place, count = self.tree_view.find(text, backwards)
        self.say(f"{place} of {count}" if count else f"{text!r} stands nowhere in the tree.", wrong=not count)

    def on_input_submitted(self) -> None:
        """Go to the next match; the field stays open for another Enter."""
        self.action_next(False)

    def close_find(self) -> bool:
        """Close the search field, and return whether it was open."""
        field = self.query_one("#find", Input)
        if not field.display:
            return False
        field.display = False
        self.tree_view.focus()
        return True

    # -- copy and export ----------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy the path to the step at the cursor."""
        node = self.node
        if node is None:
            return
        text = self.model.tree.start.problem if node.parent is None else node.path_text
        self.app.copy_to_clipboard(clean(text))
        self.say(f"Copied the path to step {node.label}.")

    def action_picture(self) -> None:
        """Save the screen as an SVG file."""
        from tts_tui.displays import export

        self._keep(
            "svg", lambda path: path.write_text(export.without_fonts(self.app.export_screenshot()), encoding="utf-8")
        )

    def action_export(self) -> None:
        """Export the entire run as an HTML page."""
        from tts_tui.displays import export

        if self.model.tree.started is not None:
            self._keep("html", lambda path: export.write(self.model.tree, path))

    def _keep(self, kind: str, write: Callable[[Path], object]) -> None:
        try:
            path = recordings.picture_path(self.model.tree.started.problem if self.model.tree.started else "", kind)
            write(path)
        except (OSError, TTSError) as error:
            said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self.say(f"The picture could not be written: {said}.", wrong=True)
        else:
            self.say(f"Written: {path}")

    @property
    def own_path(self) -> Path | None:
        """The path of the recording of the run that is shown, or None."""
        return None

    def action_compare(self) -> None:
        """Ask which run to compare this one with."""
        self.app.choose_other(self.model, self.own_path)

    def action_help(self) -> None:
        """Show the help screen."""
        self.app.push_screen(Help(self))
