"""Steps that are being generated, as strategies wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any

from tts_tui.tree.search_tree import Node


class Expansion:
    """Steps on their way. Await it for all of them by slot, or iterate over it for each as soon as it is ready.

    Steps that failed, that only repeat a sibling, or that a person has cut before the strategy went on with them
    are left out. Ending the wait does not end the steps.
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
