"""Which prefixes a server has computed already, so that requests for a cold one do not all compute it.

Requests that arrive together for the same uncached prompt each compute it in full. So the first one goes ahead, and
the others follow when it has its first token. A speculative request that still waits to be sent is not waited for by
one that somebody needs, which goes ahead in its place. What is remembered may be wrong (a server forgets, too): then a
prefix is computed more than once, and nothing else happens.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext

from tts_tui.protocols import Claim

MOST = 100_000
"""Prefixes that are remembered, by their hashes."""


class _Leader:
    """A request that computes a prefix; `gone` is done once nobody waits for it any more."""

    def __init__(self, claim: Claim | None) -> None:
        self.claim = claim
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def idle(self) -> bool:
        """Whether it waits to be sent, for as long as nobody needs it."""
        return self.claim is not None and not self.claim.made and not self.claim.started

    def leave(self) -> None:
        """Lets those go on that wait for it."""
        if not self.gone.done():
            self.gone.set_result(None)


class PrefixLock:
    """Prefixes that are computed, and those that are being computed just now."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._leaders: dict[int, _Leader] = {}

    def add(self, session: str, ids: Sequence[int]) -> None:
        """`ids` are on the server now, and something of `session`."""
        for key in (hash(session), hash((session, tuple(ids)))):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def acquire(
        self, session: str, ids: Sequence[int], claim: Claim | None = None
    ) -> AsyncGenerator[Callable[[], None]]:
        """Waits while another request computes the same; gives what to call at the first token.

        The very first request of a session goes alone, for whatever it sends, all others begin with it too.

        Args:
            session: Whose request it is.
            ids: The prefix.
            claim: For as long as it is not made, those that somebody needs go first.
        """
        own, key = hash((session, tuple(ids))), hash(session)
        while own not in self._known and (leader := self._leaders.get(key) or self._leaders.get(own)) is not None:
            if leader.idle and (claim is None or claim.made):
                break
            await _until_gone(leader, claim)
        if own in self._known:
            yield lambda: None
            return
        key = own if key in self._known else key
        overtaken = self._leaders.get(key)
        leader = self._leaders[key] = _Leader(claim)
        if overtaken is not None:
            overtaken.leave()  # those that wait for it wait for this one now
        began = False

        def begin() -> None:
            nonlocal began
            if not began:
                began = True
                self.add(session, ids)
                self._release(key)  # whoever leads by now: the prefix is there

        try:
            yield begin
        finally:
            if self._leaders.get(key) is leader:  # it failed: the next one leads
                self._release(key)

    def _release(self, key: int) -> None:
        if (leader := self._leaders.pop(key, None)) is not None:
            leader.leave()


async def _until_gone(leader: _Leader, claim: Claim | None) -> None:
    """Waits for a leader, or until `claim` is made."""
    changed = asyncio.Event()
    leader.gone.add_done_callback(lambda _: changed.set())
    with nullcontext() if claim is None else claim.told(changed.set):
        await changed.wait()
