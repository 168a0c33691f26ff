"""Dialogs over a screen: a yes/no question, the text of a user's own step, and a choice among runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Vertical
from textual.screen import ModalScreen, ScreenResultType
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

from tts_tui.ui.widgets.prompt import ProblemInput


class Dialog(ModalScreen[ScreenResultType]):
    """A dialog that closes only once: the second Enter of a burst must not close the screen below it."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Close the dialog, if it is still open."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Palette(CommandPalette):
    """Textual's command palette, made to close only once, too."""

    def dismiss(self, result: None = None) -> AwaitComplete:
        """Close the palette, if it is still open."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Question(Dialog[bool]):
    """A yes/no question.

    Args:
        text: The question.
        yes: What a yes does, in a word or two.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "yes", id="question.yes", tooltip="Do it"),
        Binding("n,escape,q", "answer(False)", "no", id="question.no", tooltip="Leave everything as it is"),
    ]

    def __init__(self, text: str, yes: str) -> None:
        super().__init__()
        self._text, self._yes = text, yes

    def compose(self) -> ComposeResult:
        """Lay out the question and its keys."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_subtitle = f"y {self._yes} · n back"  # in the border, so that it is visible at any size
            yield Static(self._text, markup=False)

    def action_answer(self, yes: bool) -> None:
        """Close the dialog with the answer."""
        self.dismiss(yes)


class Write(Dialog["str | None"]):
    """An editor for a step that the user writes.

    Args:
        where: The label of the step that the new one follows.
        text: The initial text.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back", id="write.leave", tooltip="Write nothing"),
    ]

    def __init__(self, where: str, text: str = "") -> None:
        super().__init__()
        self._where, self._text = where, text

    def compose(self) -> ComposeResult:
        """Lay out the text field and its title."""
        with Vertical(classes="dialog"):
            yield Static(f"Your own next step after step {self._where}; the search goes on from it.", markup=False)
            yield ProblemInput(self._text, id="own-step", placeholder="Step 2: 15 - 6 = 9")
            yield Static("enter  add it     ctrl+j  new line     esc  back", markup=False, classes="hint")

    def on_problem_input_submitted(self, event: ProblemInput.Submitted) -> None:
        """Close the dialog with the text."""
        if event.text.strip():
            self.dismiss(event.text)

    def action_leave(self) -> None:
        """Close the dialog without a text."""
        self.dismiss(None)


class ChoiceDialog(Dialog["int | None"]):
    """A choice of one line among several.

    Args:
        title: The purpose of the choice.
        lines: The choices.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back", id="choice.leave", tooltip="Choose nothing"),
    ]

    def __init__(self, title: str, lines: Sequence[Text]) -> None:
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        """Lay out the list of choices."""
        with Vertical(classes="dialog"):
            yield Label(self._title, markup=False)
            yield OptionList(*[Option(line) for line in self._lines])
            yield Static("enter  choose     esc  back", markup=False, classes="hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Close the dialog with the index of the choice."""
        self.dismiss(event.option_index)

    def action_leave(self) -> None:
        """Close the dialog without a choice."""
        self.dismiss(None)
