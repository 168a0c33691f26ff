"""The search tree: the fold of the events of a search.

Only `SearchTree.apply` changes a tree. Live displays, recordings and resumed searches all fold the same events, so they
cannot disagree.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tts_tui.answers.equivalence import AnswerClasses
from tts_tui.budget import TokenCounts
from tts_tui.errors import RecordCorrupt
from tts_tui.plan import Plan, requires_restart
from tts_tui.protocols import Usage
from tts_tui.tree.events import (
    ROOT,
    AnswersMatched,
    AnyEvent,
    BranchBegun,
    Event,
    NodesKept,
    NodesPruned,
    Notice,
    PlanChanged,
    PlanChosen,
    ScoreFailed,
    SearchContinued,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SearchStepped,
    SolutionFound,
    SpeculativeTokens,
    StepFailed,
    StepFinished,
    StepMerged,
    StepScored,
    StepStarted,
    StepStreamed,
)
from tts_tui.tree.node import NO_CHILDREN, Node, State

__all__ = ["Node", "SearchTree", "State"]

_NO_USAGE = Usage()


class SearchTree:
    """The state of one search.

    Attributes:
        nodes: All nodes by id; the root is first.
        started: The first event, with problem, plan and models.
        finished: The last event, once there is one.
        counts: Token totals, live.
        ahead: Tokens among them that were generated speculatively and are unused so far.
        newest: The step that was finished last.
        solutions: Nodes that completed a solution, in order of completion.
        matching: Classes of answers that mean the same although they are written differently.
        branches: Nodes from which a person had the strategy run as well, in order.
        restored: Ids of nodes that a person restored and that have not been cut since.
        plan: The current plan; the default plan until the first event.
        choices: The controller's decisions, in order, since the last change of plan that requires a restart.
        paused: True while the search is paused.
        seconds: Time of the newest event.
        notices: Messages for people.
        revision: Counts the events that may change the votes: solutions, scores, decisions and plans.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.started: SearchStarted | None = None
        self.finished: SearchFinished | None = None
        self.counts = TokenCounts()
        self.ahead = Usage()
        self.newest: Node | None = None
        self.solutions: list[Node] = []
        self.matching = AnswerClasses()
        self.branches: list[Node] = []
        self.restored: set[int] = set()
        self.plan = Plan()
        self.choices: list[PlanChosen] = []
        self.paused = False
        self.seconds = 0.0
        self.notices: list[str] = []
        self.revision = 0
        self._given = 0  # tokens of steps that were not sampled here: copied, or written by a person
        self._held = self._paused_at = 0.0
        self._has_cuts = False
        self._apart: set[int] = set()  # ids of nodes cut before the strategy had decided on them
        self._seen: set[int] = set()  # ids of nodes that the strategy had pruned before a person cut or restored them
        self._folds: dict[type[Event], Callable[[Any], None]] = {
            SearchStarted: self._started,
            SearchResumed: self._resumed,
            StepStarted: self._step_started,
            SpeculativeTokens: self._written_ahead,
            StepStreamed: self._step_streamed,
            StepFinished: self._step_finished,
            StepFailed: self._step_failed,
            StepMerged: self._step_merged,
            StepScored: self._step_scored,
            ScoreFailed: self._nothing,
            NodesKept: self._kept,
            NodesPruned: self._pruned,
            BranchBegun: self._branch,
            PlanChanged: self._plan_changed,
            PlanChosen: self._plan_chosen,
            SolutionFound: self._solution,
            AnswersMatched: self._matched,
            Notice: self._notice,
            SearchPaused: self._pause,
            SearchStepped: self._nothing,
            SearchContinued: self._continue,
            SearchFinished: self._finished,
        }

    @classmethod
    def fold(cls, events: Iterable[AnyEvent]) -> SearchTree:
        """Return a new tree with `events` applied.

        Raises:
            RecordCorrupt: The events do not form a valid search.
        """
        tree = cls()
        for event in events:
            tree.apply(event)
        return tree

    def __len__(self) -> int:
        """Return the number of steps, not counting the root."""
        return max(0, len(self.nodes) - 1)

    @property
    def root(self) -> Node:
        """The root node, which stands for the prompt."""
        return self.nodes[ROOT]

    @property
    def search_root(self) -> Node:
        """The node that the plan's strategy runs from: the root, or in a fork the last copied step."""
        origin = self.start.origin
        return self.nodes[origin.steps] if origin and origin.steps < len(self.nodes) else self.root

    @property
    def held(self) -> float:
        """Seconds that the search was paused; they do not count towards the time limit."""
        return self._held + (self.seconds - self._paused_at if self.paused else 0.0)

    @property
    def start(self) -> SearchStarted:
        """The first event.

        Raises:
            RecordCorrupt: There is no event yet.
        """
        if self.started is None:
            raise RecordCorrupt("the events do not begin with search_started: not a recording of a search")
        return self.started

    def apply(self, event: AnyEvent) -> None:
        """Apply one event to the tree.

        Raises:
            RecordCorrupt: The event refers to a node that does not exist, is out of order, or has an invalid token id.
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
        """Return the children of `parent` in `group`, oldest first, without failed ones."""
        return (child for child in parent.children if child.group == group and child.state != "failed")

    def at(self, parent: Node, slot: int, group: int) -> Node | None:
        """Return the finished child of `parent` in a slot and group; None if there is none."""
        found = (child for child in self.attempts(parent, group) if child.slot == slot and child.state == "done")
        return next(found, None)

    def unique_tokens(self) -> int:
        """Return the number of tokens of the prompt and all steps, as a perfect cache would compute them once each."""
        return len(self.start.prompt_ids) + self._given + self.counts.completion - self.ahead.completion

    def is_cut(self, node: Node) -> bool:
        """Return whether a person cut the node, or one above it."""
        above: Node | None = node
        while above is not None:
            if above.cut:
                return True
            above = above.parent
        return False

    def voters(self) -> list[Node]:
        """Return the solutions that are neither pruned nor cut, in order of completion."""
        return [node for node in self.solutions if not node.pruned and not self.is_cut(node)]

    def closed(self, parent: Node, slot: int, group: int) -> bool:
        """Return whether a slot must not be sampled again, because a person cut the step in it or a node above."""
        if self.is_cut(parent):
            return True
        return self._has_cuts and any(
            child.cut and child.slot == slot and child.group == group for child in parent.children
        )

    def is_apart(self, node: Node) -> bool:
        """Return whether a person cut the node before the strategy had decided on it."""
        return node.id in self._apart

    def left_out(self, node: Node, root: Node) -> bool:
        """Return whether `node`, or a node between it and `root`, is hidden from a strategy that runs from `root`.

        A node that a person cut before the strategy had kept or pruned it is hidden, even if it was restored since, so
        that the strategy takes the same decisions when it runs again over the recorded tree.
        """
        above: Node | None = node if self._apart else None
        while above is not None and above is not root:
            if self.is_apart(above):
                return True
            above = above.parent
        return False

    # -- one fold per event ------------------------------------------------------------------------------------------

    def _node(self, id: int) -> Node:
        if id < 0:
            raise IndexError
        return self.nodes[id]

    def _step(self, id: int, fate: str) -> Node:
        if id == ROOT:
            raise RecordCorrupt(f"an event says that the problem itself was {fate}: only steps can be")
        return self._node(id)

    def _started(self, event: SearchStarted) -> None:
        if self.started is not None:
            raise RecordCorrupt("a second search_started: two recordings in one file")
        self.started = event
        self.plan = event.plan
        root = Node(ROOT, None)
        root.state = "done"
        self.nodes.append(root)

    def _resumed(self, event: SearchResumed) -> None:
        self.finished = None
        self._hold(event.t)
        self.paused = False
        for node in self.nodes:
            if node.state == "writing":
                node.state, node.why = "failed", "interrupted"

    def _step_started(self, event: StepStarted) -> None:
        if event.node != len(self.nodes):
            raise RecordCorrupt(f"step {event.node} follows step {len(self.nodes) - 1}: events are missing")
        parent = self._node(event.parent)
        node = Node(event.node, parent, event.slot, event.group)
        node.by_hand = event.by == "person"
        if event.ahead != _NO_USAGE:
            node.usage = event.ahead
            self.ahead -= event.ahead
        self.nodes.append(node)
        if parent.children is NO_CHILDREN:
            parent.children = [node]
        else:
            parent.children.append(node)

    def _written_ahead(self, event: SpeculativeTokens) -> None:
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
        if event.usage == _NO_USAGE:
            self._given += len(event.ids)
        self._settle(node, event.usage)

    def _step_failed(self, event: StepFailed) -> None:
        node = self._node(event.node)
        node.state = "failed"
        node.why = event.error
        self._settle(node, event.usage)

    def _step_merged(self, event: StepMerged) -> None:
        self.revision += 1
        self._node(event.into)
        node = self._step(event.node, "merged")
        assert node.parent is not None
        for sibling in node.parent.children:  # siblings merged into it earlier are merged on
            if sibling is node or sibling.merged_into == node.id:
                sibling.merged_into = event.into
        if node.solved:
            self.solutions.remove(node)
            node.solved, node.answer = False, None

    def _step_scored(self, event: StepScored) -> None:
        self.revision += 1
        self._node(event.node).score = event.score
        self.counts.prm_computed += event.computed
        self.counts.prm_cached += event.cached

    def _kept(self, event: NodesKept) -> None:
        self.revision += 1
        for id in event.nodes:
            node = self._node(id)
            if event.by == "person":
                self._remember(node)
                node.cut = False
                self.restored.add(id)
            else:
                node.kept = True
                self._apart.discard(id)
            if not node.cut:
                node.pruned, node.why = False, event.why

    def _pruned(self, event: NodesPruned) -> None:
        self.revision += 1
        for id in event.nodes:
            node = self._step(id, "given up")
            if event.by == "person":
                self._remember(node)
                node.cut = self._has_cuts = True
                self.restored.discard(id)
                if not node.kept and id not in self._seen:
                    self._apart.add(id)
            elif node.cut:  # the strategy decided before it saw the cut
                self._apart.discard(id)
                self._seen.add(id)
                continue
            node.pruned, node.why = True, event.why

    def _remember(self, node: Node) -> None:
        """Remember the strategy's decision on a node that a person is about to overrule."""
        if node.pruned and not node.cut:
            self._seen.add(node.id)

    def _branch(self, event: BranchBegun) -> None:
        self.branches.append(self._node(event.node))

    def _plan_changed(self, event: PlanChanged) -> None:
        self.revision += 1
        before, self.plan = self.plan, event.plan
        if not requires_restart(before, event.plan):
            return
        self.choices.clear()
        for node in self.nodes:
            node.kept = False
            if node.pruned and not node.cut:
                node.pruned, node.why = False, ""
        self._apart = {node.id for node in self.nodes if node.cut}
        self._seen.clear()

    def _plan_chosen(self, event: PlanChosen) -> None:
        self.revision += 1
        self.choices.append(event)
        self.counts.add(event.usage)

    def _solution(self, event: SolutionFound) -> None:
        self.revision += 1
        node = self._node(event.node)
        if not node.solved:
            self.solutions.append(node)
        node.solved, node.answer = True, event.answer

    def _matched(self, event: AnswersMatched) -> None:
        self.revision += 1
        self.matching.join(event.left, event.right)

    def _notice(self, event: Notice) -> None:
        self.notices.append(event.message)

    def _pause(self, event: SearchPaused) -> None:
        if not self.paused:
            self.paused, self._paused_at = True, event.t

    def _continue(self, event: SearchContinued) -> None:
        self._hold(event.t)
        self.paused = False

    def _hold(self, until: float) -> None:
        if self.paused:
            self._held += max(0.0, until - self._paused_at)
            self._paused_at = until

    def _finished(self, event: SearchFinished) -> None:
        for id in (*([] if event.node is None else [event.node]), *(n for vote in event.votes for n in vote.solutions)):
            self._node(id)
        self.finished = event

    def _nothing(self, event: Event) -> None:
        """Ignore an event that does not change the tree."""
