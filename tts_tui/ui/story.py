"""What happened, in sentences: one for each event that is worth one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tts_tui.events import (
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
    StepStarted,
)
from tts_tui.tree import Node, SearchTree
from tts_tui.ui import words
from tts_tui.ui.text import one_line, plural


def tell(event: AnyEvent, tree: SearchTree) -> str | None:
    """The sentence of `event`, which `tree` has already; None if it needs none."""
    teller = _TELLERS.get(type(event))
    return teller(event, tree) if teller is not None else None


def steps(ids: tuple[int, ...], tree: SearchTree) -> str:
    """`step 0.3.1 (score 0.92)`, or `4 steps (scores 0.92 to 0.41)`."""
    nodes = [tree.nodes[id] for id in ids]
    return words.scored(nodes[0]) if len(nodes) == 1 else plural(len(nodes), "step") + _range(nodes)


def _range(nodes: list[Node]) -> str:
    scores = [node.score for node in nodes if node.score is not None]
    return f" (scores {max(scores):.2f} to {min(scores):.2f})" if scores else ""


def _started(event: SearchStarted, tree: SearchTree) -> str:
    fork = f"Forked from step {event.origin.node} of run {one_line(event.origin.run, 20)}. " if event.origin else ""
    return f"{fork}{words.plan(event.plan)}: {one_line(event.plan.why)}."


def _solution(event: SolutionFound, tree: SearchTree) -> str:
    place = tree.solutions.index(tree.nodes[event.node]) + 1
    what = "no answer can be read" if event.answer is None else f"answer {words.answer(event.answer)}"
    return f"Solution {place}, {words.scored(tree.nodes[event.node])}: {what}."


def _kept(event: NodesKept, tree: SearchTree) -> str:
    if event.by == "person":
        return f"Restored by hand: {steps(event.nodes, tree)}."
    return f"Kept {steps(event.nodes, tree)}: {one_line(event.why)}."


def _pruned(event: NodesPruned, tree: SearchTree) -> str:
    if event.by == "person":
        return f"Cut by hand: {steps(event.nodes, tree)}."
    return f"Pruned {steps(event.nodes, tree)}: {one_line(event.why)}."


def _step_failed(event: StepFailed, tree: SearchTree) -> str:
    again = ", trying again" if event.retry else ""
    return f"Step {tree.nodes[event.node].label} failed{again}: {one_line(event.error)}."


def _score_failed(event: ScoreFailed, tree: SearchTree) -> str:
    again = "trying again" if event.retry else "going on without a score"
    return f"Scoring {plural(len(event.nodes), 'step')} failed, {again}: {one_line(event.error)}."


def _by_hand(event: StepStarted, tree: SearchTree) -> str | None:
    if event.by != "person":
        return None
    node = tree.nodes[event.node]
    return f"By hand, below step {node.parent.label if node.parent else '0'}: {one_line(node.text, 200) or '…'}"


def _finished(event: SearchFinished, tree: SearchTree) -> str:
    return f"Ended: {words.REASONS.get(event.reason, event.reason)}. Answer: {words.answer(event.answer)}."


_TELLERS: dict[type[Any], Callable[[Any, SearchTree], str | None]] = {
    SearchStarted: _started,
    SearchResumed: lambda event, tree: "Resumed.",
    SolutionFound: _solution,
    NodesKept: _kept,
    NodesPruned: _pruned,
    StepStarted: _by_hand,
    StepFailed: _step_failed,
    ScoreFailed: _score_failed,
    Notice: lambda event, tree: one_line(event.message),
    SearchPaused: lambda event, tree: "Paused.",
    SearchContinued: lambda event, tree: "Going on.",
    SearchStepped: lambda event, tree: "One round." if event.round else "One step.",
    PlanChanged: lambda event, tree: f"The plan is now: {words.plan(event.plan)}.",
    BranchBegun: lambda event, tree: f"The search also goes on from {words.scored(tree.nodes[event.node])}.",
    SearchFinished: _finished,
}
