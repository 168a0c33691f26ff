"""The task that fills a slot, the draft of the step in it, and the reasons why it may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tts_tui.preflight import check_ids
from tts_tui.protocols import Chunk, Usage
from tts_tui.tree.events import By
from tts_tui.tree.search_tree import Node

ENDED = "the search ended before the step did"
CUT = "cut by hand before the step was whole"
CHANGED = "the plan was changed before the step was whole"


class SlotCancelled(Exception):
    """Raised inside the generation of a step that is no longer needed, to leave it."""


class SlotTask:
    """A slot that is being filled; `end` stops it without the cancellation reaching the callers that wait for it.

    Attributes:
        at: The step that is being generated, or the one that it will follow.
        by: The origin of the request: the strategy or a person.
        ended: The reason why it was ended, a sentence; empty if it was not.
        on_end: Called once when it is ended.
    """

    __slots__ = ("_cancelled", "_task", "at", "by", "ended", "on_end")

    def __init__(self, at: Node, by: By) -> None:
        self.at = at
        self.by: By = by
        self.ended = ""
        self.on_end: Callable[[], None] = lambda: None
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False

    def begin(self) -> None:
        """Make the current asyncio task the one that `end` cancels."""
        self._task = asyncio.current_task()

    def end(self, why: str) -> None:
        """End the task at its next opportunity.

        Args:
            why: The reason, a sentence.
        """
        if not self.ended:
            self.ended = why
            self.on_end()
            # A task that has not begun checks `ended` itself, and so does the current one, which is emitting an event.
            if self._task is not None and self._task is not asyncio.current_task():
                self._cancelled = True
                self._task.cancel()

    def check(self) -> None:
        """Raise if the task was ended.

        Raises:
            SlotCancelled: It was ended.
        """
        if self.ended:
            raise SlotCancelled

    def forgive(self) -> bool:
        """Undo the cancellation by `end`, and return whether it was the only one."""
        if not self._cancelled or self._task is None:
            return False
        self._cancelled = False
        return self._task.uncancel() == 0


class StepDraft:
    """A step that is being generated.

    Attributes:
        work: The task of the slot.
        node: The node of the step.
        ids: Token ids so far.
        text: Text so far.
        usage: Usage so far.
    """

    def __init__(self, node: Node, work: SlotTask) -> None:
        self.work = work
        self.begin(node)

    def begin(self, node: Node) -> None:
        """Start an empty draft for a new step."""
        self.node = self.work.at = node
        self.ids: list[int] = []
        self.text = ""
        self.usage = Usage()

    def add(self, chunk: Chunk) -> None:
        """Append a chunk.

        Raises:
            BackendBadResponse: The chunk has an invalid token id; its usage is counted nevertheless.
        """
        self.usage += chunk.usage
        check_ids(chunk.ids)
        self.ids += chunk.ids
        self.text += chunk.text

    def spend(self, usage: Usage) -> None:
        """Add the usage of tokens that were sampled for this step after its last chunk."""
        self.usage += usage
