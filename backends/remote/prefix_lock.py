"""Lock on prefixes that a server has not computed yet, so that concurrent requests do not all compute the same one.

Requests that arrive together for the same uncached prompt each compute it in full. So the first one goes ahead, and
the others follow when it has its first token. A needed request does not wait for a speculative one that has not been
sent yet, but goes ahead in its place. The record of cached prefixes may be wrong, since servers evict them: then a
prefix is computed more than once, with no other consequence.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext

from tts_tui.protocols import Claim

MOST = 100_000
"""Maximum number of prefixes that are remembered, by their hashes."""


class _Leader:
    """A request that computes a prefix; `gone` is done once other requests need not wait for it any more."""

    def __init__(self, claim: Claim | None) -> None:
        self.claim = claim
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def idle(self) -> bool:
        """True if the request is speculative, not needed yet, and still waiting to be sent."""
        return self.claim is not None and not self.claim.made and not self.claim.started

    def leave(self) -> None:
        """Release the requests that wait for this one."""
        if not self.gone.done():
            self.gone.set_result(None)


class PrefixLock:
    """A record of the prefixes that a server has computed, with a lock on those that are being computed."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._leaders: dict[int, _Leader] = {}

    def add(self, session: str, ids: Sequence[int]) -> None:
        """Record that the server has computed `ids` for `session`."""
        for key in (hash(session), hash((session, tuple(ids)))):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def acquire(
        self, session: str, ids: Sequence[int], claim: Claim | None = None
    ) -> AsyncGenerator[Callable[[], None]]:
        """Wait while another request computes the same prefix; yield a callback to call at the first token.

        The first request of a session always goes alone, because all later ones share its beginning.

        Args:
            session: The search that the request belongs to.
            ids: The prefix.
            claim: The claim on a speculative request. Until it is made, needed requests go first. None for a request
                that is needed.
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
            overtaken.leave()  # requests that waited for it wait for this one now
        began = False

        def begin() -> None:
            nonlocal began
            if not began:
                began = True
                self.add(session, ids)
                self._release(key)  # whichever request leads by now: the prefix is computed

        try:
            yield begin
        finally:
            if self._leaders.get(key) is leader:  # it failed: the next one leads
                self._release(key)

    def _release(self, key: int) -> None:
        if (leader := self._leaders.pop(key, None)) is not None:
            leader.leave()


async def _until_gone(leader: _Leader, claim: Claim | None) -> None:
    """Wait until `leader` is gone, or until `claim` is made."""
    changed = asyncio.Event()
    leader.gone.add_done_callback(lambda _: changed.set())
    with nullcontext() if claim is None else claim.told(changed.set):
        await changed.wait()
