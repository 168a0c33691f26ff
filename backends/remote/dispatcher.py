"""Which request goes to the server next, and how many are there at once.

One `Dispatcher` serves all searches of a policy. Searches take turns, so that one with many requests does not keep the
others waiting; steps that are written ahead go last for as long as nobody needs them. A server that is overloaded is
given time, and less to do.
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
"""Seconds that nothing is sent after an overload; doubled from the first to the longest while it lasts."""
SLOWER = 0.15
"""By how much requests that nobody needs yet may slow those down that somebody waits for."""
BURST = 4
"""Requests that begin before the event loop does something else: hundreds at once would hold it up."""
LONGEST_ASKED = 120.0
"""Most seconds that a server is believed, should it ask for more."""


class Dispatcher:
    """Hands out leave to send.

    Args:
        knee: How many requests may be under way at once.
        rate: Most requests that begin in a second; None for no limit.
        clock: Seconds.

    Attributes:
        pace: How much slower requests become with one more.
        running: Requests under way.
        most_running: Most of them at any time.
    """

    def __init__(
        self, knee: ConcurrencyLimit, *, rate: float | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.knee = knee
        self.pace = SlowdownModel()
        self.running = self.most_running = 0
        self._speculative: set[Claim] = set()  # those of them that were begun before anybody needed them
        self._clock = clock
        # One queue a search, in turn; the second class is for steps ahead of their time.
        self._waiting: tuple[OrderedDict[str, deque[asyncio.Future[None]]], ...] = (OrderedDict(), OrderedDict())
        self._throttler = None if rate is None else Throttler(*_per(rate))
        self._starter: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bursting = False
        self._closed_until = 0.0
        self._wait = FIRST_WAIT

    @property
    def ahead(self) -> int:
        """How many of the requests under way nobody needs so far."""
        return sum(1 for claim in self._speculative if not claim.made)

    @property
    def free(self) -> int:
        """How many more requests could be under way without making one wait that somebody needs."""
        if self._clock() < self._closed_until:
            return 0
        return max(0, self.knee.limit - self.running - sum(len(queue) for queue in self._waiting[0].values()))

    @property
    def spare(self) -> int:
        """How many more requests could be under way without making those wait or slow that somebody needs."""
        slack = self.pace.slack(self.running - self.ahead, SLOWER) - self.ahead
        return max(0, int(min(self.free, slack)))

    @asynccontextmanager
    async def slot(self, session: str = "", claim: Claim | None = None) -> AsyncGenerator[None]:
        """Waits for leave to have one more request under way, and gives it back at the end.

        Args:
            session: Whose request it is.
            claim: Until it is made, the request goes after all that are needed; then it takes its turn among them.
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
        """So many tokens came back: how the knee is found."""
        self._wait = FIRST_WAIT
        now = self._clock()
        self.knee.tokens(tokens, self.running, now)
        self.pace.tokens(tokens, self.running, now)

    def overloaded(self, retry_after: float | None) -> float:
        """The server asked for time: nothing is sent for that long. Returns how long."""
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
        """Lets nobody go any more. Safe to call twice."""
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
            if leave.done() and not leave.cancelled():  # granted in the same moment: it goes to the next
                self.running -= 1
                self._pump()
            else:
                self._withdraw(session, leave)
            raise

    def _promote(self, session: str, leave: asyncio.Future[None]) -> None:
        """Has a request that waits in the second class take its turn in the first: somebody needs it now."""
        if self._withdraw(session, leave):
            self._waiting[False].setdefault(session, deque()).append(leave)
            self._pump()

    def _withdraw(self, session: str, leave: asyncio.Future[None]) -> bool:
        """Takes a request out of the queue that it waits in; says whether there was one."""
        for queues in self._waiting:
            if session in queues and leave in queues[session]:
                queues[session].remove(leave)
                if not queues[session]:
                    del queues[session]
                return True
        return False

    def _pump(self) -> None:
        """Gives leave to whoever may go now."""
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
        """The only one that waits for the throttler, which polls for everybody who does."""
        while self._open() and self._next_queue() is not None:
            async with throttler:
                if self._open():
                    self._grant()

    def _open(self) -> bool:
        """Whether one more may go; after an overload it is asked again when the time is over."""
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
        """Lets the next one go: of the search whose turn it is, the one that has waited longest."""
        queues = self._next_queue()
        if queues is None:
            return False
        session, queue = queues.popitem(last=False)
        leave = queue.popleft()
        if queue:
            queues[session] = queue  # to the end: the others come first
        if not leave.done():
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            leave.set_result(None)
        return True


def _per(rate: float) -> tuple[int, float]:
    """`rate` as so many in so many seconds; the throttler takes whole numbers only."""
    return (round(rate), 1.0) if rate >= 1 else (1, 1.0 / rate)
