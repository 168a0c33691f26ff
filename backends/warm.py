"""Which prefixes a server has computed already, so that requests for a cold one do not all compute it.

Requests that arrive together for the same uncached prompt each compute it in full. So the first one goes ahead, and
the others follow when it has its first token. What is remembered may be wrong (a server forgets, too): then a prefix
is computed more than once, and nothing else happens.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

MOST = 100_000
"""Prefixes that are remembered, by their hashes."""


class Warm:
    """Prefixes that are computed, and those that are being computed just now."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._leaders: dict[int, asyncio.Future[None]] = {}

    def add(self, session: str, ids: Sequence[int]) -> None:
        """`ids` are on the server now, and something of `session`."""
        for key in (hash(session), hash((session, tuple(ids)))):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def turn(self, session: str, ids: Sequence[int]) -> AsyncGenerator[Callable[[], None]]:
        """Waits while another request computes the same; gives what to call at the first token.

        The very first request of a session goes alone, for whatever it sends, all others begin with it too.
        """
        own, key = hash((session, tuple(ids))), hash(session)
        while own not in self._known and (leader := self._leaders.get(key) or self._leaders.get(own)) is not None:
            await asyncio.shield(leader)
        if own in self._known:
            yield lambda: None
            return
        key = own if key in self._known else key
        leader = self._leaders[key] = asyncio.get_running_loop().create_future()

        def began() -> None:
            if not leader.done():
                self.add(session, ids)
                self._leaders.pop(key, None)
                leader.set_result(None)

        try:
            yield began
        finally:
            if not leader.done():  # it failed: the next one leads
                self._leaders.pop(key, None)
                leader.set_result(None)
