"""Forks: new searches that begin with a copy of the path to a step of another search."""

from __future__ import annotations

from typing import Literal

from tts_tui.errors import UsageError
from tts_tui.protocols import Usage
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Origin, StepFinished, StepScored, StepStarted
from tts_tui.tree.search_tree import Node, SearchTree


def origin_of(tree: SearchTree, node: Node) -> Origin:
    """Return the origin of a fork at `node`.

    Raises:
        UsageError: `node` is not finished, or cannot be continued.
    """
    if node.state != "done":
        raise UsageError(f"step {node.label} is not whole: fork at one that is")
    if node.ended:
        how = "ended its answer" if node.terminal else "was cut off at its limit of tokens"
        raise UsageError(f"step {node.label} {how}: fork at a step before it")
    return Origin(tree.start.run, node.id, node.depth)


def copy_path(node: Node, journal: EventLog, *, scores: bool) -> None:
    """Record the steps that lead to `node` as the first steps of a new search, at no cost.

    Args:
        node: A node of the original tree.
        journal: The event log of the new search, which has just begun.
        scores: Copy the scores too.
    """
    for parent, step in enumerate(node.path):
        number = parent + 1
        by: Literal["strategy", "person"] = "person" if step.by_hand else "strategy"
        assert step.ids is not None and step.finish is not None
        t, ids = journal.now, tuple(step.ids)
        journal.append(StepStarted(t=t, node=number, parent=parent, slot=step.slot, group=step.group, by=by))
        journal.append(StepFinished(t=t, node=number, ids=ids, text=step.text, finish=step.finish, usage=Usage()))
        if scores and step.score is not None:
            journal.append(StepScored(t=t, node=number, score=step.score))
