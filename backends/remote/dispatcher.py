"""Order and concurrency of the requests that are sent to a server.

One `Dispatcher` serves all searches of a policy. Searches take turns, so that one with many requests does not keep the
others waiting; speculative steps go last until a search needs them. After an overload, nothing is sent for a while, and
then fewer requests at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from time import monotonic

from asyncio_throttle.throttler import Throttler

from tts_tui.backends.remote.concurrency import ConcurrencyLimit, SlowdownModel
from tts_tui.protocols import Claim

FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
"""Seconds during which nothing is sent after an overload; doubled from the first to the longest while it lasts."""
SLOWER = 0.15
"""Relative slowdown of needed requests that speculative requests may cause."""
BURST = 4
"""Requests that begin before control returns to the event loop: hundreds at once would block it."""
LONGEST_ASKED = 120.0
"""Upper bound in seconds on the waiting time that a server requests; longer times are cut to it."""


class Dispatcher:
    """A scheduler that grants requests permission to be sent.

    Args:
        knee: The limit on requests in flight.
        rate: Maximum number of requests that begin per second; None for no limit.
        clock: Returns the current time in seconds.

    Attributes:
        knee: The limit on requests in flight.
        pace: The model of how much one more request slows down the others.
        running: Number of requests in flight.
        most_running: Highest value that `running` has had.
    """

    def __init__(
        self, knee: ConcurrencyLimit, *, rate: float | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.knee = knee
        self.pace = SlowdownModel()
        self.running = self.most_running = 0
        self._speculative: set[Claim] = set()  # claims of requests in flight that began speculatively
        self._clock = clock
        # One queue per search, served in turn; the second class is for speculative steps.
        self._waiting: tuple[OrderedDict[str, deque[asyncio.Future[None]]], ...] = (OrderedDict(), OrderedDict())
        self._throttler = None if rate is None else Throttler(*_per(rate))
        self._starter: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bursting = False
        self._closed_until = 0.0
        self._wait = FIRST_WAIT

    @property
    def ahead(self) -> int:
        """Number of requests in flight that no search needs yet."""
        return sum(1 for claim in self._speculative if not claim.made)

    @property
    def free(self) -> int:
        """Number of further requests that could be in flight without making a needed one wait."""
        if self._clock() < self._closed_until:
            return 0
        return max(0, self.knee.limit - self.running - sum(len(queue) for queue in self._waiting[0].values()))

    @property
    def spare(self) -> int:
        """Number of further requests that could be in flight without delaying or noticeably slowing needed ones."""
        slack = self.pace.slack(self.running - self.ahead, SLOWER) - self.ahead
        return max(0, int(min(self.free, slack)))

    @asynccontextmanager
    async def slot(self, session: str = "", claim: Claim | None = None) -> AsyncGenerator[None]:
        """Wait for permission to send one request, and release the slot when the context ends.

        Args:
            session: The search that the request belongs to.
            claim: The claim on a speculative request. Until it is made, the request goes after all needed ones; then
                it takes its turn among them. None for a request that is needed.
        """
        await self._enter(session, claim)
        if claim is not None:
            claim.started = True
            self._speculative.add(claim)
        try:
            yield
        finally:
            if claim is not None:
                claim.started = False
                self._speculative.discard(claim)
            self.running -= 1
            if not self.running:
                self.knee.idle()
                self.pace.idle()
            self._pump()

    def on_tokens(self, tokens: int) -> None:
        """Record that `tokens` tokens arrived, from which the limit and the slowdown are estimated."""
        self._wait = FIRST_WAIT
        now = self._clock()
        self.knee.tokens(tokens, self.running, now)
        self.pace.tokens(tokens, self.running, now)

    def overloaded(self, retry_after: float | None) -> float:
        """Record that the server reported an overload, and suspend sending.

        Args:
            retry_after: Seconds that the server asked to wait; None if it did not ask for a time.

        Returns:
            Seconds during which nothing is sent.
        """
        now = self._clock()
        self.knee.overloaded(now)
        left = self._closed_until - now
        if retry_after is not None:
            wait = min(retry_after, LONGEST_ASKED)
        elif left > 0:  # one burst is one overload, however many requests were in it
            wait = left
        else:
            wait, self._wait = self._wait, min(LONGEST_WAIT, self._wait * 2)
        self._closed_until = max(self._closed_until, now + wait)
        return wait

    async def close(self) -> None:
        """Stop granting slots. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._starter is not None:
            self._starter.cancel()
            await asyncio.wait([self._starter])

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _enter(self, session: str, claim: Claim | None) -> None:
        leave: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ahead = claim is not None and not claim.made
        self._waiting[ahead].setdefault(session, deque()).append(leave)
        self._pump()
        try:
            with nullcontext() if claim is None else claim.told(partial(self._promote, session, leave)):
                await leave
        except asyncio.CancelledError:
            if leave.done() and not leave.cancelled():  # granted at the same moment: pass the slot on
                self.running -= 1
                self._pump()
            else:
                self._withdraw(session, leave)
            raise

    def _promote(self, session: str, leave: asyncio.Future[None]) -> None:
        """Move a waiting speculative request to the first class, because a search needs it now."""
        if self._withdraw(session, leave):
            self._waiting[False].setdefault(session, deque()).append(leave)
            self._pump()

    def _withdraw(self, session: str, leave: asyncio.Future[None]) -> bool:
        """Remove a request from the queue that it waits in; return whether it was in one."""
        for queues in self._waiting:
            if session in queues and leave in queues[session]:
                queues[session].remove(leave)
                if not queues[session]:
                    del queues[session]
                return True
        return False

    def _pump(self) -> None:
        """Grant slots to all requests that may be sent now."""
        if self._throttler is not None:
            if self._next_queue() is not None and (self._starter is None or self._starter.done()):
                self._starter = asyncio.get_running_loop().create_task(self._start_at_rate(self._throttler))
            return
        for _ in range(BURST):
            if not (self._open() and self._grant()):
                return
        if not self._bursting and self._next_queue() is not None:
            self._bursting = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._bursting = False
        self._pump()

    async def _start_at_rate(self, throttler: Throttler) -> None:
        """Grant slots at the throttler's rate; only this task waits for it, because it polls once for each waiter."""
        while self._open() and self._next_queue() is not None:
            async with throttler:
                if self._open():
                    self._grant()

    def _open(self) -> bool:
        """Return whether one more request may be sent; after an overload, schedule a retry for when the pause ends."""
        if self.running >= self.knee.limit:
            return False
        left = self._closed_until - self._clock()
        if left <= 0:
            return True
        if self._timer is None and self._next_queue() is not None:
            self._timer = asyncio.get_running_loop().call_later(left, self._reopen)
        return False

    def _reopen(self) -> None:
        self._timer = None
        self._pump()

    def _next_queue(self) -> OrderedDict[str, deque[asyncio.Future[None]]] | None:
        return next((queues for queues in self._waiting if queues), None)

    def _grant(self) -> bool:
        """Grant a slot to the longest waiting request of the search whose turn it is; return whether there was one."""
        queues = self._next_queue()
        if queues is None:
            return False
        session, queue = queues.popitem(last=False)
        leave = queue.popleft()
        if queue:
            queues[session] = queue  # at the end: the other searches come first
        if not leave.done():
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            leave.set_result(None)
        return True


def _per(rate: float) -> tuple[int, float]:
    """Return `rate` as a count and a period in seconds; the throttler takes only integer counts."""
    return (round(rate), 1.0) if rate >= 1 else (1, 1.0 / rate)
