"""Two runs side by side: their trees, answers, costs, and the choices of `auto`."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import Footer

from tts_tui.budget import flops
from tts_tui.displays import decisions, phrases
from tts_tui.formatting import one_line, percent, short
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui import panels
from tts_tui.ui.run_model import RunModel
from tts_tui.ui.screens.base import LAST, TreeScreen
from tts_tui.ui.widgets.field import Field
from tts_tui.ui.widgets.lazy_static import LazyStatic
from tts_tui.ui.widgets.tree_view import TreeView

FRAMES = 8.0
TALL, SIDE_BY_SIDE = 30, 80
"""Rows and columns from which the screen is tall, or wide enough for two columns; as in the app's breakpoints."""
STACKED = 20
"""Number of rows below which two stacked trees need all of them."""


class CompareScreen(TreeScreen):
    """A comparison of two runs, which may both still be running.

    Args:
        first, second: The runs.
        names: The names of the runs.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other", "other side", id="compare.other", tooltip="Go to the other tree"),
        Binding("escape,q", "leave", "back", id="compare.leave", tooltip="Back to where you came from"),
        *LAST,
    ]

    def __init__(self, first: RunModel, second: RunModel, names: tuple[str, str] = ("left", "right")) -> None:
        super().__init__()
        self.models = (first, second)
        self._names = names
        self._tick = 0
        self._side = 0

    @property
    def model(self) -> RunModel:
        """The run on the side that has, or last had, the focus."""
        return self.models[self._side]

    @property
    def tree_view(self) -> TreeView:
        """The tree view on the side that has, or last had, the focus."""
        return self.query_one(("#left-tree", "#right-tree")[self._side], TreeView)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Remember which side has the focus."""
        if isinstance(event.widget, TreeView):
            self._side = int(event.widget.id == "right-tree")

    def compose(self) -> ComposeResult:
        """Lay out two trees above one table."""
        with Horizontal(id="pair"):
            for side in ("left", "right"):
                with Vertical(classes="half"):
                    yield LazyStatic(id=f"{side}-status")
                    yield TreeView(id=f"{side}-tree")
                    yield LazyStatic(id=f"{side}-answers")
                    yield LazyStatic(id=f"{side}-choices", classes="choices")
        yield Field(id="find", placeholder="find in the tree; enter next, esc close", compact=True)
        yield LazyStatic(id="table")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show both runs, and start the timer."""
        for side, model, name in zip(("left", "right"), self.models, self._names, strict=True):
            view = self.query_one(f"#{side}-tree", TreeView)
            view.border_title = Content(one_line(name, 60))  # a plain str would be parsed as markup
            model.pull()
            view.show(model)
        self.query_one("#find").display = False
        self.query_one("#left-tree").focus()
        self.complete = True
        self.begin_pulse(FRAMES)
        self.tick()

    @property
    def lively(self) -> bool:
        """True if one of the runs is still changing."""
        return any(runner.changing and runner.model in self.models for runner in self.app.runners)

    def look(self) -> None:
        """Refresh both runs."""
        self.tick()

    def tick(self) -> None:
        """Bring both trees and the table up to date."""
        if self.app.screen is not self:
            return
        self._tick += 1
        for side, model in zip(("left", "right"), self.models, strict=True):
            view = self.query_one(f"#{side}-tree", TreeView)
            if not view.frozen:
                model.pull()
            view.pull(self._tick)
            width = max(10, view.size.width)
            self.query_one(f"#{side}-status", LazyStatic).put([panels.status(model, width)])
            self.query_one(f"#{side}-answers", LazyStatic).put(panels.answers(model, width, 3))
            chosen, course = (
                self.query_one(f"#{side}-choices", LazyStatic),
                decisions.course(model.tree, width, self._rows),
            )
            chosen.put(course)
            chosen.display = bool(course)  # without lines it would take up a blank line
        self.query_one("#table", LazyStatic).put(table(*self.models, width=self.size.width))

    @property
    def _rows(self) -> int:
        """Number of rows for the choices of `auto`, which depends on whether the trees are stacked."""
        if self.size.width >= SIDE_BY_SIDE:
            return 4 if self.size.height >= TALL else 2
        return 2 if self.size.height >= TALL else int(self.size.height >= STACKED)

    def action_other(self) -> None:
        """Move the focus to the other tree."""
        self.query_one(("#right-tree", "#left-tree")[self._side]).focus()

    def action_leave(self) -> None:
        """Close the screen."""
        if not self.close_find():
            self.app.pop_screen()


def figures(tree: SearchTree) -> list[tuple[str, float, str]]:
    """Return the figures of a run: label, number, and the formatted number; nan if there is none to compare."""
    counts = tree.counts
    spent = sum(flops(counts, tree.start.policy, tree.start.prm))
    return [
        ("steps", float(len(tree)), f"{len(tree):,}"),
        ("solutions", float(len(tree.solutions)), f"{len(tree.solutions):,}"),
        ("tokens computed", float(counts.computed), f"{counts.computed:,}"),
        ("written", float(counts.completion), f"{counts.completion:,}"),
        ("prompt cached", counts.cached_share, percent(counts.cached_share)),
        ("FLOPs", spent, short(spent)),
        ("seconds", tree.seconds, f"{tree.seconds:.1f}"),
    ]


def table(first: RunModel, second: RunModel, *, width: int) -> list[Text]:
    """Return a table with the figures of both runs and their ratios."""
    if first.tree.started is None or second.tree.started is None:
        return []
    lines = []
    answers = [phrases.answer(m.votes[0].answer) if m.votes else "none" for m in (first, second)]
    column = min(28, max(12, (width - 30) // 3))
    lines.append(_row("answer", one_line(answers[0], column), one_line(answers[1], column), "", column))
    for (label, a, said), (_, b, other) in zip(figures(first.tree), figures(second.tree), strict=True):
        lines.append(_row(label, said, other, f"× {b / a:.2f}" if a and label != "prompt cached" else "", column))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _row(label: str, first: str, second: str, ratio: str, column: int) -> Text:
    line = Text(f" {label:<16}", style="dim", no_wrap=True)
    line.append(f"{first:>{column}}", style="not dim bold").append(f"{second:>{column}}", style="not dim bold")
    return line.append(f"   {ratio}", style="not dim")
