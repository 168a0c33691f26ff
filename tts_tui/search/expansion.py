"""Steps that are being generated, in a form that strategies can await or iterate over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any

from tts_tui.tree.search_tree import Node


class Expansion:
    """Steps that are being generated.

    Await it for all nodes in slot order, or iterate over it with `async for` to get each one as soon as it is ready.
    Steps are left out if they failed, merely repeat a sibling, or were cut by a person before the strategy received
    them. Cancelling the wait does not cancel the steps.

    Args:
        tasks: The tasks that fill the slots.
        seen: Called when a finished step is about to be handed out; returns False to leave it out.
    """

    def __init__(self, tasks: Sequence[asyncio.Task[Node | None]], seen: Callable[[Node], bool]) -> None:
        self._tasks = tasks
        self._seen = seen

    def __await__(self) -> Generator[Any, None, list[Node]]:
        return self._all().__await__()

    async def _all(self) -> list[Node]:
        if self._tasks:  # not `gather`: others may wait for the same steps
            await asyncio.wait(self._tasks)
        nodes = [task.result() for task in self._tasks]
        return [node for node in nodes if node is not None and self._seen(node)]

    async def __aiter__(self) -> AsyncIterator[Node]:
        for ready in asyncio.as_completed(self._tasks):
            node = await ready
            if node is not None and self._seen(node):
                yield node
