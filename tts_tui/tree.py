"""The search tree: what the events of a search add up to.

`SearchTree.apply` is the only way in. Live displays, recordings and resumed searches all fold the same events, so they
cannot disagree.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from tts_tui.budget import Counts
from tts_tui.contracts import Finish, Usage
from tts_tui.errors import RecordCorrupt
from tts_tui.events import (
    ROOT,
    AnyEvent,
    Event,
    NodesKept,
    NodesPruned,
    Notice,
    ScoreFailed,
    SearchContinued,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SolutionFound,
    StepFailed,
    StepFinished,
    StepMerged,
    StepScored,
    StepStarted,
    StepStreamed,
    WrittenAhead,
)

State = Literal["writing", "done", "failed"]

_NOTHING: list[Any] = []
_NO_USAGE = Usage()


class Node:
    """One step. Its id never changes, and its parent is always older.

    Attributes:
        id: Position in `SearchTree.nodes`.
        parent: The step before; None for the root.
        slot: Which of the parent's continuations it is; with `group` the address that a resumed search looks it up by.
        group: Which independent part of the search it belongs to.
        ids: Token ids, exactly as sampled.
        text: What they say; grows while the step is written.
        state: "writing", "done" or "failed".
        finish: How the step ended, once done.
        score: The PRM's score in [0, 1], or None.
        usage: Policy tokens it cost.
        merged_into: The older sibling with the same text, if any.
        pruned: The strategy gave it up.
        why: Why it was kept, pruned, or failed.
        solved: It ended its path's answer.
        answer: The answer read out of that path, if any.
    """

    __slots__ = (
        "answer",
        "children",
        "finish",
        "group",
        "id",
        "ids",
        "merged_into",
        "parent",
        "pruned",
        "score",
        "slot",
        "solved",
        "state",
        "text",
        "usage",
        "why",
    )

    def __init__(self, id: int, parent: Node | None, slot: int = 0, group: int = 0) -> None:
        self.id = id
        self.parent = parent
        self.slot = slot
        self.group = group
        self.children: list[Node] = _NOTHING
        self.ids: array[int] | None = None
        self.text = ""
        self.state: State = "writing"
        self.finish: Finish | None = None
        self.score: float | None = None
        self.usage: Usage | None = None
        self.merged_into: int | None = None
        self.pruned = False
        self.why = ""
        self.solved = False
        self.answer: str | None = None

    def __repr__(self) -> str:
        return f"<Node {self.id} {self.state} {self.text[:30]!r}>"

    @property
    def blank(self) -> bool:
        """Whether the step says nothing."""
        return not self.text.strip()

    @property
    def terminal(self) -> bool:
        """Whether the answer ended here."""
        return self.finish in ("eos", "boxed")

    @property
    def path(self) -> list[Node]:
        """The steps from the first to this one, root left out."""
        nodes = []
        node: Node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    @property
    def depth(self) -> int:
        """Number of steps up to this one; 0 for the root."""
        return len(self.path)

    @property
    def label(self) -> str:
        """The address as people read it, such as `0.3.1`: the place among its siblings at every level."""
        return ".".join(["0", *(str(step.parent.children.index(step)) for step in self.path if step.parent)])

    @property
    def path_ids(self) -> list[int]:
        """Token ids of the path, without the prompt."""
        return [token for step in self.path if step.ids is not None for token in step.ids]

    @property
    def path_text(self) -> str:
        """Text of the path."""
        return "".join(step.text for step in self.path)

    @property
    def scores(self) -> list[float]:
        """Scores of the path's steps. A blank step has none, so "last" is never the score of an empty step."""
        return [step.score for step in self.path if step.score is not None]

    @property
    def value(self) -> float:
        """Score of the path's last step that says something; -1 if it has none, so that it sorts last."""
        node: Node | None = self
        while node is not None and node.blank:
            node = node.parent
        return -1.0 if node is None or node.score is None else node.score


