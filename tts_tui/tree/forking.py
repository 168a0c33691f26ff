"""A fork: a new search that begins with the path to a step of another one."""

from __future__ import annotations

from typing import Literal

from tts_tui.errors import UsageError
from tts_tui.protocols import Usage
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Origin, StepFinished, StepScored, StepStarted
from tts_tui.tree.search_tree import Node, SearchTree


def origin_of(tree: SearchTree, node: Node) -> Origin:
    """Where a fork at `node` comes from.

    Raises:
        UsageError: Nothing can follow `node`.
    """
    if node.state != "done":
        raise UsageError(f"step {node.label} is not whole: fork at one that is")
    if node.ended:
        how = "ended its answer" if node.terminal else "was cut off at its limit of tokens"
        raise UsageError(f"step {node.label} {how}: fork at a step before it")
    return Origin(tree.start.run, node.id, node.depth)


def copy_path(node: Node, journal: EventLog, *, scores: bool) -> None:
    """Writes the steps to `node` down as the first of a new search. They cost nothing there.

    Args:
        node: A node of the other tree.
        journal: The new search's, just begun.
        scores: Copy the scores, too.
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
