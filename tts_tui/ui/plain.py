"""The plain display: a search told in lines, for pipes, logs, screen readers and simple terminals.

Lines are only ever added: no colour, no cursor, no spinner, and no meaning in a glyph alone.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, TextIO

from tts_tui.events import (
    WRITTEN,
    AnyEvent,
    BranchBegun,
    NodesKept,
    NodesPruned,
    Notice,
    PlanChanged,
    ScoreFailed,
    SearchContinued,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SearchStepped,
    SolutionFound,
    StepFailed,
    StepFinished,
    StepStarted,
)
from tts_tui.tree import Node
from tts_tui.ui import words
from tts_tui.ui.display import Display
from tts_tui.ui.text import one_line, plural
from tts_tui.writing import CHANGED, CUT, ENDED

MOST_ALIKE = 40
"""Lines of one kind that are said one by one; of a larger search the rest is summed up."""
SUMMARY = 5.0
"""Seconds of silence after which a line sums up where the search stands."""


class PlainDisplay(Display):
    """Tells a search in sentences."""

    talks = True

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._said: Counter[str] = Counter()
        self._spoke_at = 0.0
        self._told = False
        self._tellers: dict[type[Any], Callable[[Any], None]] = {
            SearchStarted: self._started,
            SearchResumed: self._resumed,
            SolutionFound: self._solution,
            NodesKept: self._kept,
            NodesPruned: self._pruned,
            BranchBegun: self._branch,
            PlanChanged: self._plan_changed,
            StepStarted: self._asked,
            StepFinished: self._written,
            StepFailed: self._step_failed,
            ScoreFailed: self._score_failed,
            Notice: lambda event: self._say(one_line(event.message), event.t),
            SearchPaused: lambda event: self._say("Paused.", event.t),
            SearchStepped: lambda event: self._say("One round." if event.round else "One step.", event.t),
            SearchContinued: lambda event: self._say("Going on.", event.t),
        }

    def show(self, event: AnyEvent) -> None:
        """Says what is worth saying about an event, or where the search stands after some silence."""
        teller = self._tellers.get(type(event))
        if teller is not None:
            teller(event)
        elif not isinstance(event, SearchFinished):
            self._silence(event.t)

    def conclude(self, finished: SearchFinished | None) -> None:
        """Says how it ended."""
        lines = [words.CUT_OFF] if finished is None else list(words.closing(finished))
        self.guard(lambda: self.out.write("\n".join(lines) + "\n"))

    def stopping(self) -> None:
        """Says so on standard error: what is being written to standard output may be in the middle of a line."""
        with contextlib.suppress(OSError):
            os.write(2, b"tts-tui: stopping; once more to leave at once\n")

    # -- sentences ---------------------------------------------------------------------------------------------------

    def _say(self, sentence: str, t: float) -> None:
        self._spoke_at = t
        self.out.write(f"{t:.1f} s: {sentence}\n")

    def _enough(self, kind: str, t: float) -> bool:
        """Whether so much of this kind was said that it is only summed up from now on."""
        self._said[kind] += 1
        if self._said[kind] <= MOST_ALIKE:
            return False
        self._silence(t)
        return True

    def _silence(self, t: float) -> None:
        if t - self._spoke_at >= SUMMARY:
            self._summary(t)

    def _summary(self, t: float) -> None:
        tree = self.tree
        self._say(
            f"{plural(len(tree), 'step')} so far, {len(self.writing)} of them being written; "
            f"{plural(tree.counts.completion, 'token')} written; {plural(len(tree.solutions), 'solution')}.",
            t,
        )

    def _started(self, event: SearchStarted) -> None:
        self._told = True
        self.out.write("\n".join(words.opening(event)) + "\n")

    def _resumed(self, event: SearchResumed) -> None:
        if not self._told:
            self._started(self.tree.start)
        self._say("Resumed.", event.t)
        self._summary(event.t)

    def _solution(self, event: SolutionFound) -> None:
        if self._enough("solution", event.t):
            return
        node = self.tree.nodes[event.node]
        what = "no answer can be read" if event.answer is None else f"answer {words.answer(event.answer)}"
        self._say(f"Solution {len(self.tree.solutions)}, {words.scored(node)}: {what}.", event.t)

    def _kept(self, event: NodesKept) -> None:
        if event.by == "person":
            self._say(f"Restored by hand: {self._steps(event.nodes)}.", event.t)
            return
        if self._enough("kept", event.t):
            return
        self._say(f"Kept {self._steps(event.nodes)}: {one_line(event.why)}.", event.t)

    def _pruned(self, event: NodesPruned) -> None:
        if event.by == "person":
            self._say(f"Cut by hand: {self._steps(event.nodes)}.", event.t)
            return
        if self._enough("pruned", event.t):
            return
        self._say(f"Pruned {self._steps(event.nodes)}: {one_line(event.why)}.", event.t)

    def _branch(self, event: BranchBegun) -> None:
        self._say(f"The search also goes on from {words.scored(self.tree.nodes[event.node])}.", event.t)

    def _plan_changed(self, event: PlanChanged) -> None:
        self._say(f"The plan is now: {words.plan(event.plan)}.", event.t)

    def _asked(self, event: StepStarted) -> None:
        node = self.tree.nodes[event.node]
        if event.by == "person" and event.group != WRITTEN and not self._is_copied(node):
            self._say(f"A person asked for step {node.label}.", event.t)
        else:
            self._silence(event.t)

    def _written(self, event: StepFinished) -> None:
        node = self.tree.nodes[event.node]
        if node.by_hand and node.group == WRITTEN and not self._is_copied(node):
            self._say(f"A person wrote step {node.label}: {one_line(event.text, 300)}", event.t)
        else:
            self._silence(event.t)

    def _is_copied(self, node: Node) -> bool:
        origin = self.tree.start.origin
        return origin is not None and node.id <= origin.steps

    def _step_failed(self, event: StepFailed) -> None:
        meant = event.error in (ENDED, CUT, CHANGED)  # an end is no failure, and said once
        if meant or self._enough("failed", event.t):
            return
        again = ", trying again" if event.retry else ""
        node = self.tree.nodes[event.node]
        self._say(f"Step {node.label} failed{again}: {one_line(event.error)}.", event.t)

    def _score_failed(self, event: ScoreFailed) -> None:
        if self._enough("unscored", event.t):
            return
        again = "trying again" if event.retry else "going on without a score"
        what = plural(len(event.nodes), "step")
        self._say(f"Scoring {what} failed, {again}: {one_line(event.error)}.", event.t)

    def _steps(self, ids: tuple[int, ...]) -> str:
        nodes = [self.tree.nodes[id] for id in ids]
        if len(nodes) == 1:
            return words.scored(nodes[0])
        return plural(len(nodes), "step") + _range(nodes)


def _range(nodes: list[Node]) -> str:
    scores = [node.score for node in nodes if node.score is not None]
    return f" (scores {max(scores):.2f} to {min(scores):.2f})" if scores else ""
