"""A slot that is being filled, the step that is written into it, and why that may end early."""

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
    """Leaves the writing of a step that nobody wants any more."""


class SlotTask:
    """A slot that is being filled, and the way to end that without anybody noticing a cancellation.

    Attributes:
        at: The step that is being written, or the one that it will follow.
        by: Who asked for it.
        ended: Why it was ended, a sentence; empty if it was not.
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
        """The present task does the work from now on."""
        self._task = asyncio.current_task()

    def end(self, why: str) -> None:
        """Ends it at its next chance."""
        if not self.ended:
            self.ended = why
            self.on_end()
            # A task that has not begun looks for itself, and so does the one that is just telling others of a step.
            if self._task is not None and self._task is not asyncio.current_task():
                self._cancelled = True
                self._task.cancel()

    def check(self) -> None:
        """Goes on only if it was not ended.

        Raises:
            Ended: It was.
        """
        if self.ended:
            raise SlotCancelled

    def forgive(self) -> bool:
        """Takes the cancellation back; says whether it was the only one."""
        if not self._cancelled or self._task is None:
            return False
        self._cancelled = False
        return self._task.uncancel() == 0


class StepDraft:
    """A step that is being written."""

    def __init__(self, node: Node, work: SlotTask) -> None:
        self.work = work
        self.begin(node)

    def begin(self, node: Node) -> None:
        """Goes on with a new step."""
        self.node = self.work.at = node
        self.ids: list[int] = []
        self.text = ""
        self.usage = Usage()

    def add(self, chunk: Chunk) -> None:
        """Appends a chunk.

        Raises:
            BackendBadResponse: It holds what is no token id; its cost counts all the same.
        """
        self.usage += chunk.usage
        check_ids(chunk.ids)
        self.ids += chunk.ids
        self.text += chunk.text

    def spend(self, usage: Usage) -> None:
        """Tokens that were sampled for it and came after its last chunk."""
        self.usage += usage