class SearchTree:
    """The state of one search.

    Attributes:
        nodes: All nodes by id; the root is first.
        started: The first event, with problem, plan and models.
        finished: The last event, once there is one.
        counts: Token totals, live.
        ahead: Tokens among them that were written ahead of their time, and not used so far.
        newest: The step that was finished last.
        solutions: Nodes that ended an answer, in the order in which they did.
        paused: Whether the search is paused.
        seconds: Time of the newest event.
        notices: Messages for people.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.started: SearchStarted | None = None
        self.finished: SearchFinished | None = None
        self.counts = Counts()
        self.ahead = Usage()
        self.newest: Node | None = None
        self.solutions: list[Node] = []
        self.paused = False
        self.seconds = 0.0
        self.notices: list[str] = []
        self._folds: dict[type[Event], Callable[[Any], None]] = {
            SearchStarted: self._started,
            SearchResumed: self._resumed,
            StepStarted: self._step_started,
            WrittenAhead: self._written_ahead,
            StepStreamed: self._step_streamed,
            StepFinished: self._step_finished,
            StepFailed: self._step_failed,
            StepMerged: self._step_merged,
            StepScored: self._step_scored,
            ScoreFailed: self._nothing,
            NodesKept: self._kept,
            NodesPruned: self._pruned,
            SolutionFound: self._solution,
            Notice: self._notice,
            SearchPaused: self._pause,
            SearchContinued: self._continue,
            SearchFinished: self._finished,
        }

    @classmethod
    def fold(cls, events: Iterable[AnyEvent]) -> SearchTree:
        """The tree that `events` add up to."""
        tree = cls()
        for event in events:
            tree.apply(event)
        return tree

    def __len__(self) -> int:
        """Number of steps; the root is none."""
        return max(0, len(self.nodes) - 1)

    @property
    def root(self) -> Node:
        """The node of the prompt."""
        return self.nodes[ROOT]

    @property
    def start(self) -> SearchStarted:
        """The first event.

        Raises:
            RecordCorrupt: There is none yet.
        """
        if self.started is None:
            raise RecordCorrupt("the events do not begin with search_started: not a recording of a search")
        return self.started

    def apply(self, event: AnyEvent) -> None:
        """Adds one event.

        Raises:
            RecordCorrupt: The event refers to what does not exist.
        """
        if self.started is None and not isinstance(event, SearchStarted):
            raise RecordCorrupt(f"the events begin with {type(event).__name__} instead of search_started")
        if event.t > self.seconds:
            self.seconds = event.t
        try:
            self._folds[type(event)](event)
        except IndexError as error:
            raise RecordCorrupt(f"{type(event).__name__} refers to a node that does not exist") from error
        except OverflowError as error:
            raise RecordCorrupt(f"{type(event).__name__} holds a number that cannot be a token id") from error

    def attempts(self, parent: Node, group: int) -> Iterator[Node]:
        """Children of `parent` in `group`, oldest first, failed ones left out."""
        return (child for child in parent.children if child.group == group and child.state != "failed")

    def at(self, parent: Node, slot: int, group: int) -> Node | None:
        """The whole step of `parent` in that slot, if there is one."""
        found = (child for child in self.attempts(parent, group) if child.slot == slot and child.state == "done")
        return next(found, None)

    def unique_tokens(self) -> int:
        """Prompt tokens and all tokens of all steps: what a perfect cache would compute."""
        return len(self.start.prompt_ids) + self.counts.completion - self.ahead.completion

    # -- one fold per event ------------------------------------------------------------------------------------------

    def _node(self, id: int) -> Node:
        if id < 0:
            raise IndexError
        return self.nodes[id]

    def _started(self, event: SearchStarted) -> None:
        if self.started is not None:
            raise RecordCorrupt("a second search_started: two recordings in one file")
        self.started = event
        root = Node(ROOT, None)
        root.state = "done"
        self.nodes.append(root)

    def _resumed(self, event: SearchResumed) -> None:
        self.finished = None
        self.paused = False
        for node in self.nodes:
            if node.state == "writing":
                node.state, node.why = "failed", "interrupted"

    def _step_started(self, event: StepStarted) -> None:
        if event.node != len(self.nodes):
            raise RecordCorrupt(f"step {event.node} follows step {len(self.nodes) - 1}: events are missing")
        parent = self._node(event.parent)
        node = Node(event.node, parent, event.slot, event.group)
        if event.ahead != _NO_USAGE:
            node.usage = event.ahead
            self.ahead -= event.ahead
        self.nodes.append(node)
        if parent.children is _NOTHING:
            parent.children = [node]
        else:
            parent.children.append(node)

    def _written_ahead(self, event: WrittenAhead) -> None:
        self._node(event.node)
        self.ahead += event.usage
        self.counts.add(event.usage)

    def _step_streamed(self, event: StepStreamed) -> None:
        node = self._node(event.node)
        node.text += event.text
        node.usage = event.usage if node.usage is None else node.usage + event.usage
        self.counts.add(event.usage)

    def _settle(self, node: Node, usage: Usage) -> None:
        if node.usage is not None:
            self.counts.add(node.usage, -1)
        node.usage = usage
        self.counts.add(usage)

    def _step_finished(self, event: StepFinished) -> None:
        node = self._node(event.node)
        node.state = "done"
        node.ids = array("i", event.ids)
        node.text = event.text
        node.finish = event.finish
        self.newest = node
        self._settle(node, event.usage)

    def _step_failed(self, event: StepFailed) -> None:
        node = self._node(event.node)
        node.state = "failed"
        node.why = event.error
        self._settle(node, event.usage)

    def _step_merged(self, event: StepMerged) -> None:
        self._node(event.into)
        self._node(event.node).merged_into = event.into

    def _step_scored(self, event: StepScored) -> None:
        self._node(event.node).score = event.score
        self.counts.prm_computed += event.computed
        self.counts.prm_cached += event.cached

    def _kept(self, event: NodesKept) -> None:
        for id in event.nodes:
            node = self._node(id)
            node.pruned, node.why = False, event.why

    def _pruned(self, event: NodesPruned) -> None:
        for id in event.nodes:
            node = self._node(id)
            node.pruned, node.why = True, event.why

    def _solution(self, event: SolutionFound) -> None:
        node = self._node(event.node)
        if not node.solved:
            self.solutions.append(node)
        node.solved, node.answer = True, event.answer

    def _notice(self, event: Notice) -> None:
        self.notices.append(event.message)

    def _pause(self, event: SearchPaused) -> None:
        self.paused = True

    def _continue(self, event: SearchContinued) -> None:
        self.paused = False

    def _finished(self, event: SearchFinished) -> None:
        for id in (*([] if event.node is None else [event.node]), *(n for vote in event.votes for n in vote.solutions)):
            self._node(id)
        self.finished = event

    def _nothing(self, event: Event) -> None:
        """Failed scorings change no node: it simply has no score."""
