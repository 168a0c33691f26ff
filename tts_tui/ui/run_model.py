"""What the terminal UI knows of one run, as plain values: the fold of its events, without any widget.

Events only change values here. Widgets pull from it with a timer, so that a token costs next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from tts_tui.answers.voting import AnswerVotes
from tts_tui.displays.live_metrics import Rate, Votes
from tts_tui.displays.narration import describe
from tts_tui.tree.events import (
    AnyEvent,
    NodesKept,
    NodesPruned,
    PlanChanged,
    SearchResumed,
    StepFailed,
    StepFinished,
    StepMerged,
    StepScored,
    StepStarted,
)
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui.tree_rows import TreeRows


class StoryLine(NamedTuple):
    """One sentence of the story of a run, `t` seconds after its beginning."""

    t: float
    sentence: str


class RunModel:
    """One run as the screens see it.

    Args:
        tree: The tree of a search that folds its events itself; then call `hear`. By default a tree of its own, into
            which `apply` folds.
        votes: Who counts the votes; another moment of the same run may have the same.

    Attributes:
        tree: The fold of the events.
        folding: Which rows the tree view has.
        writing: Ids of the steps that are being written, oldest first.
        decisions: The story so far.
        policy_rate, prm_rate: Tokens a second, lately.
        counting: Who counts the votes.
    """

    def __init__(self, tree: SearchTree | None = None, votes: Votes | None = None) -> None:
        self.tree = tree if tree is not None else SearchTree()
        self.folding = TreeRows(self.tree)
        self.writing: dict[int, None] = {}
        self.decisions: list[StoryLine] = []
        self.policy_rate = Rate()
        self.prm_rate = Rate()
        self.counting = votes if votes is not None else Votes()
        self._changed: set[int] = set()

    def apply(self, event: AnyEvent) -> None:
        """Folds an event, and hears it."""
        self.tree.apply(event)
        self.hear(event)

    def hear(self, event: AnyEvent) -> None:
        """Takes note of an event that is in the tree already, and tells it."""
        self.note(event)
        if (sentence := describe(event, self.tree)) is not None:
            self.decisions.append(StoryLine(event.t, sentence))

    def note(self, event: AnyEvent) -> None:
        """The same without a word, for what was told before."""
        match event:
            case StepStarted():
                self.writing[event.node] = None
            case StepFinished() | StepFailed():
                self.writing.pop(event.node, None)
                self._changed.add(event.node)
            case StepScored() | StepMerged():
                self._changed.add(event.node)
            case NodesKept() | NodesPruned():
                self._changed.update(event.nodes)
            case PlanChanged():
                self._changed.update(range(len(self.tree.nodes)))
            case SearchResumed():
                self._changed.update(self.writing)
                self.writing.clear()

    def pull(self) -> None:
        """Brings the rows up to date with the tree; called before anything is drawn."""
        known = self.folding.known
        self.folding.sync()
        if self._changed:
            changed, self._changed = self._changed, set()
            for id in sorted(changed):
                if id < known:
                    self.folding.changed(id)

    @property
    def votes(self) -> tuple[AnswerVotes, ...]:
        """The answers with their votes, best first."""
        return self.counting.of(self.tree)

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.tree.finished is not None
