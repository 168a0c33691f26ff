"""The state of one run in the terminal UI, as plain values folded from its events, without any widget.

Events only change values here. Widgets pull from it on a timer, so that a token costs next to nothing.
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
    """A sentence of the story of a run, `t` seconds after its start."""

    t: float
    sentence: str


class RunModel:
    """The state of one run as the screens show it.

    Args:
        tree: The tree of a search that folds its events itself; then call `hear`. By default a tree of its own, into
            which `apply` folds.
        votes: The vote counter; models of other moments of the same run may share it.

    Attributes:
        tree: The fold of the events.
        folding: The rows of the tree view.
        writing: Ids of the steps that are being generated, oldest first.
        decisions: The story so far.
        policy_rate, prm_rate: Recent throughput, in tokens per second.
        counting: The vote counter.
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
        """Fold an event into the tree and process it with `hear`."""
        self.tree.apply(event)
        self.hear(event)

    def hear(self, event: AnyEvent) -> None:
        """Process an event that is already in the tree, and add it to the story."""
        self.note(event)
        if (sentence := describe(event, self.tree)) is not None:
            self.decisions.append(StoryLine(event.t, sentence))

    def note(self, event: AnyEvent) -> None:
        """Process an event that is already in the tree without adding it to the story."""
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
        """Bring the rows up to date with the tree; called before anything is drawn."""
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
        """True if the run has ended."""
        return self.tree.finished is not None
