"""Events as sentences: one for each event that deserves one, shared by the plain display and the terminal UI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tts_tui.displays import phrases
from tts_tui.formatting import one_line, plural
from tts_tui.search.slots import CHANGED, CUT, ENDED
from tts_tui.tree.events import (
    WRITTEN,
    AnswersMatched,
    AnyEvent,
    BranchBegun,
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
    StepFailed,
    StepFinished,
    StepStarted,
)
from tts_tui.tree.search_tree import Node, SearchTree


def describe(event: AnyEvent, tree: SearchTree) -> str | None:
    """Return the sentence for `event`, which `tree` has just folded; None if it needs none."""
    teller = _TELLERS.get(type(event))
    return teller(event, tree) if teller is not None else None


def _steps(ids: tuple[int, ...], tree: SearchTree) -> str:
    """Return e.g. `step 0.3.1 (score 0.92)`, or `4 steps (scores 0.92 to 0.41)`."""
    nodes = [tree.nodes[id] for id in ids]
    if len(nodes) == 1:
        return phrases.scored(nodes[0])
    scores = [node.score for node in nodes if node.score is not None]
    return plural(len(nodes), "step") + (f" (scores {max(scores):.2f} to {min(scores):.2f})" if scores else "")


def _is_copied(node: Node, tree: SearchTree) -> bool:
    """Return whether a step was copied by a fork: the user's actions in the other run are narrated there."""
    origin = tree.start.origin
    return origin is not None and node.id <= origin.steps


def _started(event: SearchStarted, tree: SearchTree) -> str:
    fork = f"{phrases.origin(event.origin)} " if event.origin is not None else ""
    return f"{fork}Begun: {phrases.plan(event.plan)}; {one_line(event.plan.why)}."


def _solution(event: SolutionFound, tree: SearchTree) -> str:
    what = "no answer can be read" if event.answer is None else f"answer {phrases.answer(event.answer)}"
    return f"Solution {len(tree.solutions)}, {phrases.scored(tree.nodes[event.node])}: {what}."


def _matched(event: AnswersMatched, tree: SearchTree) -> str:
    return (
        f"The answers {phrases.answer(event.left)} and {phrases.answer(event.right)} mean the same and vote together."
    )


def _kept(event: NodesKept, tree: SearchTree) -> str:
    if event.by == "person":
        return f"Restored by hand: {_steps(event.nodes, tree)}."
    return f"Kept {_steps(event.nodes, tree)}: {one_line(event.why)}."


def _pruned(event: NodesPruned, tree: SearchTree) -> str:
    if event.by == "person":
        return f"Cut by hand: {_steps(event.nodes, tree)}."
    return f"Pruned {_steps(event.nodes, tree)}: {one_line(event.why)}."


def _asked(event: StepStarted, tree: SearchTree) -> str | None:
    node = tree.nodes[event.node]
    if event.by != "person" or event.group == WRITTEN or _is_copied(node, tree):
        return None
    return f"Asked for by hand: step {node.label}."


def _written(event: StepFinished, tree: SearchTree) -> str | None:
    node = tree.nodes[event.node]
    if not node.by_hand or node.group != WRITTEN or _is_copied(node, tree):
        return None
    return f"Written by hand: step {node.label}: {one_line(event.text, 300)}"


def _step_failed(event: StepFailed, tree: SearchTree) -> str | None:
    if event.error in (ENDED, CUT, CHANGED):  # the end of a search is not a failure, and is narrated once
        return None
    again = ", trying again" if event.retry else ""
    return f"Step {tree.nodes[event.node].label} failed{again}: {one_line(event.error)}."


def _score_failed(event: ScoreFailed, tree: SearchTree) -> str:
    steps = plural(len(event.nodes), "step")
    if event.retry:
        return f"Scoring {steps} failed, trying again: {one_line(event.error)}."
    return f"Scoring {steps} failed for good, no score is made up: {one_line(event.error)}."


def _chosen(event: PlanChosen, tree: SearchTree) -> str:
    """Return the choice with its reason and expectations, and, at first or when it changes, the basis."""
    what = f"chosen {phrases.chosen(event)}" if event.strategy else "stop"
    where = "" if event.root == tree.search_root.id else f"from {phrases.scored(tree.nodes[event.root])}, "
    head = where + what
    basis = phrases.basis(event)
    before = next((one for one in reversed(tree.choices) if one is not event), None)
    rests = "" if before is not None and before.basis == event.basis else f" Basis: {basis}."
    return (
        f"{head[0].upper()}{head[1:]}: {phrases.why(event)} "
        f"Expected pass@1 {phrases.expected(event)}; {phrases.levels(event)}.{rests}"
    )


def _finished(event: SearchFinished, tree: SearchTree) -> str:
    return f"Ended: {phrases.REASONS.get(event.reason, event.reason)}. Answer: {phrases.answer(event.answer)}."


_TELLERS: dict[type[Any], Callable[[Any, SearchTree], str | None]] = {
    SearchStarted: _started,
    SearchResumed: lambda event, tree: "Resumed.",
    SolutionFound: _solution,
    AnswersMatched: _matched,
    NodesKept: _kept,
    NodesPruned: _pruned,
    StepStarted: _asked,
    StepFinished: _written,
    StepFailed: _step_failed,
    ScoreFailed: _score_failed,
    Notice: lambda event, tree: one_line(event.message),
    SearchPaused: lambda event, tree: "Paused.",
    SearchContinued: lambda event, tree: "Going on.",
    SearchStepped: lambda event, tree: "One round." if event.round else "One step.",
    PlanChosen: _chosen,
    PlanChanged: lambda event, tree: f"The plan is now: {phrases.plan(event.plan)}.",
    BranchBegun: lambda event, tree: f"The search also goes on from {phrases.scored(tree.nodes[event.node])}.",
    SearchFinished: _finished,
}
