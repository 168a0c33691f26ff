"""The panel with one step in full: its facts, the path that led to it, and its text, live while it is generated."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from tts_tui.displays import formula
from tts_tui.displays.prose import as_rich
from tts_tui.formatting import clean
from tts_tui.tree.search_tree import Node, SearchTree
from tts_tui.ui import panels
from tts_tui.ui.widgets.lazy_static import LazyStatic

LIVE = 3000
"""Number of characters drawn of a growing text, the last ones: drawing all would cost more with every token."""
BEFORE = 4000
"""Maximum number of characters shown of the preceding steps."""
WHOLE = 20_000
"""Maximum number of characters shown of a finished step."""


class StepView(VerticalScroll, can_focus=True):
    """A view of one step of a tree."""

    ALLOW_MAXIMIZE = True

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._seen: tuple[object, ...] = ()
        self._place: tuple[int, int] = (0, -1)

    def compose(self) -> ComposeResult:
        """Lay out the head above the text."""
        yield LazyStatic(id="step-head")
        yield Static(id="step-text", markup=False)

    def on_mount(self) -> None:
        """Import what rendering needs before a search runs: an import during a search would stall it."""
        self.call_after_refresh(formula.convert, "x")

    def put(self, tree: SearchTree, id: int | None) -> bool:
        """Show step `id`, and return whether anything was drawn."""
        if tree.started is None or id is None or id >= len(tree.nodes):
            return False
        node = tree.nodes[id]
        head = panels.step_head(node, max(20, self.size.width - 2))
        drawn = self.query_one(LazyStatic).put(head)
        writing = node.state == "writing"
        seen = (builtin_id(tree), id, node.state, len(node.text))
        if seen == self._seen:
            return drawn
        self._seen = seen
        self.query_one("#step-text", Static).update(self._live(node) if writing else whole(tree, node))
        if self._place != (builtin_id(tree), id):
            self._place = (builtin_id(tree), id)
            self.scroll_home(animate=False)
        elif writing:
            self.scroll_end(animate=False)
        return True

    def say(self, lines: Sequence[Text]) -> None:
        """Show a message instead of a step: why the view is waiting, or an error."""
        seen = ("said", *(line.plain for line in lines))
        if seen != self._seen:
            self._seen = seen
            self.query_one(LazyStatic).put([])
            self.query_one("#step-text", Static).update(Group(*lines))

    def _live(self, node: Node) -> RenderableType:
        text = clean(node.text[-LIVE:])
        return Text(("…" if len(node.text) > LIVE else "") + text + "▌")


builtin_id = id


def whole(tree: SearchTree, node: Node) -> RenderableType:
    """Return a finished step in readable form, below the steps before it."""
    if node.parent is None:
        return _drawn(tree.start.problem)
    before = "".join(step.text for step in node.path[:-1])
    if not before.strip():
        return _drawn(node.text)
    cut = Text("…" if len(before) > BEFORE else "", style="dim")
    return Group(cut + as_rich(before[-BEFORE:], "dim") + "\n", _drawn(node.text))


def _drawn(text: str) -> Text:
    if len(text) > WHOLE:
        return Text(f"{clean(text[:WHOLE])}…\n({len(text) - WHOLE:,} more characters)")
    return as_rich(text)
